from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from tests.app import tiny
from tests.app.conftest import Serve
from tests.app.test_text import TEXTS

SECRET = "Bola-asirina-Tinubu"


def problem(response: Response, status: int, slug: str) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["status"], body["type"]) == (status, status, f"urn:bistil:problem:{slug}")
    assert body["title"]
    assert body["detail"]
    assert body["instance"] == response.headers["x-request-id"]
    assert SECRET not in response.text
    return body


def test_ner(client: TestClient) -> None:
    answer = client.post("/v1/ha/ner", json={"inputs": tiny.SENTENCE}).json()
    found = [(entity["entity_group"], entity["word"], entity["start"], entity["end"]) for entity in answer]
    assert found == [("PER", "Bola Tinubu", 0, 11), ("LOC", "Kano", 26, 30)]
    expected = float(2.718281828459045**8 / (2.718281828459045**8 + 4))
    assert answer[0]["score"] == pytest.approx(expected, rel=1e-6)


def test_pos(client: TestClient) -> None:
    answer = client.post("/v1/ha/pos", json={"inputs": "Bola ya isa."}).json()
    assert [(word["id"], word["text"], word["upos"]) for word in answer] == [
        (1, "Bola", "PROPN"),
        (2, "ya", "NOUN"),
        (3, "isa", "VERB"),
        (4, ".", "PUNCT"),
    ]


def test_dp(client: TestClient) -> None:
    text = "Bola Tinubu ya isa Kano. Bola isa"
    answer = client.post("/v1/ha/dp", json={"inputs": text}).json()
    assert [(word["id"], word["text"], word["head"], word["deprel"], word["sentence"]) for word in answer] == [
        (1, "Bola", 4, "nsubj", 1),
        (2, "Tinubu", 1, "dep", 1),
        (3, "ya", 4, "dep", 1),
        (4, "isa", 0, "root", 1),
        (5, "Kano", 4, "obj", 1),
        (6, ".", 4, "punct", 1),
        (7, "Bola", 8, "nsubj", 2),
        (8, "isa", 0, "root", 2),
    ]
    assert all(text[word["start"] : word["end"]] == word["text"] for word in answer)
    # under the root or one of five other words, e^1 for isa and e^0 for the rest, or e^9 where a rule says so
    assert answer[2]["score"] == pytest.approx(2.718281828459045 / (2.718281828459045 + 5) * expected_dep(), rel=1e-5)
    assert client.post("/v1/ha/dp", json={"inputs": [text, ""]}).json() == [answer, []]


def expected_dep() -> float:
    """The probability of the faint first label among all but root."""
    return 2.718281828459045 / (2.718281828459045 + 3)


@pytest.mark.parametrize(
    ("path", "headers"), [("/v1/ha/dp?format=conllu", {}), ("/v1/ha/dp", {"accept": "text/x-conllu, */*;q=0.1"})]
)
def test_dp_as_conllu(client: TestClient, path: str, headers: dict[str, str]) -> None:
    response = client.post(path, json={"inputs": ["Bola isa. Kano!", "", "isa\nKano"]}, headers=headers)
    assert response.headers["content-type"] == "text/x-conllu; charset=utf-8"
    rows = [line.split("\t") for line in response.text.splitlines()]
    assert [row[0] for row in rows] == [
        *("# newdoc id = 1", "# sent_id = 1-1", "# text = Bola isa.", "1", "2", "3", ""),
        *("# sent_id = 1-2", "# text = Kano!", "1", "2", ""),
        *("# newdoc id = 3", "# sent_id = 3-1", "# text = isa Kano", "1", "2", ""),
    ]
    assert rows[3] == ["1", "Bola", "_", "_", "_", "_", "2", "nsubj", "_", "TokenRange=0:4"]
    assert rows[4] == ["2", "isa", "_", "_", "_", "_", "0", "root", "_", "SpaceAfter=No|TokenRange=5:8"]
    assert {len(row) for row in rows} == {1, 10}


def test_pos_as_conllu(client: TestClient) -> None:
    body = {"inputs": "Bola isa. 👍 Kano", "parameters": {"offset_unit": "utf16"}}
    lines = client.post("/v1/ha/pos?format=conllu", json=body).text.splitlines()
    assert lines[3] == "1\tBola\t_\tPROPN\t_\t_\t_\t_\t_\tTokenRange=0:4"
    assert lines[-2] == "2\tKano\t_\tPROPN\t_\t_\t_\t_\t_\tTokenRange=13:17"


def test_a_format_there_is_none_of_is_refused(client: TestClient) -> None:
    problem(client.post("/v1/ha/dp?format=xml", json={"inputs": "a"}), 422, "invalid-input")
    response = client.post("/v1/ha/dp?format=json", json={"inputs": "a"}, headers={"accept": "text/x-conllu"})
    assert response.json()[0]["deprel"] == "root"


