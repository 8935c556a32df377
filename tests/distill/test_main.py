"""Command-line manners: exit codes, help, colours."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from distill.__main__ import main
from tests.app import tiny

COLOUR = re.compile(r"\x1b\[[\d;]*3\dm")


def test_exit_codes_tell_done_failed_and_misused_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tiny.write_bundle(tmp_path / "store", "ner", staged=tmp_path / "staged").folder
    assert main(["verify", str(tmp_path / "store")]) == 0
    (bundle / "tokenizer.json").write_text("{}")
    assert main(["verify", str(tmp_path / "store")]) == 1
    assert main(["verify", str(tmp_path / "staged")]) == 2
    assert main(["build", "--tgt", "ha", "--preset", "slow"]) == 2
    with pytest.raises(SystemExit, match="2"):
        main(["build", "--nonsense"])
    assert "unknown preset 'slow'; choose from" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["build", "trim", "compare", "verify", "beside", "upload", "pretrain", "unpack", "pack", "throughput"]
)
def test_help_has_examples_that_the_parser_takes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    told = capsys.readouterr().out
    examples = re.findall(r"^  python -m distill (.*)$", told, re.MULTILINE)
    assert examples and all(example.split()[0] == command for example in examples) and "Exit codes: 0" in told
    for example in examples:
        with pytest.raises(SystemExit, match="0"):  # --help ends what is parsed up to it
            main([*example.split(), "--help"])


def test_no_color_is_honoured(tmp_path: Path) -> None:
    def told(**environment: str) -> str:
        command = [sys.executable, "-m", "distill", "verify", str(tmp_path)]
        kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
        done = subprocess.run(
            command, capture_output=True, text=True, env={**kept, "TERM": "xterm-256color", **environment}
        )
        assert done.returncode == 2
        return done.stderr

    assert COLOUR.search(told(FORCE_COLOR="1"))
    assert not COLOUR.search(told(FORCE_COLOR="1", NO_COLOR="1"))
