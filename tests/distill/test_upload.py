from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from app.errors import BundleError, MissingExtra
from app.store import ModelStore
from distill.__main__ import main
from distill.upload import upload
from tests.app import tiny


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tiny.write_store(tmp_path / "store", tasks=("ner", "pos"))


@pytest.fixture
def url() -> Iterator[str]:
    yield "memory://uploaded"
    memory = fsspec.filesystem("memory")
    if memory.exists("/uploaded"):
        memory.rm("/uploaded", recursive=True)


def test_what_was_uploaded_is_found_and_fetched_as_it_was(store: Path, url: str, tmp_path: Path) -> None:
    assert upload(store, url) == ["ha/ner/1", "ha/pos/1"]
    remote = ModelStore(url, cache=tmp_path / "cache")
    for location in remote.find():
        fetched, own = remote.fetch(location), store / location.path
        assert {path.name: path.read_bytes() for path in fetched.iterdir()} == {
            path.name: path.read_bytes() for path in own.iterdir()
        }


@pytest.mark.parametrize(("folder", "given"), [("ha/pos", "1"), ("ha", "pos"), (".", "ha"), ("ha/pos/1", ".")])
def test_a_part_of_a_store_goes_where_it_was(
    store: Path, url: str, monkeypatch: pytest.MonkeyPatch, folder: str, given: str
) -> None:
    monkeypatch.chdir(store / folder)
    assert "ha/pos/1" in upload(Path(given), url)
    assert fsspec.filesystem("memory").exists("/uploaded/ha/pos/1/manifest.json")


def test_a_second_upload_copies_nothing(store: Path, url: str) -> None:
    upload(store, url)
    assert upload(store, url) == []


def test_an_upload_that_was_cut_off_is_invisible_and_is_completed(
    store: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = fsspec.filesystem("memory")
    put = type(memory).put_file

    def fail(self: object, source: str, target: str, **options: object) -> None:
        if "/pos/" in target and target.endswith("tokenizer.json"):
            raise OSError("connection reset")
        put(self, source, target, **options)

    with monkeypatch.context() as context:
        context.setattr(type(memory), "put_file", fail)
        with pytest.raises(BundleError, match="ha/pos/1 cannot be uploaded to memory://uploaded: connection reset"):
            upload(store, url)
    assert [place.path for place in ModelStore(url, cache=tmp_path).find()] == ["ha/ner/1"]
    assert upload(store, url) == ["ha/pos/1"]


def test_a_revision_with_another_content_is_refused(store: Path, url: str, tmp_path: Path) -> None:
    upload(store, url)
    other = tmp_path / "other"
    tiny.write_bundle(other, "ner", staged=tmp_path / "staged", licence="another")
    with pytest.raises(BundleError, match="has another ha/ner/1 and bundles are immutable"):
        upload(other, url)


def test_a_bundle_that_is_not_whole_is_refused_before_anything_is_copied(store: Path, url: str) -> None:
    (store / "ha" / "pos" / "1" / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match="differs from its sha256"):
        upload(store, url)
    assert not fsspec.filesystem("memory").exists("/uploaded")


def test_the_command_tells_what_it_copied(store: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upload", str(store), url]) == 0
    assert capsys.readouterr().out.splitlines() == ["ha/ner/1: uploaded", "ha/pos/1: uploaded"]


def test_a_scheme_without_a_driver_says_what_is_missing(store: Path) -> None:
    with pytest.raises(MissingExtra, match="nowhere"):
        upload(store, "nowhere://bucket")
