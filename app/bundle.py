"""The manifest and the folder it describes: ``<store>/<language>/<task>/<revision>/``, immutable once written."""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, get_args, get_origin, get_type_hints

from tokenizers import Tokenizer

from app.errors import BundleError

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One exported file of the same model, for example fp32 or int8."""

    name: str
    file: str
    engine: str = "onnx"
    precision: str = "fp32"
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def files(self) -> tuple[str, ...]:
        """``file`` and, where that is OpenVINO's graph, the weights beside it."""
        stem, dot, ending = self.file.rpartition(".")
        return (self.file, f"{stem}.bin") if dot + ending == ".xml" else (self.file,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle is, how it was made and what it scores. ``variants`` are best first; ``stride`` is in pieces.

    ``task`` is the route's name (``ner``), ``codec`` the module in ``app/tasks``; ``files`` maps every file but the
    manifest to its sha256; ``familiar`` is what ``app.guard`` knows of the languages' pieces.
    """

    language: str
    task: str
    codec: str
    revision: int
    labels: tuple[str, ...]
    max_length: int
    stride: int
    pad_id: int
    variants: tuple[Variant, ...]
    format: int = FORMAT
    source_languages: tuple[str, ...] = ()
    teacher: dict[str, Any] = field(default_factory=dict)
    layer_map: tuple[int, ...] = ()
    familiar: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    benchmark: dict[str, Any] = field(default_factory=dict)
    data: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    licence: str = ""
    created: str = ""
    files: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Indented JSON in field order, with a final newline."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str = MANIFEST) -> Self:
        """The inverse of ``to_json``.

        :raises BundleError: not JSON, an unknown or missing key, a value of another type, or another format; ``source``
            is named.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise BundleError(f"{source} is not JSON: {error}") from error
        _check_keys(cls, values, source=source)
        if values.get("format", FORMAT) != FORMAT:
            raise BundleError(f"{source} has format {values['format']!r}; this version reads format {FORMAT}")
        if not isinstance(values["variants"], list) or not values["variants"]:
            raise BundleError(f"{source}: variants must be a list of at least one model file")
        for variant in values["variants"]:
            _check_keys(Variant, variant, source=f"{source} variants")
        values["variants"] = tuple(Variant(**variant) for variant in values["variants"])
        for name in ("labels", "source_languages", "layer_map"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)

    def variant(self, name: str | None = None) -> Variant:
        """The variant called ``name``, or the first, best one.

        :raises BundleError: no variant has that name.
        """
        for variant in self.variants:
            if name is None or variant.name == name:
                return variant
        known = ", ".join(variant.name for variant in self.variants)
        raise BundleError(f"{self.language}/{self.task}/{self.revision} has no variant {name!r}; it has: {known}")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified model folder."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True) -> Self:
        """Read the manifest of ``folder`` and, unless told otherwise, check every file against it.

        :raises BundleError: a file is missing, extra or differs, or the manifest cannot be used; the file is named.
        """
        path = folder / MANIFEST
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"{path} cannot be read: {error}") from error
        bundle = cls(folder, Manifest.from_json(text, source=str(path)))
        for variant in bundle.manifest.variants:
            for name in variant.files:
                if name not in bundle.manifest.files:
                    raise BundleError(f"{path}: the file {name} of variant {variant.name} is not under files")
        if verify:
            _verify(bundle)
        return bundle

    def tokenizer(self) -> Tokenizer:
        """A fresh tokenizer that neither cuts nor pads, and does not look for special tokens inside a text.

        :raises BundleError: ``tokenizer.json`` is missing or unreadable.
        """
        path = self.folder / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the Rust side raises bare Exception
            raise BundleError(f"{path} cannot be read: {error}") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        return tokenizer


def verify(folder: Path) -> Manifest:
    """Check every file of the bundle in ``folder``.

    :raises BundleError: a file is missing, extra or differs.
    """
    return Bundle.open(folder, verify=True).manifest


def next_revision(store: Path, language: str, task: str) -> int:
    """One more than the highest revision there is; 1 where there is none."""
    return max(revisions(store / language / task), default=0) + 1


def revisions(folder: Path) -> list[int]:
    """The numeric revisions under ``<store>/<language>/<task>``, ascending; other names are not bundles."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())


def write(staged: Path, manifest: Manifest, *, store: Path) -> Path:
    """Turn the files in ``staged`` into the bundle ``<store>/<language>/<task>/<revision>`` and return that folder.

    The folder appears complete, by one rename, or not at all; ``staged`` is left as it was.

    :raises BundleError: the revision exists, ``staged`` lacks a variant's file, or the disk is full.
    """
    target = store / manifest.language / manifest.task / str(manifest.revision)
    if target.exists():
        raise BundleError(f"{target} exists and bundles are immutable; use revision {manifest.revision + 1} or higher")
    missing = [name for variant in manifest.variants for name in variant.files if not (staged / name).is_file()]
    if missing:
        raise BundleError(f"{staged} lacks the model file {missing[0]}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=target.parent, ignore_cleanup_errors=True) as name:
            incoming = Path(name) / target.name
            shutil.copytree(staged, incoming, ignore=shutil.ignore_patterns(MANIFEST))
            manifest = dataclasses.replace(manifest, files=_hashes(incoming))
            (incoming / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
            for path in (*sorted(incoming.rglob("*")), incoming):
                _fsync(path)
            incoming.rename(target)
        _fsync(target.parent)
    except OSError as error:
        raise BundleError(f"{target} cannot be written: {error}") from error
    return target


def _check_keys(kind: type[Any], values: object, *, source: str) -> None:
    if not isinstance(values, Mapping):
        raise BundleError(f"{source} must be a JSON object")
    fields = dataclasses.fields(kind)
    unknown = sorted(set(values) - {item.name for item in fields})
    if unknown:
        raise BundleError(
            f"{source} has the unknown key {unknown[0]!r}; known are: {', '.join(f.name for f in fields)}"
        )
    required = [
        item.name
        for item in fields
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in values]
    if missing:
        raise BundleError(f"{source} lacks the key {missing[0]!r}")
    hints = get_type_hints(kind)
    for name, value in values.items():
        if name != "variants" and not _is(value, hints[name]):
            raise BundleError(f"{source}: {name} must be {_said(hints[name])}")


def _is(value: object, hint: Any) -> bool:
    """Whether a value read from JSON is of a field's type; a tuple comes as a list."""
    if hint is Any:
        return True
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin is tuple or origin is list:
        return isinstance(value, list) and all(_is(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_is(item, inner[1]) for item in value.values())
    return isinstance(value, float | int if origin is float else origin) and not isinstance(value, bool)


def _said(hint: Any) -> str:
    return (
        str(hint)
        .removeprefix("<class '")
        .removesuffix("'>")
        .replace("tuple", "list")
        .replace(", ...", "")
        .replace("typing.", "")
    )


def _verify(bundle: Bundle) -> None:
    found = {path.relative_to(bundle.folder).as_posix(): path for path in _files(bundle.folder)}
    expected = bundle.manifest.files
    for name in sorted(expected.keys() - found.keys()):
        raise BundleError(f"{bundle.folder / name} is missing")
    for name in sorted(found.keys() - expected.keys()):
        raise BundleError(f"{bundle.folder / name} is extra: the manifest does not list it")
    for name, path in found.items():
        if _sha256(path) != expected[name]:
            raise BundleError(f"{path} differs from its sha256 in the manifest")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)


def _hashes(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in _files(folder)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
