"""docs/api.md against the server: its blocks run, and nothing of the published document is left out of it."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from app.errors import BistilError, ConfigError, DataError, error_types
from app.main import create_app
from app.settings import Settings
from tests.documents.blocks import ROOT
from tests.documents.terminal import Said

PAGE = "docs/api.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
OFFLINE = (ConfigError, DataError)
UNSEEN = {"client-gone", "missing-extra", "invalid-bundle"}
"""A caller that is gone reads nothing; the last two end the server before it answers."""


def prepare(folder: Path) -> None:
    shutil.copytree(ROOT / "model_store" / "ha", folder / "model_store" / "ha")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings(store="nowhere"), served=[]).openapi()


def test_the_client_and_the_open_protocol_find_the_same_place(said: Sequence[Said]) -> None:
    client, infer = (next(one for one in said if mark in one.block.text) for mark in ("InferenceClient", "/infer"))
    (output,) = json.loads(infer.output)["outputs"]
    found = [f"{entity['entity_group']} {entity['word']}" for entity in json.loads(output["data"][0])]
    assert client.output.splitlines() == found and "LOC Kano" in found


def test_the_key_opens_the_models_it_is_for(said: Sequence[Said]) -> None:
    (models,) = (one for one in said if "Bearer" in one.block.text)
    assert {model["language"] for model in json.loads(models.output)["models"]} == {"ha"}


def test_every_route_is_named(document: dict[str, Any]) -> None:
    tasks = {row[0] for row in rows("route")}
    for path in document["paths"]:
        written = re.sub(r"{(\w+)}", r"<\1>", path)
        task = re.fullmatch(r"/v1/<language>/([\w-]+)", written)
        short = re.sub(r"^/v2/models/<model>/versions/<version>(?=/)", "...", written)
        assert f"`{written}`" in TEXT or f"`{short}`" in TEXT or (task and f"`{task[1]}`" in tasks), path


def test_each_task_s_parameters_are_those_of_the_document(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    everywhere = {"offset_unit"}
    told = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[3])) for row in rows("route")}
    for task, named in told.items():
        body = document["paths"][f"/v1/{{language}}/{task}"]["post"]["requestBody"]["content"]["application/json"]
        request = schemas[body["schema"]["$ref"].rpartition("/")[2]]
        parameters = schemas[request["properties"]["parameters"]["$ref"].rpartition("/")[2]]
        assert named == set(parameters["properties"]) - everywhere, task
        assert everywhere & set(parameters["properties"]) <= set(re.findall(r'"(\w+)": "utf16"', TEXT)), task


def test_every_header_and_query_parameter_is_named(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            names = {entry["name"] for entry in operation.get("parameters", []) if entry["in"] != "path"}
            names |= set(operation["responses"].get("200", {}).get("headers", {}))
            assert {name for name in names if not re.search(rf"[`?]{name}[`=:]", TEXT)} == set(), path


def test_every_error_that_a_caller_can_get_is_in_the_table_under_its_status(document: dict[str, Any]) -> None:
    told = {
        (int(status), name)
        for row in rows("status")
        for status in re.findall(r"\d+", row[0])
        for name in re.findall(r"`([a-z-]+)`", row[1])
    }
    kinds = [kind for kind in error_types() if kind.__module__.startswith("app.")]
    raised = [kind for kind in kinds if not issubclass(kind, OFFLINE) and kind.type not in UNSEEN]
    assert BistilError in raised
    assert {(kind.status, kind.type) for kind in raised} <= told
    published = {
        int(status) for path in document["paths"].values() for on in path.values() for status in on["responses"]
    }
    assert published - {200} <= {status for status, _ in told}


def rows(head: str) -> list[list[str]]:
    """The rows of the table whose first column is called so."""
    table = next(part for part in TEXT.split("\n\n") if part.startswith(f"| {head} |"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
