"""The contract of offsets, for any text, with each family of tokenizers and the embedded models' own, in each unit."""

import functools
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from app.bundle import Bundle
from app.predictor import Predictor, codec
from app.schemas.base import TaskRequest
from app.schemas.dp import DpRequest
from app.schemas.ner import NerRequest
from app.schemas.pos import PosRequest
from app.schemas.qa import QaRequest
from app.text import OffsetUnit, positions
from tests.app import tiny
from tests.app.test_text import TEXTS

EMBEDDED = max((Path(__file__).parents[2] / "model_store" / "ha" / "qa").iterdir())
FAMILIES = [*tiny.TOKENIZERS, "embedded"]
UNITS: tuple[OffsetUnit, ...] = ("codepoint", "utf16", "utf8")
CODECS = {"utf16": ("utf-16-le", 2), "utf8": ("utf-8", 1), "codepoint": ("utf-32-le", 4)}
REQUESTS: dict[str, type[TaskRequest]] = {"ner": NerRequest, "pos": PosRequest, "dp": DpRequest, "qa": QaRequest}

SCRAPS = [
    *("Bola Tinubu", "Kano", " ", "  ", "\n", "\u00a0", ". ", "'", "isa", "ƙasa"),
    *("e\u0301", "E\u0300ko\u0301", "\u0301", "n\u0303\u0323", "ﬁ", "㎞", "Å", "½"),
    *("👩\u200d👩\u200d👧", "🇳🇬", "👍🏽", "x\ufe0f\u20e3", "\u200d", "\u200b", "\ufeff", "𝒳", "𐍈"),
    *(" \u0e31", "\u0600 ", "\u0600٣", " \u200d\u0301", "\u200c🏽"),
    *("العربية", "\u200fשָׁלוֹם\u200e", "नमस्ते", "क्षे", "น้ำใจ", "東京", "\u1112\u1161\u11ab", "አማርኛ"),
]
texts = st.builds(
    lambda scraps, form: unicodedata.normalize(form, "".join(scraps)) if form else "".join(scraps),
    st.lists(st.sampled_from([*SCRAPS, *TEXTS.values()]) | st.text(max_size=6), max_size=12),
    st.sampled_from(["", "NFC", "NFD"]),
)


@functools.cache
def tokenizer(family: str) -> Tokenizer:
    return Bundle.open(EMBEDDED, verify=False).tokenizer() if family == "embedded" else tiny.TOKENIZERS[family]()


@functools.cache
def predictor(task: str, family: str) -> Predictor[Any, Any]:
    """Its answers are anything but sensible: they depend on each piece's id alone, at random."""
    described = tiny.manifest(task, family="xlmr" if family == "embedded" else family, max_length=48, stride=8)
    engine = tiny.FakeEngine(
        lambda inputs: tiny.random_outputs(
            {name: values % 4000 for name, values in inputs.items()},
            codec=described.codec,
            n_labels=len(described.labels),
        )
    )
    return Predictor(codec(described), tokenizer(family), engine, pad_id=described.pad_id)


def ask(task: str, family: str, text: str, **parameters: Any) -> list[dict[str, Any]]:
    inputs = {"question": "Ina?", "context": text} if task == "qa" else text
    request = REQUESTS[task].model_validate({"inputs": inputs, "parameters": parameters})
    answer: list[dict[str, Any]] = request.answer(predictor(task, family).predict(request.items()))
    return answer


def cut(text: str, start: int, end: int, unit: OffsetUnit) -> str:
    """What a client that counts in ``unit`` finds between the offsets."""
    encoding, width = CODECS[unit]
    return text.encode(encoding)[width * start : width * end].decode(encoding)


def check(text: str, answers: list[dict[str, Any]], *, word: str, unit: OffsetUnit) -> None:
    place = {where: index for index, where in enumerate(positions(text, unit))}
    boundaries = {0, *(match.end() for match in regex.finditer(r"\X", text))}
    boundaries |= {side for index, char in enumerate(text) if char.isspace() for side in (index, index + 1)}
    for answer in answers:
        assert cut(text, answer["start"], answer["end"], unit) == answer[word] == answer[word].strip() != ""
        assert {place[answer["start"]], place[answer["end"]]} <= boundaries


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=40)
@given(text=texts, unit=st.sampled_from(UNITS), strategy=st.sampled_from(["none", "simple", "average", "max"]))
def test_entities_words_and_trees(family: str, text: str, unit: OffsetUnit, strategy: str) -> None:
    parameters = {"aggregation_strategy": strategy, "ignore_labels": []}
    for task, word, more in (("ner", "word", parameters), ("pos", "text", {}), ("dp", "text", {})):
        answers = ask(task, family, text, offset_unit=unit, **more)
        check(text, answers, word=word, unit=unit)
        ends = [0, *(answer["end"] for answer in answers)]
        assert all(end <= answer["start"] for end, answer in zip(ends, answers, strict=False))
        assert answers or not regex.search(r"[\p{L}\p{N}]", text)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=60)
@given(text=texts.filter(bool), unit=st.sampled_from(UNITS), whole=st.booleans())
def test_answers(family: str, text: str, unit: OffsetUnit, whole: bool) -> None:
    answers = ask("qa", family, text, offset_unit=unit, top_k=20, align_to_words=whole)
    check(text, answers, word="answer", unit=unit)
    assert len({(answer["start"], answer["end"]) for answer in answers}) == len(answers)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_decomposed_name_keeps_its_last_mark(family: str) -> None:
    text = unicodedata.normalize("NFD", "Tinúbú ní Èkó")
    found = ask("qa", family, text, top_k=100)
    check(text, found, word="answer", unit="codepoint")
    assert {unicodedata.normalize("NFD", name) for name in ("Tinúbú", "Èkó")} <= {answer["answer"] for answer in found}


def test_positions_by_hand() -> None:
    text = "aƙ東👍"
    assert [*positions(text)] == [0, 1, 2, 3, 4]
    assert [*positions(text, "utf16")] == [0, 1, 2, 3, 5]
    assert [*positions(text, "utf8")] == [0, 1, 3, 6, 10]
