"""Stores elsewhere: an S3 of moto's on a real socket, and fsspec's file:// where the scheme does not matter."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from app.errors import BundleError, ConfigError, MissingExtra
from app.remote import Remote
from tests.app import tiny
from tests.app.live import ROOT, running, wait_until_ready
from tests.patience import post

PLACES = ["ha/ner/1", "ha/pos/1"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tiny.write_store(tmp_path, tasks=("ner", "pos"))


@pytest.fixture
def remote(root: Path, tmp_path: Path) -> Remote:
    return Remote(f"file://{root}", cache=tmp_path / "cache")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedMotoServer]:
    for name, value in {
        "ACCESS_KEY_ID": "a",
        "SECRET_ACCESS_KEY": "b",
        "DEFAULT_REGION": "us-east-1",
        "MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    yield server
    server.stop()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def leftovers(cache: Path) -> list[Path]:
    return list(cache.rglob(".incoming-*"))


def test_a_bundle_arrives_as_it_was(remote: Remote, root: Path, tmp_path: Path) -> None:
    assert sorted(remote.places()) == PLACES
    for place in PLACES:
        assert contents(remote.fetch(place)) == contents(root / place)
    assert not leftovers(tmp_path)


def test_a_file_of_several_bundles_is_fetched_and_kept_once(remote: Remote, root: Path) -> None:
    first, second = (remote.fetch(place) for place in PLACES)
    assert (first / "tokenizer.json").samefile(second / "tokenizer.json")
    assert not (first / "model.onnx").samefile(second / "model.onnx")


def test_what_is_kept_serves_a_store_that_cannot_be_reached(remote: Remote, root: Path) -> None:
    folder = remote.fetch("ha/ner/1")
    shutil.rmtree(root)
    root.write_text("no folder")
    with pytest.raises(BundleError, match="ha/pos/1 cannot be fetched"):
        remote.fetch("ha/pos/1")
    assert remote.fetch("ha/ner/1") == folder


def test_a_store_that_cannot_be_listed_is_listed_as_it_was_or_refused(
    remote: Remote, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    remote.fetch("ha/ner/1")

    def fail(*args: object) -> None:
        raise RuntimeError("no route")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.glob", fail)
    assert remote.places() == ["ha/ner/1"]
    assert "cannot be listed, going on with what is kept: RuntimeError: no route" in caplog.text
    with pytest.raises(ConfigError, match="cannot be listed: RuntimeError: no route"):
        Remote(f"file://{root}", cache=tmp_path / "empty").places()


def test_a_bundle_with_another_content_is_another_bundle(remote: Remote, root: Path, tmp_path: Path) -> None:
    before = remote.fetch("ha/ner/1")
    shutil.rmtree(root / "ha" / "ner")
    tiny.write_bundle(root, "ner", staged=tmp_path / "again", scores={"student": {"f1": 51.0}})
    after = remote.fetch("ha/ner/1")
    assert after != before
    assert json.loads((after / "manifest.json").read_text())["scores"]["student"]["f1"] == 51


def test_a_file_that_differs_from_its_hash_is_not_kept(remote: Remote, root: Path, tmp_path: Path) -> None:
    (root / "ha" / "ner" / "1" / "model.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"model\.onnx differs from its sha256"):
        remote.fetch("ha/ner/1")
    assert not list((tmp_path / "cache" / "bundles").iterdir())
    assert b"other" not in contents(tmp_path / "cache").values()
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "a/../../escaped", "manifest.json"])
def test_a_manifest_cannot_write_outside_its_folder_or_over_itself(
    name: str, remote: Remote, root: Path, tmp_path: Path
) -> None:
    path = root / "ha" / "ner" / "1" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = manifest["files"]["card.md"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="cannot be"):
        remote.fetch("ha/ner/1")
    assert not list(tmp_path.rglob("escaped"))


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """The system refuses to write more into any file, as it does when the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_leaves_nothing_behind_and_the_next_fetch_goes_on(
    remote: Remote, root: Path, tmp_path: Path
) -> None:
    with files_of_at_most(1000), pytest.raises(BundleError, match="cannot be fetched: OSError"):
        remote.fetch("ha/ner/1")
    assert not leftovers(tmp_path)
    assert not list((tmp_path / "cache" / "bundles").iterdir())
    assert contents(remote.fetch("ha/ner/1")) == contents(root / "ha" / "ner" / "1")


def test_a_server_fetches_from_s3_before_it_is_ready_and_never_for_a_request(
    root: Path, tmp_path: Path, s3: ThreadedMotoServer
) -> None:
    files = fsspec.filesystem("s3")
    files.mkdir("models")
    files.put(str(root), "models/students", recursive=True)
    flags = ("--cache", str(tmp_path / "cache"), "--drain-delay-s", "0")
    with running("s3://models/students", *flags) as server:
        wait_until_ready(server.url)
        files.rm("models", recursive=True)
        answer = post(f"{server.url}/v1/ha/ner", json={"inputs": tiny.SENTENCE})
        assert [entity["word"] for entity in answer.json()] == ["Bola Tinubu", "Kano"]
    s3.stop()
    kept = Remote("s3://models/students", cache=tmp_path / "cache")
    assert sorted(kept.places()) == PLACES
    assert contents(kept.fetch("ha/ner/1")) == contents(root / "ha" / "ner" / "1")


def test_offline_means_offline(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "app.main",
        "--store",
        "hf://nobody/nothing",
        "--cache",
        str(tmp_path),
        "--port",
        "0",
    ]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "OfflineModeIsEnabled" in done.stdout


def test_a_missing_driver_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", fail)
    with pytest.raises(MissingExtra, match=r"pip install '\.\[s3\]'"):
        Remote("s3://models", cache=tmp_path).places()
