import dataclasses
import json
from pathlib import Path

import pytest

from app import bundle
from app.bundle import Bundle, Manifest
from app.errors import BundleError
from tests.app import tiny


@pytest.fixture
def written(tmp_path: Path) -> Bundle:
    return tiny.write_bundle(tmp_path / "store", "ner", staged=tmp_path / "staged")


def test_a_manifest_survives_json() -> None:
    manifest = tiny.manifest("ner", layer_map=(2, 4), source_languages=("en",), scores={"student": {"f1": 1.5}})
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"labels": None}, "lacks the key 'labels'"),
        ({"format": 2}, "format 2"),
        ({"variants": []}, "variants must be a list of at least one"),
        ({"variants": [{"name": "fp32", "file": "a", "size": 3}]}, "unknown key 'size'"),
    ],
)
def test_a_manifest_that_is_not_one_is_refused(change: dict[str, object], message: str) -> None:
    values = json.loads(tiny.manifest("ner").to_json()) | change
    values = {name: value for name, value in values.items() if value is not None}
    with pytest.raises(BundleError, match=message):
        Manifest.from_json(json.dumps(values))


def test_text_that_is_not_json_is_refused() -> None:
    with pytest.raises(BundleError, match="not JSON"):
        Manifest.from_json("{")


def test_write_hashes_every_file_and_leaves_nothing_else(written: Bundle, tmp_path: Path) -> None:
    assert written.folder == tmp_path / "store" / "ha" / "ner" / "1"
    assert sorted(written.manifest.files) == ["card.md", "model.onnx", "tokenizer.json"]
    assert [path.name for path in written.folder.parent.iterdir()] == ["1"]
    assert bundle.verify(written.folder) == written.manifest


def test_write_never_overwrites(written: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="immutable"):
        bundle.write(tmp_path / "staged", written.manifest, store=tmp_path / "store")


def test_write_that_fails_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "_fsync", no_space)
    with pytest.raises(BundleError, match="No space left"):
        tiny.write_bundle(tmp_path / "store", "ner", staged=tmp_path / "staged")
    assert list((tmp_path / "store" / "ha" / "ner").iterdir()) == []


def test_write_wants_the_model_file(tmp_path: Path) -> None:
    (tmp_path / "staged").mkdir()
    with pytest.raises(BundleError, match=r"lacks the model file model\.onnx"):
        bundle.write(tmp_path / "staged", tiny.manifest("ner"), store=tmp_path / "store")


def test_verify_names_the_file_that_differs(written: Bundle) -> None:
    (written.folder / "card.md").write_text("better")
    with pytest.raises(BundleError, match=r"card\.md differs"):
        bundle.verify(written.folder)


def test_verify_names_the_file_that_is_missing(written: Bundle) -> None:
    (written.folder / "card.md").unlink()
    with pytest.raises(BundleError, match=r"card\.md is missing"):
        bundle.verify(written.folder)


def test_verify_names_the_file_that_is_extra(written: Bundle) -> None:
    (written.folder / "notes.txt").write_text("x")
    with pytest.raises(BundleError, match=r"notes\.txt is extra"):
        bundle.verify(written.folder)


def test_open_names_a_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read"):
        Bundle.open(tmp_path)


def test_open_wants_the_variants_among_the_hashed_files(written: Bundle) -> None:
    values = json.loads((written.folder / "manifest.json").read_text())
    values["variants"][0]["file"] = "../elsewhere.onnx"
    (written.folder / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match="not under files"):
        Bundle.open(written.folder)


def test_next_revision_counts_numbers_numerically(tmp_path: Path) -> None:
    assert bundle.next_revision(tmp_path, "ha", "ner") == 1
    for name in ("2", "10", "draft", ".incoming-x"):
        (tmp_path / "ha" / "ner" / name).mkdir(parents=True)
    assert bundle.next_revision(tmp_path, "ha", "ner") == 11


def test_a_variant_is_chosen_by_name_or_is_the_first() -> None:
    manifest = tiny.manifest("ner")
    int8 = dataclasses.replace(manifest.variants[0], name="int8", precision="int8")
    manifest = dataclasses.replace(manifest, variants=(int8, *manifest.variants))
    assert manifest.variant().name == "int8"
    assert manifest.variant("fp32").name == "fp32"
    with pytest.raises(BundleError, match="it has: int8, fp32"):
        manifest.variant("fp16")


def test_the_tokenizer_reads_special_tokens_as_text_and_cuts_nothing(tmp_path: Path) -> None:
    staged = tmp_path / "staged"
    written = tiny.write_bundle(tmp_path / "store", "ner", staged=staged, family="bert")
    tokenizer = written.tokenizer()
    encoding = tokenizer.encode("[SEP] " * 600, add_special_tokens=False)
    assert tokenizer.token_to_id("[SEP]") not in encoding.ids
    assert len(encoding.ids) > 512


def test_a_broken_tokenizer_is_named(written: Bundle) -> None:
    (written.folder / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json cannot be read"):
        written.tokenizer()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("files", None),
        ("files", {"model.onnx": 5}),
        ("labels", 5),
        ("labels", "abc"),
        ("max_length", "64"),
        ("revision", True),
        ("variants", [{"name": "x", "file": 5}]),
        ("data", [5]),
    ],
)
def test_open_names_a_value_of_another_type(written: Bundle, name: str, value: object) -> None:
    values = json.loads((written.folder / "manifest.json").read_text()) | {name: value}
    (written.folder / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match=f"{'file' if name == 'variants' else name} must be"):
        Bundle.open(written.folder)
