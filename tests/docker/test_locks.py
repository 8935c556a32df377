"""The locked versions are ones that pyproject.toml allows, and every one has its hashes. Needs no engine."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKS = {
    "serve": PROJECT["dependencies"],
    "gpu": [name for name in PROJECT["dependencies"] if not name.startswith("onnxruntime>")]
    + PROJECT["optional-dependencies"]["gpu"],
    "distill": PROJECT["dependencies"] + PROJECT["optional-dependencies"]["distill"],
    "build": (ROOT / "requirements" / "build.in").read_text(encoding="utf-8").splitlines(),
}


def locked(name: str) -> list[tuple[str, str]]:
    """Every name and version of a lock; a name may have several versions, for several versions of Python."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8")
    return [(found[1], found[2]) for found in re.finditer(r"^([a-z0-9-]+)==([^\s;]+)", text, re.MULTILINE)]


@pytest.mark.parametrize("name", LOCKS)
def test_every_dependency_is_locked_to_a_version_that_is_allowed(name: str) -> None:
    versions = locked(name)
    for line in LOCKS[name]:
        if not line or line.startswith("#"):
            continue
        wanted = Requirement(line)
        found = [version for package, version in versions if package == canonicalize_name(wanted.name)]
        assert found, f"requirements/{name}.lock lacks {wanted.name}: run `make lock`"
        assert all(wanted.specifier.contains(version) for version in found), f"{line}, locked: {found}: run `make lock`"


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_version_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8")
    entries = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(locked(name))
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text


def test_neither_torch_nor_a_second_runtime_is_served() -> None:
    names = {lock: {package for package, _ in locked(lock)} for lock in LOCKS}
    assert not {"torch", "transformers"} & (names["serve"] | names["gpu"])
    assert "onnxruntime" not in names["gpu"]
    assert "onnxruntime-gpu" not in names["serve"]
