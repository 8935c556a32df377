"""Blocks say what they are, tables name what there is, links lead somewhere."""

import re

import pytest

from app.settings import Settings
from tests.documents.blocks import NEEDS, PAGES, ROOT, Block, blocks

EVERY = [block for page in PAGES for block in blocks(page)]
OPTIONS = {"needs", "file", "status"}
_LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(?:#([^)\s]+))?\)")


def test_there_is_something_to_test() -> None:
    assert sum(block.runs for block in EVERY) > 10 and PAGES[0] == "README.md"


@pytest.mark.parametrize("block", EVERY, ids=str)
def test_a_block_says_what_it_is(block: Block) -> None:
    assert set(block.options) <= OPTIONS
    assert block.options.get("needs", "docker") in NEEDS
    assert block.is_command or not block.looks_like_a_command, "begin it with ```bash"


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
