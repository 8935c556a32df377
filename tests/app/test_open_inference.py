import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.app import tiny

SECRET = "Bola-asirina-Tinubu"


def infer(*elements: Any, **fields: Any) -> dict[str, Any]:
    data = [json.dumps(element) for element in elements]
    return {"inputs": [{"name": "inputs", "shape": [len(data)], "datatype": "BYTES", "data": data}]} | fields


def test_each_element_is_answered_as_its_own_route_would(client: TestClient) -> None:
    texts = [tiny.SENTENCE, "👍 Kano"]
    parameters = {"offset_unit": "utf16"}
    answer = client.post("/v2/models/ha-ner/infer", json=infer(*texts, parameters=parameters, id="7")).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("ha-ner", "1", "7")
    (tensor,) = answer["outputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("outputs", "BYTES", [2])
    expected = client.post("/v1/ha/ner", json={"inputs": texts, "parameters": parameters}).json()
    assert [json.loads(element) for element in tensor["data"]] == expected
    assert expected[1][0]["start"] == 3


@pytest.mark.parametrize(
    ("task", "value"),
    [
        ("pos", "Bola isa"),
        ("dp", "Bola isa"),
        ("nli", {"text": "yara", "text_pair": "wasa"}),
        ("nli", ["yara", "wasa"]),
        ("qa", {"question": "Ina yara?", "context": "yara suna Kano"}),
    ],
)
def test_every_task_has_a_model(client: TestClient, task: str, value: Any) -> None:
    answer = client.post(f"/v2/models/ha-{task}/versions/1/infer", json=infer(value)).json()
    expected = client.post(f"/v1/ha/{task}", json={"inputs": [value]}).json()
    assert json.loads(answer["outputs"][0]["data"][0]) == expected[0]


def test_health_and_metadata(client: TestClient) -> None:
    assert client.get("/v2").json()["name"] == "bistil"
    for path in (
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/ha-ner/ready",
        "/v2/models/ha-ner/versions/1/ready",
    ):
        assert client.get(path).status_code == 200
    for path in ("/v2/models/sw-ner", "/v2/models/sw-ner/versions/1"):
        told = client.get(path).json()
        assert (told["name"], told["versions"], told["inputs"][0]["datatype"]) == ("sw-ner", ["1"], "BYTES")


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("ha-nre", infer("a"), 404, "ha/ner"),
        ("ha", infer("a"), 404, "ha/ner"),
        ("ha-ner/versions/2", infer("a"), 404, "version 1"),
        ("ha-ner", {}, 422, "/inputs: Field required"),
        ("ha-ner", infer(SECRET, parameters={"strde": 1}), 422, "/parameters/strde: there is no such field"),
        ("ha-nli", infer("a", {"text": SECRET, "text_pear": "b"}), 422, "/inputs/1/text_pear"),
        ("ha-ner", infer(*(["a"] * 65)), 422, "65 inputs, more than 64"),
        ("ha-ner", infer("a") | {"outputs": [{"name": "logits"}]}, 422, "/outputs/0/name"),
    ],
)
def test_errors_have_the_protocols_shape(client: TestClient, path: str, body: Any, status: int, told: str) -> None:
    response = client.post(f"/v2/models/{path}/infer", json=body)
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    assert told in response.json()["error"]
    assert SECRET not in response.text


def test_a_tensor_that_is_not_what_it_says_is_refused(client: TestClient) -> None:
    body = infer("a", "b")
    body["inputs"][0]["shape"] = [3]
    assert "2 elements" in client.post("/v2/models/ha-ner/infer", json=body).json()["error"]
    body = infer("a", "b")
    body["inputs"][0]["data"][1] = SECRET
    assert client.post("/v2/models/ha-ner/infer", json=body).json() == {"error": "element 1 of the tensor is not JSON"}
    assert list(client.get("/v2/models").json()) == ["error"]


@pytest.mark.parametrize(
    "fields",
    [
        {"model_name": "ha-ner"},
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "outputs", "parameters": {"binary_data": False}}]},
        {"inputs": [infer("Kano")["inputs"][0] | {"parameters": {"binary_data": False}}]},
        {"inputs": [infer("Kano")["inputs"][0] | {"parameters": {}}]},
    ],
    ids=["KServe", "Triton", "Triton's outputs", "Triton's inputs", "the protocol"],
)
def test_what_clients_add_to_a_request_is_understood(client: TestClient, fields: dict[str, Any]) -> None:
    content = json.dumps(infer("Kano") | fields).encode()
    answer = client.post("/v2/models/ha-ner/infer", content=content)  # with no content-type, as Triton's
    assert answer.status_code == 200
    assert answer.json()["outputs"] == client.post("/v2/models/ha-ner/infer", json=infer("Kano")).json()["outputs"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_version_may_be_asked_for_in_the_query(client: TestClient, method: str) -> None:
    path = "/v2/models/ha-ner" + ("/infer" if method == "POST" else "")
    body = infer("Kano") if method == "POST" else None
    codes = [client.request(method, path, params={"version": number}, json=body).status_code for number in (1, 99)]
    assert codes == [200, 404]