def test_nli(client: TestClient) -> None:
    inputs = {"text": "yara suna wasa", "text_pair": "wasa"}
    answer = client.post("/v1/ha/nli", json={"inputs": inputs}).json()
    assert answer[0][0]["label"] == "contradiction"
    assert sum(label["score"] for label in answer[0]) == pytest.approx(1)
    assert client.post("/v1/ha/nli", json={"inputs": [["yara suna wasa", "wasa"]]}).json() == answer


def test_qa(client: TestClient) -> None:
    context = "yara suna wasa da Bola Tinubu a gida"
    body = {"inputs": {"question": "Ina yara?", "context": context}}
    answer = client.post("/v1/ha/qa", json=body).json()
    assert answer["answer"] == "Bola Tinubu" == context[answer["start"] : answer["end"]]


@pytest.mark.parametrize("task", ["ner", "pos"])
def test_offsets_point_at_the_words_of_any_script(client: TestClient, task: str) -> None:
    key = "word" if task == "ner" else "text"
    texts = [text for text in TEXTS.values()]
    parameters = {"aggregation_strategy": "none", "ignore_labels": []} if task == "ner" else {}
    answers = client.post(f"/v1/ha/{task}", json={"inputs": texts, "parameters": parameters}).json()
    for text, answer in zip(texts, answers, strict=True):
        assert answer
        assert all(text[part["start"] : part["end"]] == part[key] == part[key].strip() != "" for part in answer)


@pytest.mark.parametrize(
    ("task", "parameters"),
    [
        ("ner", {}),
        ("pos", {}),
        ("dp", {}),
        ("nli", {}),
        ("qa", {}),
        ("zero-shot", {"candidate_labels": ["wasa", "isa"]}),
    ],
)
def test_a_list_is_answered_as_each_of_it_alone(client: TestClient, task: str, parameters: dict[str, Any]) -> None:
    inputs: list[Any] = [tiny.SENTENCE, *TEXTS.values(), "isa " * 90]
    if task == "qa":
        inputs = [{"question": "Ina Bola?", "context": text} for text in inputs]
    answers = client.post(f"/v1/ha/{task}", json={"inputs": inputs, "parameters": parameters}).json()
    alone = [client.post(f"/v1/ha/{task}", json={"inputs": value, "parameters": parameters}).json() for value in inputs]
    assert answers == ([answer for (answer,) in alone] if task == "nli" else alone)


def test_a_long_text_is_windowed_and_none_of_it_is_lost(client: TestClient) -> None:
    response = client.post("/v1/ha/ner", json={"inputs": " ".join([tiny.SENTENCE] * 30)})
    assert len(response.json()) == 60
    assert int(response.headers["x-bistil-windows"]) > 1


def test_an_empty_text_has_no_entities(client: TestClient) -> None:
    assert client.post("/v1/ha/ner", json={"inputs": ""}).json() == []


def test_extras_travel_in_headers(client: TestClient) -> None:
    response = client.post("/v1/ha/ner", json={"inputs": tiny.SENTENCE}, headers={"x-request-id": "abc-1"})
    assert response.headers["x-request-id"] == "abc-1"
    assert response.headers["x-bistil-model"].startswith("ha/ner/1/fp32@")
    assert response.headers["x-bistil-windows"] == "1"
    stages = [part.split(";dur=") for part in response.headers["server-timing"].split(", ")]
    assert [name for name, _ in stages] == ["parse", "tok", "queue", "fwd", "decode", "serialize"]
    assert all(float(value) >= 0 for _, value in stages)
    response = client.post("/v1/ha/ner", json={"inputs": "a"}, headers={"x-request-id": "a b\tc"})
    assert len(response.headers["x-request-id"]) == 32


@pytest.mark.parametrize("path", ["/v1/xx/ner", "/v1/sw/pos", "/v1/ha/nre"])
def test_what_is_not_served_is_a_404_that_lists_what_is(client: TestClient, path: str) -> None:
    body = problem(client.post(path, json={"inputs": "a"}), 404, "not-served")
    assert body["served"] == ["ha/dp", "ha/ner", "ha/nli", "ha/pos", "ha/qa", "sw/ner"]
    problem(client.get(f"{path}/card"), 404, "not-served")


