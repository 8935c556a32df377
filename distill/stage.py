"""A stage is a function from a configuration and a directory to a directory, skipped when its inputs stand."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from app.errors import ConfigError
from distill import processes

_DONE = "stage.json"


def fingerprint(*parts: Any) -> str:
    """A hash of JSON-ready values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def run(
    folder: Path,
    inputs: Mapping[str, Any],
    work: Callable[[Path], Mapping[str, Any]],
    *,
    pool: Path | None = None,
    together: bool = False,
) -> dict[str, Any]:
    """Run `work(folder)` unless `folder` already holds its result for the same `inputs`; return what it reported.

    A folder half done for the same inputs is handed over as it is, to be resumed; one of other inputs is emptied.
    With a `pool`, `folder` becomes a link to the folder there that is named for the inputs, so that all with the same
    inputs share one result; a command that needs what another one is at work on waits for it. Of several processes
    the main one works and the others wait, unless they work `together`.
    """
    mark = fingerprint(inputs)
    with processes.alone(pool and _pooled(folder, mark, pool).with_suffix(".lock")):
        if not processes.decide(lambda: _is_done(folder, mark, pool)):
            found: Mapping[str, Any] = {}
            if together or processes.is_main():
                found = work(folder)
            if processes.is_main():
                write(folder / _DONE, json.dumps({"fingerprint": mark, **found}, indent=1))
            processes.wait()
    finished: dict[str, Any] = json.loads((folder / _DONE).read_text())
    return finished


def _is_done(folder: Path, mark: str, pool: Path | None) -> bool:
    """Whether the result is there; if not, the folder is made ready for the work."""
    if pool is not None:
        _link(folder, _pooled(folder, mark, pool))
    if found(folder, mark) is not None:
        return True
    begun = folder / "inputs.json"
    if not begun.is_file() or json.loads(begun.read_text()) != mark:
        shutil.rmtree(folder.resolve(), ignore_errors=True)
    folder.resolve().mkdir(parents=True, exist_ok=True)
    write(begun, json.dumps(mark))
    return False


def _link(folder: Path, shared: Path) -> None:
    if folder.exists() and not folder.is_symlink():
        raise ConfigError(f"{folder} holds a stage of its own: give another out folder to a build with a pool")
    shared.mkdir(parents=True, exist_ok=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.unlink(missing_ok=True)
    folder.symlink_to(os.path.relpath(shared, folder.parent), target_is_directory=True)


def found(folder: Path, mark: str, *, pool: Path | None = None) -> dict[str, Any] | None:
    """What the stage of that fingerprint reported, in `folder` or in the pool; None where it has not ended."""
    done = (folder if pool is None else _pooled(folder, mark, pool)) / _DONE
    told: dict[str, Any] = json.loads(done.read_text()) if done.is_file() else {}
    return told if told.get("fingerprint") == mark else None


def _pooled(folder: Path, mark: str, pool: Path) -> Path:
    return pool / f"{folder.name}-{mark[:16]}"


def is_finished(folder: Path) -> bool:
    """Whether a stage has ended in `folder`, for whatever inputs."""
    return (folder / _DONE).is_file()


def report(folder: Path, *, command: str) -> dict[str, Any]:
    """What the finished stage in `folder` reported. Raises ConfigError that names the command to run first."""
    if not is_finished(folder):
        raise ConfigError(f"{folder} is not finished: run `python -m distill {command}` with the same options first")
    result: dict[str, Any] = json.loads((folder / _DONE).read_text())
    return result


def write(path: Path, text: str) -> None:
    """The file whole, or as it was, whoever else writes it or another one beside it."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


def discard(folder: Path, *names: str) -> None:
    """Remove what only a resumed run needs, once it is done."""
    for name in names:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
