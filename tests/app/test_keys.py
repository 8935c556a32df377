import hashlib
import logging
from pathlib import Path

import pytest

from app.errors import ConfigError
from app.keys import Key, read_keys
from tests.app.conftest import Serve
from tests.app.test_routes import problem

ALL, SWAHILI = "bude-kofa", "fungua-mlango"


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def keys() -> str:
    return f"{digest(ALL)} *; {digest(SWAHILI)} sw"


def test_keys_come_from_a_setting_and_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\n{digest('a')} ha,sw  # the radio\n\n{digest('b')}\n", encoding="utf-8")
    assert read_keys(inline="", file="") == ()
    assert read_keys(inline=f"{digest('c')} *", file=str(file)) == (
        Key(digest("c")),
        Key(digest("a"), frozenset({"ha", "sw"})),
        Key(digest("b")),
    )


@pytest.mark.parametrize("text", ["sesame ha", f"{'0' * 64} ha sw", "0" * 63])
def test_a_line_that_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError, match="--keys, line 1: expected a sha256") as caught:
        read_keys(inline=text, file="")
    assert text not in str(caught.value)


def test_a_file_without_keys_does_not_open_the_server(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# none yet\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="names no key"):
        read_keys(inline="", file=str(tmp_path / "keys"))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_keys(inline="", file=str(tmp_path / "nowhere"))


def test_without_keys_the_server_is_open_and_names_no_scheme(serve: Serve) -> None:
    client = serve()
    assert client.post("/v1/ha/ner", json={"inputs": "a"}).status_code == 200
    assert "securitySchemes" not in client.get("/openapi.json").json()["components"]


def test_a_key_is_needed_and_is_for_its_languages(serve: Serve, keys: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = serve(keys=keys)
    for headers in ({}, bearer("sesame"), bearer(""), {"authorization": f"Basic {ALL}"}, bearer(digest(ALL))):
        response = client.post("/v1/ha/ner", json={"inputs": "a"}, headers=headers)
        problem(response, 401, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"
    assert client.post("/v1/ha/ner", json={"inputs": "a"}, headers=bearer(ALL)).status_code == 200
    assert client.post("/v1/sw/ner", json={"inputs": "a"}, headers=bearer(SWAHILI)).status_code == 200
    problem(client.post("/v1/ha/ner", json={"inputs": "a"}, headers=bearer(SWAHILI)), 403, "forbidden")
    problem(client.get("/v1/ha/card", headers=bearer(SWAHILI)), 403, "forbidden")
    assert client.get("/v2/models/ha-ner", headers=bearer(SWAHILI)).status_code == 403
    assert client.get("/v2/models/sw-ner", headers=bearer(SWAHILI)).status_code == 200
    assert ALL not in caplog.text and SWAHILI not in caplog.text and "sesame" not in caplog.text
    document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    assert document["paths"]["/v1/{language}/ner"]["post"]["security"] == [{"key": []}]
    for path in ("/livez", "/v1/{language}/ready", "/v2/health/ready", "/v2/models/{model}/ready"):
        assert "security" not in document["paths"][path]["get"]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/ha/ner/card", "/v1/nothing/here", "/v2", "/v2/models/ha-ner"])
def test_what_is_no_probe_is_behind_the_key(serve: Serve, keys: str, path: str) -> None:
    assert serve(keys=keys).get(path).status_code == 401


@pytest.mark.parametrize(
    "path",
    ["/livez", "/readyz", "/metrics", "/v1/ha/ready", "/v2/health/live", "/v2/health/ready", "/v2/models/ha-ner/ready"],
)
def test_probes_need_no_key(serve: Serve, keys: str, path: str) -> None:
    assert serve(keys=keys).get(path).status_code == 200


def test_a_body_is_not_read_before_the_key_is_known(serve: Serve, keys: str) -> None:
    client = serve(keys=keys, max_body_bytes=10)
    assert client.post("/v1/ha/ner", content=b"x" * 100).status_code == 401
    assert client.post("/v1/ha/ner", content=b"x" * 100, headers=bearer(ALL)).status_code == 413