def test_fields_at_fault_are_pointed_at(client: TestClient) -> None:
    body = {"inputs": SECRET, "parameters": {"aggregation_strategy": SECRET, "stride": -1}, SECRET: 1}
    faults = problem(client.post("/v1/ha/ner", json=body), 422, "invalid-input")["errors"]
    assert [fault["pointer"] for fault in faults] == [
        "/parameters/stride",
        "/parameters/aggregation_strategy",
        "/?",
    ]
    assert faults[2]["known"] == ["inputs", "parameters"]
    body = {"inputs": "a", "parameters": {"agregation_strategy": "none"}}
    (fault,) = problem(client.post("/v1/ha/ner", json=body), 422, "invalid-input")["errors"]
    assert (fault["pointer"], fault["near"]) == ("/parameters/agregation_strategy", ["aggregation_strategy"])
    body = {"inputs": [{"text": "a", "text_pear": "b"}]}
    (fault,) = problem(client.post("/v1/ha/nli", json=body), 422, "invalid-input")["errors"]
    assert (fault["pointer"], fault["near"][0]) == ("/inputs/0/text_pear", "text_pair")
    faults = problem(client.post("/v1/ha/nli", json={"inputs": [SECRET, 3]}), 422, "invalid-input")["errors"]
    assert [fault["pointer"] for fault in faults] == ["/inputs/1"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"inputs": "\xff"}', b"[" * 5000, b"null", b'"Bola"'])
def test_a_body_that_is_no_request_is_refused(client: TestClient, content: bytes) -> None:
    response = client.post("/v1/ha/ner", content=content, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)
    problem(response, response.status_code, "invalid-input" if response.status_code == 422 else "bad-request")


def test_a_lone_surrogate_is_refused(client: TestClient) -> None:
    content = b'{"inputs": "\\ud800"}'
    response = client.post("/v1/ha/ner", content=content, headers={"content-type": "application/json"})
    problem(response, 422, "invalid-input")


def test_three_limits_are_three_problems(serve: Serve) -> None:
    client = serve(max_body_bytes=500, max_inputs=3, max_characters=50)
    too_large = problem(client.post("/v1/ha/ner", json={"inputs": SECRET * 100}), 413, "body-too-large")
    assert too_large["limit"] == 500 < too_large["actual"]
    chunks = iter([b'{"inputs": "', b"a" * 600, b'"}'])
    headers = {"content-type": "application/json"}
    problem(client.post("/v1/ha/ner", content=chunks, headers=headers), 413, "body-too-large")
    body = problem(client.post("/v1/ha/ner", json={"inputs": ["a"] * 4}), 422, "too-many-inputs")
    assert (body["limit"], body["actual"]) == (3, 4)
    body = problem(client.post("/v1/ha/ner", json={"inputs": "a" * 51}), 422, "input-too-long")
    assert (body["limit"], body["actual"], body["pointer"]) == (50, 51, "/inputs")
    body = problem(client.post("/v1/ha/ner", json={"inputs": ["a", "a" * 51]}), 422, "input-too-long")
    assert body["pointer"] == "/inputs/1"
    body = problem(serve(max_queue_tokens=9).post("/v1/ha/ner", json={"inputs": "ya " * 9}), 422, "too-many-tokens")
    assert (body["limit"], body["actual"]) == (9, 11)


def test_a_question_that_fits_no_window_is_too_long(client: TestClient) -> None:
    inputs = {"question": SECRET * 20, "context": "Kano"}
    body = problem(client.post("/v1/ha/qa", json={"inputs": inputs}), 422, "too-many-tokens")
    assert body["limit"] < body["actual"]
    asked = {"inputs": ["a", "b"], "parameters": {"candidate_labels": ["c", SECRET * 20]}}
    assert problem(client.post("/v1/ha/zero-shot", json=asked), 422, "too-many-tokens")["pointer"] == "/inputs/0"
    questions = [{"question": question, "context": "Kano"} for question in ("Ina?", SECRET * 20)]
    assert (
        problem(client.post("/v1/ha/qa", json={"inputs": questions}), 422, "too-many-tokens")["pointer"] == "/inputs/1"
    )


def test_a_deadline_that_passes_is_a_504(serve: Serve, store: Any) -> None:
    problem(serve(timeout_s=1e-9).post("/v1/ha/ner", json={"inputs": SECRET}), 504, "deadline-exceeded")


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "soon"])
def test_a_timeout_header_that_is_no_number_is_refused(client: TestClient, value: str) -> None:
    response = client.post("/v1/ha/ner", json={"inputs": "a"}, headers={"x-request-timeout-ms": value})
    problem(response, 422, "invalid-input")
    response = client.post("/v1/ha/ner", json={"inputs": "a"}, headers={"x-request-timeout-ms": "5000"})
    assert response.status_code == 200


def test_models_lists_what_is_up(client: TestClient) -> None:
    listed = client.get("/v1/models").json()["models"]
    assert [(model["language"], model["task"]) for model in listed] == [
        ("ha", "dp"),
        ("ha", "ner"),
        ("ha", "nli"),
        ("ha", "pos"),
        ("ha", "qa"),
        ("sw", "ner"),
    ]
    assert listed[0]["labels"] == list(tiny.DP_LABELS)
    assert client.get(listed[0]["card"]).json()["codec"] == "dependency_parsing"


