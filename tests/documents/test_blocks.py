"""No command of a page goes untried: each is run by the page's tests or says what the tests lack."""

import importlib
import inspect
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from app.settings import Settings
from tests.documents.blocks import NEEDS, PAGES, ROOT, Block, blocks

EVERY = [block for page in PAGES for block in blocks(page)]
OPTIONS = {"needs", "file", "status"}
_PROGRAM = re.compile(r"(?:python[\d.]* -m ([\w.]+)(?: ([a-z]+)\b)?|(bistil-serve)\b(?!:))")
_FLAG = re.compile(r"(?<!\S)(--[a-z][\w-]*)")
_LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(?:#([^)\s]+))?\)")


def test_there_is_something_to_test() -> None:
    assert sum(block.runs for block in EVERY) > 10 and PAGES[0] == "README.md"


@pytest.mark.parametrize("block", EVERY, ids=str)
def test_a_block_says_what_it_is(block: Block) -> None:
    assert set(block.options) <= OPTIONS
    assert block.options.get("needs", "docker") in NEEDS
    assert block.is_command or not block.looks_like_a_command, "begin it with ```bash"


@pytest.mark.parametrize("page", sorted({block.page for block in EVERY if block.runs}))
def test_a_page_with_commands_has_a_module_that_runs_them(page: str) -> None:
    """Its `said` runs them all, and takes any exit status but 0, or one that the block states, as a failure."""
    module = importlib.import_module(f"tests.documents.test_{Path(page).stem.lower()}")
    assert page == module.PAGE
    tests = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert any({"said", "requests"} & set(inspect.signature(test).parameters) for test in tests)


@pytest.mark.parametrize("block", [block for block in EVERY if block.is_command], ids=str)
def test_the_flags_of_a_command_are_flags_of_its_program(block: Block) -> None:
    """Also where it cannot be run."""
    for line in block.text.replace("\\\n", " ").splitlines():
        for command in re.split(r"&&|\|\||;|\|", line.partition(" #")[0]):
            if (program := _PROGRAM.search(command)) and "file" not in block.options:
                name = program[3] or (f"{program[1]} {program[2]}" if program[1] == "distill" else program[1])
                if used := set(_FLAG.findall(command[program.end() :])):
                    assert used <= flags(name), f"{block}: {command}"


def test_the_tables_name_flags_that_there_are() -> None:
    serve = set(re.findall(r"`(--[\w-]+)", section("README.md", "| flag | variable | |")))
    assert serve and serve <= flags("bistil-serve")
    build = set(re.findall(r"`(--[\w-]+)", section("docs/build.md", "| `--tgt`")))
    assert build == flags("distill build")


def test_the_variables_of_the_readme_are_those_of_its_flags() -> None:
    for row in section("README.md", "| flag | variable | |").splitlines()[2:]:
        _, flag, variable, _ = row.split("|", 3)
        names = [name.removeprefix("--") for name in re.findall(r"--[\w-]+", flag)]
        assert re.findall(r"BISTIL_\w+", variable) == [f"BISTIL_{name.upper().replace('-', '_')}" for name in names]
        for name, value in re.findall(r"`--([\w-]+) ([^`]+)`", flag):
            field = Settings.model_fields[name.replace("-", "_")]
            if field.default_factory is None and field.default not in ((), None):
                assert value == str(field.default)


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_links_lead_somewhere(page: str) -> None:
    for target, anchor in _LINK.findall((ROOT / page).read_text(encoding="utf-8")):
        path = ((ROOT / page).parent / target).resolve()
        assert path.exists(), f"{page} links to {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, target


def section(page: str, start: str) -> str:
    """The paragraph or table that begins, or has a line that begins, so."""
    return next(part for part in (ROOT / page).read_text("utf-8").split("\n\n") if f"\n{start}" in f"\n{part}")


@cache
def flags(program: str) -> set[str]:
    """The flags that `--help` of a program lists, which is a module, with a subcommand perhaps."""
    module, *subcommand = shlex.split(program.replace("bistil-serve", "app.main"))
    command = [sys.executable, "-m", module, *subcommand, "--help"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"(?<![\w-])(--[a-z][\w-]*)", told)) - {"--help"}
