"""Remote: a store elsewhere (``s3://``, ``hf://``, whatever fsspec reads), kept on this machine by content."""

import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from app.bundle import MANIFEST, Manifest
from app.errors import BundleError, ConfigError, MissingExtra

_LOG = logging.getLogger(__name__)
_EXTRAS = {"s3": "s3", "s3a": "s3", "hf": "hf"}
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Remote:
    """Bundles are fetched when a model is opened, never for a request, and each file once for all bundles it is in.

    Under ``cache``: ``files/<sha256>`` are the files, which get their names when their hash was found right;
    ``bundles/<sha256 of the manifest>/`` is a bundle of links to them; ``stores/<store>/<place>`` holds the name of the
    bundle that was last seen there, for when the store cannot be reached.
    """

    def __init__(self, root: str, *, cache: Path) -> None:
        self.root = root
        self._files = cache / "files"
        self._bundles = cache / "bundles"
        self._seen = cache / "stores" / hashlib.sha256(root.encode()).hexdigest()[:16]

    def places(self) -> list[str]:
        """``<language>/<task>/<revision>`` of every bundle; where the store cannot be read, of those kept here.

        :raises ConfigError: the store cannot be read and nothing of it is kept here.
        :raises MissingExtra: the driver for it is not installed.
        """
        files, root = self._open()
        try:
            files.invalidate_cache()
            return ["/".join(PurePosixPath(path).parts[-4:-1]) for path in files.glob(f"{root}/*/*/*/{MANIFEST}")]
        except Exception as error:  # drivers have no common root for what can go wrong on a network
            kept = ["/".join(path.parts[-3:]) for path in self._seen.glob("*/*/*")]
            if not kept:
                raise ConfigError(f"the store {self.root} cannot be listed: {_said(error)}") from error
            _LOG.warning("the store %s cannot be listed, going on with what is kept: %s", self.root, _said(error))
            return kept

    def fetch(self, place: str) -> Path:
        """The folder here of the bundle at ``place``; whatever happens, nothing half-written is left.

        :raises BundleError: it cannot be fetched or is not intact.
        """
        files, root = self._open()
        source = f"{root}/{place}"
        seen = self._seen / place
        try:
            text = files.cat_file(f"{source}/{MANIFEST}")
        except Exception as error:
            if seen.is_file() and (kept := self._bundles / seen.read_text(encoding="utf-8")).is_dir():
                _LOG.warning("%s/%s cannot be read, serving what is kept: %s", self.root, place, _said(error))
                return kept
            raise BundleError(f"{self.root}/{place} cannot be fetched: {_said(error)}") from error
        target = self._bundles / hashlib.sha256(text).hexdigest()
        try:
            if not target.is_dir():
                self._build(target, text, files=files, source=source)
            seen.parent.mkdir(parents=True, exist_ok=True)
            with _incoming(seen.parent) as incoming:
                incoming.write_text(target.name, encoding="utf-8")
                incoming.replace(seen)
        except BundleError:
            raise
        except Exception as error:
            raise BundleError(f"{self.root}/{place} cannot be fetched: {_said(error)}") from error
        return target

    def forget(self, folder: Path) -> None:
        """Delete a bundle that turned out not to be intact, and its files, so that the next fetch is a fresh one."""
        with suppress(OSError, ValueError, BundleError):
            for sha256 in Manifest.from_json((folder / MANIFEST).read_text(encoding="utf-8")).files.values():
                (self._files / sha256).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def _build(self, target: Path, text: bytes, *, files: Any, source: str) -> None:
        manifest = Manifest.from_json(text.decode("utf-8"), source=f"{self.root}: {MANIFEST}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with _incoming(target.parent) as incoming:
            incoming.mkdir()
            for name, sha256 in manifest.files.items():
                outside = PurePosixPath(name).is_absolute() or ".." in name.split("/")
                if outside or name == MANIFEST or not _SHA256.fullmatch(sha256):
                    raise BundleError(f"{source}: the manifest lists {name!r} with sha256 {sha256!r}, which cannot be")
                path = incoming / name
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(self._file(files, f"{source}/{name}", sha256=sha256), path)
            (incoming / MANIFEST).write_bytes(text)
            try:
                incoming.rename(target)
            except OSError:
                if not target.is_dir():  # else another process was faster, with the same content
                    raise

    def _file(self, files: Any, source: str, *, sha256: str) -> Path:
        target = self._files / sha256
        if target.is_file():
            return target
        self._files.mkdir(parents=True, exist_ok=True)
        with _incoming(self._files) as incoming:
            files.get_file(source, str(incoming))
            with incoming.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    raise BundleError(f"{source} differs from its sha256 in the manifest")
            incoming.replace(target)
        return target

    def _open(self) -> tuple[Any, str]:
        try:
            files, path = fsspec.core.url_to_fs(self.root)
        except (ImportError, ValueError) as error:
            extra = _EXTRAS.get(self.root.partition("://")[0])
            need = f"the store {self.root} needs an fsspec driver that is not installed"
            raise (MissingExtra.of(need, extra=extra) if extra else MissingExtra(f"{need}: {error}")) from error
        return files, str(path).rstrip("/")


@contextmanager
def _incoming(folder: Path) -> Iterator[Path]:
    """A path on the same file system that is gone afterwards, unless it was moved to where it belongs."""
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=folder, ignore_cleanup_errors=True) as name:
        yield Path(name) / "incoming"


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
