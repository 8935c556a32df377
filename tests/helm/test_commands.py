"""The helm and docker commands of the pages: what they set, the chart takes; what they build, the Dockerfile has."""

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import yaml

from tests.documents.blocks import PAGES, ROOT, blocks
from tests.helm.chart import render

COMMANDS = [
    (str(block), command.strip())
    for page in PAGES
    for block in blocks(page)
    if block.options.get("needs") in ("cluster", "docker")
    for line in block.text.replace("\\\n", " ").splitlines()
    for command in line.partition(" #")[0].split("&&")
]
HELM = [entry for entry in COMMANDS if re.match(r"helm (install|upgrade)", entry[1])]
BUILDS = [entry for entry in COMMANDS if entry[1].startswith("docker build")]


def test_the_pages_have_such_commands() -> None:
    assert len(HELM) >= 4 and len(BUILDS) >= 3


@pytest.mark.parametrize(("place", "command"), HELM)
def test_the_chart_takes_what_a_command_sets(place: str, command: str) -> None:
    """Its schema refuses a value that is not there."""
    values: dict[str, Any] = {}
    words = shlex.split(command)
    for option, given in pairwise(words):
        if option == "--values":
            merge(values, yaml.safe_load((ROOT / given).read_text("utf-8")))
        if option == "--set":
            for path, value in assignments(given):
                merge(values, nested(path, value))
    assert values and render(values)


@pytest.mark.parametrize(("place", "command"), BUILDS)
def test_the_dockerfile_has_the_target_that_a_command_builds(place: str, command: str) -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"--target (\S+)", command)) <= set(stages)


def assignments(text: str) -> Iterator[tuple[list[str], Any]]:
    """Helm's `a.b=c,d={e,f}`: keys as paths, values as YAML reads them."""
    for part in re.findall(r"[^,{]+(?:\{[^}]*\})?", text):
        path, _, value = part.partition("=")
        read = value.strip("{}").split(",") if value.startswith("{") else yaml.safe_load(value)
        yield path.split("."), read


def nested(path: list[str], value: Any) -> dict[str, Any]:
    return {path[0]: nested(path[1:], value) if path[1:] else value}


def merge(into: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value
