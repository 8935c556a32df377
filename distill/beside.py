"""What other labels make of the same teacher, language and task: its scores, for a card to show beside its own."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.bundle import Bundle, Manifest, next_revision, revisions, write
from app.errors import DataError
from distill.report import card

_SHOWN = ("teacher", "student")


def beside(manifest: Manifest, store: Path) -> Manifest:
    """The manifest with the scores of the newest revision in `store` that is comparable; as it was where none is."""
    folder = store / manifest.language / manifest.task
    for revision in reversed(revisions(folder)):
        other = Bundle.open(folder / str(revision), verify=False).manifest
        if not _difference(manifest, other):
            return _joined(manifest, other)
    return manifest


def publish_beside(folder: Path, other: Path) -> Path:
    """Write the bundle in `folder` again, as its store's next revision, with the scores of `other` on its card.

    Raises BundleError where either is not whole, DataError where their scores cannot be compared.
    """
    mine, theirs = Bundle.open(folder).manifest, Bundle.open(other).manifest
    if difference := _difference(mine, theirs):
        raise DataError(f"{folder} and {other} {difference}: their scores do not belong on one card")
    store = folder.resolve().parents[2]
    manifest = replace(_joined(mine, theirs), revision=next_revision(store, mine.language, mine.task))
    with tempfile.TemporaryDirectory(prefix="bistil-beside-") as staging:
        for name in mine.files:
            (Path(staging) / name).symlink_to((folder / name).resolve())
        page = Path(staging) / "card.md"
        page.unlink(missing_ok=True)
        page.write_text(card(manifest), encoding="utf-8")
        return write(Path(staging), manifest, store=store)


def _difference(one: Manifest, other: Manifest) -> str:
    """Why the two cannot be compared, after their names; empty where they can."""
    if (one.language, one.task) != (other.language, other.task):
        return "have other languages or tasks"
    if one.teacher.get("sha256") != other.teacher.get("sha256"):
        return "have other teachers"
    if _test(one) != _test(other):
        return "were scored on other test data"
    if _shape(one) != _shape(other):
        return "have other layers"
    if _is_zero_shot(one) == _is_zero_shot(other):
        return "were taught by labels of the same kind"
    return ""


def _test(manifest: Manifest) -> tuple[Any, ...]:
    """The file that it was scored on, which is the last one listed, and how many of its examples; 0 is all."""
    scored_on = manifest.data[-1]["sha256"] if manifest.data else None
    return scored_on, manifest.config.get("export", {}).get("test_examples", 0)


def _shape(manifest: Manifest) -> tuple[Any, ...]:
    """Which of the teacher's layers a student has, and by what its width was divided."""
    return manifest.layer_map, manifest.config.get("student", {}).get("hidden_size_reduction_factor", 1)


def _is_zero_shot(manifest: Manifest) -> bool:
    return manifest.language not in manifest.source_languages


def _joined(manifest: Manifest, other: Manifest) -> Manifest:
    kind = "zero-shot" if _is_zero_shot(other) else "labelled"
    added: dict[str, Mapping[str, Any]] = {
        f"{kind} {who}": other.scores[who] for who in _SHOWN if who in manifest.scores and who in other.scores
    }
    if last := list(added)[-1:]:
        rule = f"as the student, from the same teacher, but taught on labels in {', '.join(other.source_languages)}"
        added[last[0]] = {**added[last[0]], "rule": rule}
    return replace(manifest, scores={**manifest.scores, **added})