def test_a_card_is_for_programs_and_for_people(client: TestClient) -> None:
    assert client.get("/v1/ha/ner/card").json()["scores"] == {"student": {"f1": 50.0}}
    response = client.get("/v1/ha/ner/card", headers={"accept": "text/markdown"})
    assert response.text == "# ha ner\n"
    assert response.headers["content-type"].startswith("text/markdown")


def test_a_language_has_a_card_of_all_its_tasks(client: TestClient) -> None:
    card = client.get("/v1/ha/card").json()
    assert card["language"] == "ha"
    assert [part["task"] for part in card["tasks"]] == ["dp", "ner", "nli", "pos", "qa"]
    assert card["tasks"][1]["scores"] == {"student": {"f1": 50.0}}
    assert card["tasks"][1]["licence"] == "CC0-1.0"
    assert set(card["tasks"][1]["files"]) == {"card.md", "model.onnx", "tokenizer.json"}
    problem(client.get("/v1/xx/card"), 404, "not-served")


def test_probes_and_index(client: TestClient) -> None:
    assert client.get("/livez").json() == {"alive": True}
    assert client.get("/readyz").json() == {"ready": True, "draining": False, "loading": []}
    assert client.get("/v1/ha/ready").json() == {"ready": True}
    problem(client.get("/v1/xx/ready"), 404, "not-served")
    assert client.get("/").json()["served"] == ["ha/dp", "ha/ner", "ha/nli", "ha/pos", "ha/qa", "sw/ner"]


def test_unknown_paths_and_methods_are_problems(client: TestClient) -> None:
    problem(client.get("/nowhere"), 404, "not-found")
    problem(client.get("/v1/ha/ner"), 405, "method-not-allowed")


def test_openapi_tells_the_truth_about_errors(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/v1/{language}/ner"]["post"]
    for code in ("404", "413", "422", "500", "503", "504"):
        assert list(operation["responses"][code]["content"]) == ["application/problem+json"]
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("NerRequest")
    parsed = document["paths"]["/v1/{language}/dp"]["post"]["responses"]["200"]["content"]
    assert set(parsed) == {"application/json", "text/x-conllu"}


def test_docs_can_be_switched_off(serve: Serve) -> None:
    client = serve(docs=False)
    assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 404


@pytest.mark.parametrize("value", ["1" * 400, "1" * 5000, "0001"])
def test_a_timeout_may_be_as_long_as_it_likes(client: TestClient, value: str) -> None:
    answer = client.post("/v1/ha/ner", json={"inputs": "a"}, headers={"x-request-timeout-ms": value})
    assert answer.status_code in ((504, 200) if value == "0001" else (200,))


def test_texts_times_labels_count_before_any_pair_is_made(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("app.schemas.zero_shot.ZeroShotRequest._hypotheses", made)
    names = [str(number) for number in range(1000)]
    answer = client.post("/v1/ha/zero-shot", json={"inputs": names, "parameters": {"candidate_labels": names}})
    assert problem(answer, 422, "too-many-inputs")["actual"] == 1_000_000


@pytest.mark.parametrize("template", ["{}{}", "no place", "{}" * 10_000, "{{}{}"])
def test_a_template_has_one_place_for_the_label(client: TestClient, template: str) -> None:
    parameters = {"candidate_labels": ["b" * 20_000], "hypothesis_template": template}
    answer = client.post("/v1/ha/zero-shot", json={"inputs": "a", "parameters": parameters})
    assert problem(answer, 422, "invalid-input")["errors"][0]["pointer"] == "/parameters/hypothesis_template"


@pytest.mark.parametrize("template", ["{}", "{{} }", "}{}{", "Kano\n{} {"])
def test_other_braces_may_stand_in_a_template(client: TestClient, template: str) -> None:
    parameters = {"candidate_labels": ["b"], "hypothesis_template": template}
    assert client.post("/v1/ha/zero-shot", json={"inputs": "a", "parameters": parameters}).status_code == 200


def test_of_many_wrong_inputs_the_first_is_told(client: TestClient) -> None:
    errors = problem(client.post("/v1/ha/ner", json={"inputs": ["a", *[1] * 50_000]}), 422, "invalid-input")["errors"]
    assert [fault["pointer"] for fault in errors] == ["/inputs/1"]


def test_of_many_wrong_fields_a_hundred_are_told(client: TestClient) -> None:
    body = {"inputs": "a"} | {f"a{letter}": 1 for letter in range(1000)}
    told = problem(client.post("/v1/ha/ner", json=body), 422, "invalid-input")
    assert "1000 places" in told["detail"] and len(told["errors"]) <= 100


def test_a_key_of_digits_is_not_repeated(client: TestClient) -> None:
    told = problem(client.post("/v1/ha/ner", json={"inputs": "a", "4111111111111111": 1}), 422, "invalid-input")
    assert told["errors"][0]["pointer"] == "/?"
