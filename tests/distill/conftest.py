"""Weights and data that tests draw are the same in every run: a session begins with one seed, and each test again."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _seeded_session() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
