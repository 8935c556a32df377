"""The published document against its server: schemathesis sends what the document allows and what it does not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig

from app.settings import Settings
from tests.app.conftest import open_all
from tests.app.live import listening

SERVED = {"language": ["ha"], "task": ["ner"], "model": ["ha-ner", "ha-qa"], "version": ["1"]}


@pytest.fixture(scope="module")
def document(store: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """A server's URL and its document, in whose paths the names of what it serves are filled in."""
    chosen = Settings.read(store=str(store), threads=1)
    with listening(chosen, open_all(store, chosen)) as server:
        published = httpx2.get(f"{server.url}/openapi.json").json()
        for operations in published["paths"].values():
            for operation in operations.values():
                for parameter in operation.get("parameters", ()):
                    if parameter["in"] == "path":
                        parameter["schema"]["enum"] = SERVED[parameter["name"]]
        yield server.url, published


@pytest.fixture(scope="module")
def api(document: tuple[str, dict[str, Any]]) -> Any:
    url, published = document
    config = SchemathesisConfig()
    config.projects.default.base_url = url
    return schemathesis.openapi.from_dict(published, config=config)


schema = schemathesis.pytest.from_fixture("api")


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=8, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_the_document_allows(case: Any) -> None:
    case.call_and_validate(timeout=60)
