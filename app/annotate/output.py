"""Output: the bytes of finished chunks, and a journal of how far they go. What the journal does not know is cut off.

``<output>.partial`` holds the bytes, ``<output>.journal`` a header and one line a chunk. A chunk is committed when its
line is on the disk, which it is written to after the bytes are; a process that is killed at any point leaves a partial
file that is at least as long as the last committed line says. Just before the rename that makes the output, a last line
names the file that is renamed; where that file is gone, the output is complete.
"""

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from app.annotate.formats.base import Writer
from app.errors import ConfigError, DataError

_FINISHING = "finishing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How far a job has come: ``position`` in the input, ``n_bytes`` of output, and records read and left out."""

    position: int = 0
    n_bytes: int = 0
    n_records: int = 0
    n_faults: int = 0


class Output:
    """One job's output; the target file appears complete, by a rename, or not at all."""

    def __init__(self, target: Path, partial: BinaryIO, journal: BinaryIO, mark: Mark) -> None:
        self.target = target
        self.mark = mark
        self._partial = partial
        self._journal = journal

    @classmethod
    def open(cls, target: Path, *, header: Mapping[str, Any]) -> Self:
        """Begin, or go on after the last committed chunk.

        :raises ConfigError: the target is there already or its folder is not, a job with another header wrote the
            journal, or another process is writing.
        :raises DataError: the journal or the partial file is damaged.
        """
        partial_path, journal_path = _beside(target)
        if not target.parent.is_dir():
            raise ConfigError(f"the output's folder {target.parent} does not exist: make it or name another output")
        if target.exists():
            raise _there(target)
        with ExitStack() as stack:
            journal = stack.enter_context(_open(journal_path))
            _lock(journal, target)
            written, mark, length = _read(journal, journal_path)
            journal.truncate(length)
            journal.seek(length)
            if written is None:
                _append(journal, header)
            elif changed := [name for name in header if header[name] != written.get(name)]:
                was, now = written.get(changed[0]), header[changed[0]]
                raise ConfigError(
                    f"{journal_path} is of a job with another {changed[0]}, {was!r} and not {now!r}: "
                    f"remove it to begin anew, or name another output"
                )
            partial = stack.enter_context(_open(partial_path))
            if (n_bytes := partial.seek(0, os.SEEK_END)) < mark.n_bytes:
                raise DataError(
                    f"{partial_path} has {n_bytes} bytes and {journal_path} says {mark.n_bytes}: "
                    f"remove both to begin anew"
                )
            partial.truncate(mark.n_bytes)
            partial.seek(mark.n_bytes)
            _sync(target.parent)
            stack.pop_all()
        return cls(target, partial, journal, mark)

    def commit(self, data: bytes, *, position: int, n_records: int, n_faults: int) -> None:
        """Append a chunk's bytes, and only then the line that makes them count."""
        self._partial.write(data)
        self._partial.flush()
        os.fsync(self._partial.fileno())
        mark = Mark(
            position=position,
            n_bytes=self.mark.n_bytes + len(data),
            n_records=self.mark.n_records + n_records,
            n_faults=self.mark.n_faults + n_faults,
        )
        _append(self._journal, asdict(mark))
        self.mark = mark

    def finish(self, writer: Writer) -> None:
        """Turn the committed bytes into the target and remove what is beside it."""
        partial_path, journal_path = _beside(self.target)
        self._partial.close()
        complete = writer.complete(partial_path)
        _append(self._journal, {_FINISHING: complete.name})
        os.replace(complete, self.target)
        _sync(self.target.parent)
        partial_path.unlink(missing_ok=True)
        journal_path.unlink()

    def close(self) -> None:
        """Let another process go on."""
        self._partial.close()
        self._journal.close()


def begun_with(target: Path) -> dict[str, Any]:
    """The header of the job that a journal is of, empty where there is none.

    :raises DataError: the journal is damaged.
    """
    _, journal_path = _beside(target)
    if not journal_path.exists():
        return {}
    with journal_path.open("rb") as journal:
        return _read(journal, journal_path)[0] or {}


def clear_finished(target: Path) -> bool:
    """Whether a job was killed between its last steps: the target is complete and what was beside it is removed now.

    :raises ConfigError: what is at the target is not of the job that the journal is of, or another process is writing
        it; nothing is removed.
    """
    partial_path, journal_path = _beside(target)
    if not (target.exists() and journal_path.exists()):
        return False
    with journal_path.open("r+b") as journal:
        _lock(journal, target)
        renamed = _renamed(_lines(journal))
        if renamed is None or target.with_name(renamed).exists():
            raise _there(target)
        partial_path.unlink(missing_ok=True)
        journal_path.unlink(missing_ok=True)
    return True


def _beside(target: Path) -> tuple[Path, Path]:
    return target.with_name(f"{target.name}.partial"), target.with_name(f"{target.name}.journal")


def _there(target: Path) -> ConfigError:
    return ConfigError(f"{target} exists already: remove it or name another output")


def _lock(journal: BinaryIO, target: Path) -> None:
    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ConfigError(f"another process is writing {target}") from error


def _open(path: Path) -> BinaryIO:
    """Read and write, made where it is missing and never emptied."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")


def _read(journal: BinaryIO, path: Path) -> tuple[dict[str, Any] | None, Mark, int]:
    """The header, the last mark, and the length of both; a rename that did not come about does not count."""
    lines = _lines(journal)
    if _renamed(lines) is not None:
        lines.pop()
    if not lines:
        return None, Mark(), 0
    try:
        header = json.loads(lines[0])
        return header, Mark(**json.loads(lines[-1])) if len(lines) > 1 else Mark(), sum(map(len, lines))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged: remove it and the partial file to begin anew") from error


def _lines(journal: BinaryIO) -> list[bytes]:
    """All lines but a last one without its end, which was never committed."""
    content = journal.read()
    return content[: content.rfind(b"\n") + 1].splitlines(keepends=True)


def _renamed(lines: Sequence[bytes]) -> str | None:
    """The name of the file that is renamed to the output, where the last line says that one is."""
    try:
        entry = json.loads(lines[-1]) if len(lines) > 1 else None
    except ValueError:
        return None
    return entry.get(_FINISHING) if isinstance(entry, dict) else None


def _append(journal: BinaryIO, entry: Mapping[str, Any]) -> None:
    journal.write(json.dumps(entry).encode() + b"\n")
    journal.flush()
    os.fsync(journal.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
