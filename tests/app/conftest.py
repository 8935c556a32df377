from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from app.store import ModelStore, Served
from tests.app import tiny

Serve = Callable[..., TestClient]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a Hausa bundle for each task, and a Swahili one for NER."""
    root = tmp_path_factory.mktemp("tiny")
    tiny.write_store(root)
    return tiny.write_store(root, language="sw", tasks=("ner",))


def open_all(store: Path, settings: Settings) -> list[Served]:
    models = ModelStore(str(store), cache=store)
    return [models.open(location, settings) for location in models.find()]


@pytest.fixture
def serve(store: Path) -> Iterator[Serve]:
    """Start an app over the tiny store, every model up; keywords are settings."""
    with ExitStack() as stack:

        def start(*, served: list[Served] | None = None, **values: Any) -> TestClient:
            settings = Settings.read(store=str(store), threads=1, **values)
            app = create_app(settings, served=open_all(store, settings) if served is None else served)
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield start


@pytest.fixture
def client(serve: Serve) -> TestClient:
    return serve()
