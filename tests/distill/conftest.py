"""Weights and data that tests draw are the same in every run: a session begins with one seed, and each test again."""

from pathlib import Path

import pytest
import torch

from tests.distill import corpora
from tests.distill.tiny import tiny_teacher


@pytest.fixture(scope="session", autouse=True)
def _seeded_session() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and `teacher`, the same for a module's tests."""
    folder = tmp_path_factory.mktemp("place")
    corpora.write(folder / "data")
    torch.manual_seed(0)
    tiny_teacher("xlm-roberta", folder / "teacher")
    return folder
