"""Word embeddings to start from: the singular vectors of the positive pointwise mutual information of the text."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from sklearn.utils.extmath import randomized_svd

from distill.corpus import Blocks


def embeddings(
    blocks: Sequence[Blocks], *, vocabulary: int, width: int, window: int = 3, tokens: int = 1_500_000, seed: int = 0
) -> np.ndarray:
    """Count pairs at most `window` apart in up to `tokens` tokens a language, and factorise (Levy & Goldberg 2014).

    Languages weigh alike, so that a piece of a small one is placed as well as one of a large one.
    Shape: (vocabulary, width), rows of mean square one where a piece was seen and zero elsewhere.
    """
    counts: csr_matrix = csr_matrix((vocabulary, vocabulary), dtype=np.float32)
    for language in blocks:
        n = min(len(language), tokens // len(language.take(0, 1, seed=seed)[0]))
        ids = language.take(0, n, seed=seed)
        for distance in range(1, window + 1):
            left, right = ids[:, :-distance].ravel(), ids[:, distance:].ravel()
            pairs = coo_matrix(
                (np.full(left.size, 1.0 / distance, np.float32), (left, right)), shape=(vocabulary, vocabulary)
            ).tocsr()
            counts = counts + pairs + pairs.T
    pmi = _positive_pmi(counts)
    left, values, _ = randomized_svd(pmi, width, n_iter=2, random_state=seed)
    rows = left * np.sqrt(values)
    norms = np.sqrt(np.mean(rows**2, axis=1, keepdims=True))
    return np.asarray(np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0), dtype=np.float32)


def _positive_pmi(counts: csr_matrix) -> csr_matrix:
    """Context counts are smoothed by the power 0.75 (Levy, Goldberg & Dagan 2015)."""
    rows = np.asarray(counts.sum(axis=1)).ravel()
    columns = rows**0.75
    entries = counts.tocoo()
    expected = rows[entries.row] * columns[entries.col] / columns.sum()
    values = np.log(np.maximum(entries.data / np.maximum(expected, 1e-12), 1.0))
    kept = values > 0
    return coo_matrix((values[kept], (entries.row[kept], entries.col[kept])), shape=counts.shape).tocsr()
