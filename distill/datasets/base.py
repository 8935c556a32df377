"""What every format shares: a corpus with its provenance, and reading plain or xz-compressed lines."""

import hashlib
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from app.errors import DataError
from distill.tasks.base import Example

MANIFEST = "MANIFEST.tsv"


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Examples of one task, language and split.

    `files` says what they were read from: path (below the data folder), sha256, licence, redistribute, rows.
    """

    examples: list[Example]
    labels: tuple[str, ...]
    files: list[dict[str, Any]]


class Format(Protocol):
    """A module of this folder. `split` matters only to formats whose files hold several splits."""

    def read(self, path: Path, *, task: str, split: str) -> list[Example]:
        """The file's examples of that split. Raises DataError that names the file."""
        ...


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Every line with its number from 1, without its line end. Raises DataError that names the file and the line."""
    number = 0
    try:
        with lzma.open(path, "rb") if path.suffix == ".xz" else path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                yield number, text.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{number} is not UTF-8: convert the file, for example with iconv") from error
    except (lzma.LZMAError, EOFError) as error:
        raise DataError(f"{path} is no readable xz file: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def sentences(path: Path) -> Iterator[list[tuple[int, str]]]:
    """Blocks of lines between blank lines, each line with its number."""
    block: list[tuple[int, str]] = []
    for number, line in lines(path):
        if line.strip():
            block.append((number, line))
        elif block:
            yield block
            block = []
    if block:
        yield block


def joined(words: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The words with one space between them, and each word's code points in that text."""
    spans: list[tuple[int, int]] = []
    start = 0
    for word in words:
        spans.append((start, start + len(word)))
        start += len(word) + 1
    return " ".join(words), tuple(spans)


def held_out(key: str, *, share: float = 0.1) -> bool:
    """Whether a key falls into the held-out part: decided by its content alone, the same in every run."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def provenance(path: Path, folder: Path, *, rows: int | None = None) -> dict[str, Any]:
    """The `files` entry of one file below the data folder, with its licence where that has a manifest."""
    name = path.relative_to(folder).as_posix()
    row = _manifest(folder).get(name, {})
    return {
        "path": name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "licence": row.get("licence", "unknown"),
        "redistribute": row.get("redistribute", "unknown"),
        "rows": int(row.get("rows", 0)) if rows is None else rows,
    }


def _manifest(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    table = [line.split("\t") for _, line in lines(path)]
    return {row[0]: dict(zip(table[0], row, strict=False)) for row in table[1:]}
