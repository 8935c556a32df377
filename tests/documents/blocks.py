"""The fenced blocks of the pages, and what their info strings say: a language, `file=...`, `needs=...`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
COMMANDS = ("bash", "python", "diff")
NEEDS = {
    "docker": "a Docker engine: tests/docker has one and builds, runs and stops the image",
    "cluster": "a Kubernetes cluster: tests/helm renders the chart and runs its scripts without one",
    "network": "a package index or a site",
    "hours": "more time, or more data, than a test has",
}
"""What tests lack, as `needs=`, and what is tested instead."""

_FENCE = re.compile(r"^ *```([^\n`]*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"(\$ )?(\.venv/|python|pip |docker |helm |kubectl |curl |git |make |bistil-serve)")


@dataclass(frozen=True, kw_only=True)
class Block:
    """What stands between two fences."""

    page: str
    line: int
    language: str
    options: Mapping[str, str]
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_command(self) -> bool:
        """Whether a reader would run it or save it."""
        return self.language in COMMANDS or "file" in self.options

    @property
    def runs(self) -> bool:
        """Whether tests have to run it."""
        return self.is_command and "needs" not in self.options

    @property
    def looks_like_a_command(self) -> bool:
        """Whether its first line is one, whatever its language says."""
        return _COMMAND.match(self.text.lstrip()) is not None


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order. `options` are the words `key=value` after the language."""
    content = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for fence in _FENCE.finditer(content):
        words = fence[1].split()
        language = words[0] if words and "=" not in words[0] else ""
        options = dict(word.partition("=")[::2] for word in words if "=" in word)
        line = content.count("\n", 0, fence.start()) + 1
        found.append(Block(page=page, line=line, language=language, options=options, text=fence[2]))
    return found
