from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.bundle import Bundle, Manifest, Variant, verify, write
from app.errors import DataError
from distill.__main__ import main
from distill.beside import beside, publish_beside

TEST = {"path": "ner/ha_held_out.conll", "sha256": "t", "rows": 9, "licence": "CC0", "redistribute": "yes"}
TRAIN = {**TEST, "path": "ner/en/train.conll", "sha256": "s"}


def manifest(f1: float, *, labels: tuple[str, ...] = ("en",), **changes: Any) -> Manifest:
    made = Manifest(
        language="ha",
        task="ner",
        codec="token_classification",
        revision=1,
        labels=("O", "B-PER"),
        max_length=128,
        stride=32,
        pad_id=1,
        variants=(Variant(name="int8", file="model_int8.onnx", precision="int8"),),
        source_languages=labels,
        teacher={"source": "mmt", "sha256": "abc"},
        scores={
            "baseline": {"f1": 20.0},
            "teacher": {"f1": f1 + 1, "low": f1, "high": f1 + 2},
            "student": {"f1": f1, "low": f1 - 1, "high": f1 + 1},
            "student int8": {"f1": f1},
        },
        data=[TRAIN, TEST],
    )
    return replace(made, **changes)


def put(store: Path, described: Manifest) -> Path:
    staged = store.parent / f"staged-{store.name}-{described.revision}"
    staged.mkdir(parents=True)
    for name in ("model_int8.onnx", "tokenizer.json", "card.md"):
        (staged / name).write_text(f"{name} of {store.name}", encoding="utf-8")
    return write(staged, described, store=store)


def test_a_bundle_published_again_has_the_other_s_scores_on_its_card_and_its_own_model(tmp_path: Path) -> None:
    mine, other = put(tmp_path / "zero", manifest(50.0)), put(tmp_path / "own", manifest(70.0, labels=("en", "ha")))
    again = publish_beside(mine, other)
    assert again == tmp_path / "zero" / "ha" / "ner" / "2" and verify(again).revision == 2
    assert (again / "model_int8.onnx").read_text() == "model_int8.onnx of zero"
    page = (again / "card.md").read_text(encoding="utf-8")
    assert "| student | 50.00 | 49.00 to 51.00 |" in page
    assert "| labelled teacher | 71.00 | 70.00 to 72.00 |" in page
    assert "| labelled student | 70.00 | 69.00 to 71.00 |" in page
    assert "but taught on labels in en, ha." in page and "Of the teacher's f1: student 98.0 %" in page
    assert verify(mine) == replace(manifest(50.0), files=Bundle.open(mine).manifest.files)


def test_it_works_the_other_way_round_and_again(tmp_path: Path) -> None:
    mine, other = put(tmp_path / "own", manifest(70.0, labels=("en", "ha"))), put(tmp_path / "zero", manifest(50.0))
    publish_beside(mine, other)
    better = put(tmp_path / "zero", manifest(55.0, revision=2))
    scores = Bundle.open(publish_beside(mine, better)).manifest.scores
    assert scores["student"]["f1"] == 70.0 and scores["zero-shot student"]["f1"] == 55.0


def test_a_student_of_another_shape_is_not_shown(tmp_path: Path) -> None:
    narrow = {"student": {"hidden_size_reduction_factor": 2}}
    mine = manifest(50.0, layer_map=(5, 11))
    others: list[dict[str, Any]] = [{"layer_map": (2, 5, 8, 11)}, {"layer_map": (5, 11), "config": narrow}]
    for number, changes in enumerate(others):
        put(tmp_path / str(number), manifest(70.0, labels=("en", "ha"), **changes))
        assert beside(mine, tmp_path / str(number)) == mine
    put(tmp_path / "same", manifest(70.0, labels=("en", "ha"), layer_map=(5, 11)))
    assert beside(mine, tmp_path / "same").scores["labelled student"]["f1"] == 70.0


def test_a_store_s_newest_comparable_revision_is_the_one_shown(tmp_path: Path) -> None:
    own = manifest(70.0, labels=("en", "ha"))
    assert beside(own, tmp_path / "store") == own
    others: list[dict[str, Any]] = [{}, {"labels": ("fr",)}, {"teacher": {"sha256": "other"}}, {"labels": ("en", "ha")}]
    for revision, changes in enumerate(others, start=1):
        put(tmp_path / "store", manifest(50.0 + revision, revision=revision, **changes))
    shown = beside(own, tmp_path / "store").scores
    assert shown["zero-shot student"]["f1"] == 52.0 and "taught on labels in fr" in shown["zero-shot student"]["rule"]
    assert not any(name.startswith("zero-shot") for name in beside(replace(own, task="pos"), tmp_path / "store").scores)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "pos"}, "other languages or tasks"),
        ({"teacher": {"sha256": "other"}}, "other teachers"),
        ({"data": [TRAIN, {**TEST, "sha256": "u"}]}, "other test data"),
        ({"config": {"export": {"test_examples": 5}}}, "other test data"),
        ({"source_languages": ("en", "fr")}, "labels of the same kind"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(
    tmp_path: Path, changes: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = put(tmp_path / "zero", manifest(50.0))
    other = put(tmp_path / "own", replace(manifest(70.0, labels=("en", "ha")), **changes))
    with pytest.raises(DataError, match=said):
        publish_beside(mine, other)
    assert main(["beside", str(mine), str(other)]) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert [path.name for path in mine.parent.iterdir()] == ["1"]
