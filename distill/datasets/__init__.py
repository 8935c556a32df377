"""Labelled data: files in the formats of this folder into examples, with the files' hashes and licences."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from app.errors import UnknownChoice
from app.plugins import load
from distill.datasets.base import Corpus, Format, held_out, provenance
from distill.layout import Source, missing, sources, translated
from distill.tasks.base import Example, task_named

__all__ = ["SPLITS", "Corpus", "read"]

SPLITS = ("train", "dev", "test")


def read(task: str, folder: Path, language: str, split: str, *, target: str = "") -> Corpus:
    """The examples of a task (ner, pos, nli, qa, dp) in one language and split, in file order.

    NLI and QA without a dev split take a fixed tenth of their training split for it. What a student of the language
    `target` learns from leaves out the originals of its translated test data.
    Raises UnknownChoice on a task or split there is none of; DataError, naming the paths looked for, on missing,
    empty, ill-formed or wrongly encoded files.
    """
    spec = task_named(task)
    if split not in SPLITS:
        raise UnknownChoice("split", split, SPLITS)
    unseen = _contexts(task, translated(task, folder, language, target)) if target else frozenset()
    parts = _parts(task, folder, language, split, unseen)
    if task in ("nli", "qa") and split != "test" and not _parts(task, folder, language, "dev", unseen):
        training = parts if split == "train" else _parts(task, folder, language, "train", unseen)
        parts = [(source, _tenth(examples, split)) for source, examples in training]
    examples = [example for _, part in parts for example in part]
    if not examples:
        raise missing(task, folder, language, split)
    files = [provenance(source.path, folder, rows=len(part)) for source, part in parts if part]
    return Corpus(examples=examples, labels=spec.labels, files=files)


def _parts(
    task: str, folder: Path, language: str, split: str, unseen: frozenset[str]
) -> list[tuple[Source, list[Example]]]:
    parts: list[tuple[Source, list[Example]]] = []
    pooled: set[tuple[str, str]] = set()
    for source in sources(task, folder, language, split):
        reader = cast(Format, load("distill.datasets", source.format))
        examples = reader.read(source.path, task=task, split=split)
        if source.pooled:  # XQuAD's English paragraphs are SQuAD's
            examples = [example for example in _tenth(examples, split) if _question(example) not in pooled]
            pooled.update(map(_question, examples))
        if unseen:
            examples = [example for example in examples if example.item.context not in unseen]
        if examples:
            parts.append((source, examples))
    return parts


def _contexts(task: str, paths: Sequence[Path]) -> frozenset[str]:
    reader = cast(Format, load("distill.datasets", "squad"))
    return frozenset(example.item.context for path in paths for example in reader.read(path, task=task, split="test"))


def _question(example: Example) -> tuple[str, str]:
    return example.item.context, example.item.question


def _tenth(examples: list[Example], split: str) -> list[Example]:
    """The fixed tenth for dev, the rest for training; examples that share a context or premise stay together."""
    return [example for example in examples if held_out(_shared_text(example)) == (split == "dev")]


def _shared_text(example: Example) -> str:
    item = example.item
    return str(item.context if hasattr(item, "context") else item.text)
