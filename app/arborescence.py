"""The best dependency tree under arc scores: a maximum spanning arborescence with exactly one child of the root."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.rows import Ints

Floats = npt.NDArray[np.float64]


def arborescence(scores: Floats) -> Ints:
    """The head of each of n words, 0 for the root and k for the k-th word, such that the sum of scores is highest.

    Chu and Liu (1965), Edmonds (1967). Of the trees over the words and the root, only those count in which one word
    alone hangs on the root, as Universal Dependencies has it. Among equal trees, any.

    Shape: ``scores`` (n, n + 1): of each word under the root and under each word; finite, but for the words under
    themselves, which are not looked at. Returns (n,) int64.
    """
    n = len(scores)
    if not n:
        return np.empty(0, dtype=np.int64)
    graph = np.full((n + 1, n + 1), -np.inf)
    graph[1:] = scores
    np.fill_diagonal(graph, -np.inf)
    heads = _spanning(graph)
    if np.count_nonzero(heads[1:] == 0) != 1:
        # so dear that the best tree has as few arcs from the root as there can be, which is one
        finite = graph[np.isfinite(graph)]
        graph[1:, 0] -= (n + 1) * (finite.max() - finite.min() + 1)
        heads = _spanning(graph)
    return np.asarray(heads[1:], dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contraction:
    """A cycle that became the last node of a smaller graph, and what is needed to open it again.

    ``heads`` are those of the larger graph with the cycle in them; for each node of ``outside``, ``enters`` is the node
    of the cycle its best arc leads to, ``leaves`` the one its best arc comes from.
    """

    heads: Ints
    outside: Ints
    enters: Ints
    leaves: Ints


def _spanning(graph: Floats) -> Ints:
    """Heads of the maximum spanning arborescence. Shape: (m, m), node 0 the root, to (m,) with 0 at the root."""
    contractions: list[_Contraction] = []
    while True:
        heads: Ints = graph.argmax(axis=1)
        cycle = _cycle(heads)
        if not len(cycle):
            break
        contraction, graph = _contract(graph, heads, cycle)
        contractions.append(contraction)
    for step in reversed(contractions):
        opened = step.heads.copy()
        last = len(step.outside)
        inner = heads[:last]
        opened[step.outside] = np.where(inner == last, step.leaves, step.outside[np.minimum(inner, last - 1)])
        opened[step.enters[heads[last]]] = step.outside[heads[last]]
        opened[0] = 0
        heads = opened
    return heads


def _contract(graph: Floats, heads: Ints, cycle: Ints) -> tuple[_Contraction, Floats]:
    is_outside = np.ones(len(graph), dtype=bool)
    is_outside[cycle] = False
    outside = np.flatnonzero(is_outside)
    entering = graph[np.ix_(cycle, outside)] - graph[cycle, heads[cycle]][:, np.newaxis]
    leaving = graph[np.ix_(outside, cycle)]
    last = len(outside)
    smaller = np.full((last + 1, last + 1), -np.inf)
    smaller[:last, :last] = graph[np.ix_(outside, outside)]
    smaller[last, :last] = entering.max(axis=0)
    smaller[:last, last] = leaving.max(axis=1)
    step = _Contraction(
        heads=heads, outside=outside, enters=cycle[entering.argmax(axis=0)], leaves=cycle[leaving.argmax(axis=1)]
    )
    return step, smaller


def _cycle(heads: Ints) -> Ints:
    """The nodes of one cycle, empty where every node comes from node 0."""
    seen = np.zeros(len(heads), dtype=np.int64)  # the walk that met the node first
    for start in range(1, len(heads)):
        node = start
        while node and not seen[node]:
            seen[node] = start
            node = int(heads[node])
        if node and seen[node] == start:
            members = [node]
            while (node := int(heads[node])) != members[0]:
                members.append(node)
            return np.asarray(members, dtype=np.int64)
    return np.empty(0, dtype=np.int64)
