import logging
from typing import Any

import pytest

from app.schemas.ner import NerRequest
from tests.app.conftest import Serve

SECRET = "Bola-asirina-Tinubu"
PATH = "/v1/ha/ner"
BODY = {"inputs": SECRET}
WRONG: list[tuple[str, Any]] = [
    ("/v1/ha/ner", {"inputs": [SECRET, 3], "parameters": {"stride": SECRET}}),
    ("/v1/ha/ner", {"inputs": {SECRET: SECRET}}),
    ("/v1/ha/ner", {"inputs": SECRET, SECRET: SECRET}),
    ("/v1/ha/ner", {"inputs": SECRET * 50}),
    ("/v1/ha/qa", {"inputs": {"question": SECRET * 20, "context": SECRET}}),
    ("/v1/ha/zero-shot", {"inputs": SECRET, "parameters": {"candidate_labels": [SECRET, SECRET]}}),
    ("/v1/ha/nre", {"inputs": SECRET}),
    ("/v2/models/ha-ner/infer", {"inputs": [{"name": SECRET, "shape": [1], "datatype": "BYTES", "data": [SECRET]}]}),
]


def _fail(self: NerRequest, value: str, prediction: Any) -> Any:
    raise ValueError(f"cannot render {value}")


def test_no_text_of_a_request_is_in_an_error_or_a_log(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    client = serve(max_characters=500)
    assert client.post(PATH, json=BODY).status_code == 200
    for path, body in WRONG:
        response = client.post(path, json=body)
        assert 400 <= response.status_code < 500
        assert SECRET not in response.text
    broken = client.post(
        "/v1/ha/ner", content=f'{{"inputs": "{SECRET}'.encode(), headers={"content-type": "application/json"}
    )
    assert broken.status_code == 422 and SECRET not in broken.text
    late = serve(timeout_s=1e-9).post(PATH, json=BODY)
    assert late.status_code == 504 and SECRET not in late.text
    monkeypatch.setattr(NerRequest, "render", _fail)
    failed = client.post(PATH, json=BODY)
    assert failed.status_code == 500 and SECRET not in failed.text
    assert "ValueError" in caplog.text
    assert SECRET not in caplog.text


def test_cross_origin_requests_are_told_nothing(serve: Serve) -> None:
    client = serve()
    headers = {"origin": "https://example.org", "access-control-request-method": "POST"}
    assert client.options("/v1/ha/ner", headers=headers).status_code == 405
    response = client.post("/v1/ha/ner", json={"inputs": "a"}, headers={"origin": "https://example.org"})
    assert not [name for name in response.headers if name.startswith("access-control-")]


def test_a_method_that_is_not_allowed_is_told_which_are(serve: Serve) -> None:
    response = serve().delete("/v1/models")
    assert (response.status_code, response.headers["allow"]) == (405, "GET")
