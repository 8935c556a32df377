import dataclasses
import json
from pathlib import Path

import pytest

from app.bundle import Variant
from app.errors import BundleError, ConfigError, EngineError, MissingExtra, UnknownChoice
from app.settings import Settings
from app.store import Location, ModelStore
from tests.app import tiny


@pytest.fixture
def root(tmp_path: Path) -> Path:
    store = tiny.write_store(tmp_path, tasks=("ner", "pos"))
    tiny.write_bundle(store, "ner", staged=tmp_path / "two", revision=2)
    tiny.write_bundle(store, "ner", staged=tmp_path / "ten", revision=10)
    tiny.write_bundle(store, "ner", staged=tmp_path / "sw", language="sw")
    (store / "mmt-mini").mkdir()
    (store / "mmt-mini" / "config.json").write_text("{}")
    (store / "README.md").write_text("x")
    return store


def store(root: Path | str, cache: Path = Path("/nowhere")) -> ModelStore:
    return ModelStore(str(root), cache=cache)


def settings(root: Path, **values: object) -> Settings:
    return Settings.read(store=str(root), threads=1, **values)


def test_find_gives_the_highest_revision_of_each(root: Path) -> None:
    assert store(root).find() == [Location("ha", "ner", 10), Location("ha", "pos", 1), Location("sw", "ner", 1)]
    assert store(root).find(languages=["ha"], tasks=["ner"]) == [Location("ha", "ner", 10)]
    assert store(root).find(tasks=["pos"]) == [Location("ha", "pos", 1)]


def test_find_lists_the_choices_for_what_is_not_there(root: Path) -> None:
    with pytest.raises(UnknownChoice, match="unknown language 'hau'; choose from: ha, sw"):
        store(root).find(languages=["hau"])
    with pytest.raises(UnknownChoice, match="unknown task 'pos'; choose from: ner"):
        store(root).find(languages=["sw"], tasks=["pos"])


def test_an_empty_or_absent_store_says_what_it_should_hold(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no bundle under"):
        store(tmp_path).find()
    with pytest.raises(ConfigError, match="is not a folder"):
        store(tmp_path / "absent").find()


def test_open_brings_up_a_model_that_answers(root: Path) -> None:
    served = store(root).open(Location("ha", "ner", 10), settings(root))
    assert served.name == f"ha/ner/10/fp32@{served.sha[:12]}"
    assert len(served.sha) == 64
    served.engine.close()


def test_open_takes_the_named_variant(root: Path, tmp_path: Path) -> None:
    variants = tuple(Variant(name=name, file="model.onnx", precision=name) for name in ("int8", "fp32"))
    tiny.write_bundle(root, "ner", staged=tmp_path / "x", revision=11, variants=variants)
    location = Location("ha", "ner", 11)
    assert store(root).open(location, settings(root, variant="int8")).variant.name == "int8"
    assert store(root).open(location, settings(root, variant="fp32")).variant.name == "fp32"
    with pytest.raises(BundleError, match="it has: int8, fp32"):
        store(root).open(location, settings(root, variant="fp16"))


def test_open_refuses_an_altered_bundle(root: Path) -> None:
    (root / "ha" / "pos" / "1" / "model.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"model\.onnx differs"):
        store(root).open(Location("ha", "pos", 1), settings(root))


def test_open_refuses_a_bundle_in_anothers_place(root: Path) -> None:
    (root / "ha" / "pos" / "1").rename(root / "ha" / "pos" / "7")
    with pytest.raises(BundleError, match="says it is ha/pos/1, not ha/pos/7"):
        store(root).open(Location("ha", "pos", 7), settings(root))


def test_open_refuses_a_model_that_does_not_fit_its_manifest(root: Path, tmp_path: Path) -> None:
    tiny.write_bundle(root, "ner", staged=tmp_path / "x", revision=12, labels=("O", "B-PER"))
    with pytest.raises(EngineError, match="shape"):
        store(root).open(Location("ha", "ner", 12), settings(root))


def test_a_remote_store_is_found_verified_and_opened(root: Path, tmp_path: Path) -> None:
    remote = store(f"file://{root}", cache=tmp_path / "cache")
    assert remote.find(languages=["ha"]) == [Location("ha", "ner", 10), Location("ha", "pos", 1)]
    remote.open(Location("sw", "ner", 1), settings(root)).engine.close()


def test_a_remote_bundle_that_was_altered_here_is_fetched_afresh(root: Path, tmp_path: Path) -> None:
    remote = store(f"file://{root}", cache=tmp_path / "cache")
    card = remote.fetch(Location("sw", "ner", 1)) / "card.md"
    card.write_text("other")
    with pytest.raises(BundleError, match=r"card\.md differs"):
        remote.open(Location("sw", "ner", 1), settings(root))
    remote.open(Location("sw", "ner", 1), settings(root)).engine.close()


def test_a_scheme_nobody_knows_is_a_missing_extra() -> None:
    with pytest.raises(MissingExtra, match="fsspec driver"):
        store("gopher://somewhere").find()


def test_a_manifest_with_scores_is_kept_as_written(root: Path) -> None:
    text = (root / "sw" / "ner" / "1" / "manifest.json").read_text()
    served = store(root).open(Location("sw", "ner", 1), settings(root))
    assert dataclasses.asdict(served.bundle.manifest)["scores"] == json.loads(text)["scores"]
    served.engine.close()
