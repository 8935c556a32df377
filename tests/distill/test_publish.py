import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForQuestionAnswering, AutoModelForTokenClassification, AutoTokenizer

from app.bundle import Variant, verify
from app.errors import BundleError, ConfigError, DataError, UnknownChoice
from app.predictor import Predictor
from app.tasks.question_answering import QuestionItem
from app.tasks.token_classification import TokenItem
from distill import publish as module
from distill.datasets.base import joined
from distill.export import ExportError
from distill.publish import publish
from distill.tasks.base import Example, Span, training_task
from tests.distill import tiny

FIELDS: dict[str, Any] = {"language": "ha", "max_length": 48, "stride": 8, "pad_id": 1, "licence": "CC0"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_teacher("xlm-roberta", tmp_path_factory.mktemp("teacher"), layers=1)


def tagger(teacher: Path) -> Any:
    torch.manual_seed(0)
    model = AutoModelForTokenClassification.from_pretrained(teacher, num_labels=7)
    torch.nn.init.normal_(model.classifier.weight, std=1.0)
    return model


def dev() -> list[Example]:
    found = []
    for text in tiny.HAUSA:
        joined_text, spans = joined(text.split())
        found.append(Example(TokenItem(joined_text, spans), ("B-PER", *["O"] * (len(spans) - 1))))
    return found


def put(teacher: Path, root: Path, **changes: Any) -> Path:
    values: dict[str, Any] = {"fields": FIELDS, "precisions": ("fp32", "int8"), **changes}
    return publish(
        tagger(teacher),
        teacher,
        training_task("ner"),
        values.pop("examples", dev()),
        values.pop("texts", tiny.HAUSA),
        values.pop("fields"),
        store=root / "store",
        staging=root / "staging",
        **values,
    )


def test_a_bundle_is_verified_serves_and_says_what_it_is(teacher: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "POINTS", 100.0)
    seen: list[str] = []

    def measure(folder: Path, variants: tuple[Variant, ...]) -> dict[str, Any]:
        seen.extend(variant.file for variant in variants if (folder / variant.file).is_file())
        return {"scores": {"student": {"f1": 12.0}}}

    folder = put(teacher, tmp_path, measure=measure)
    manifest = verify(folder)
    assert folder == tmp_path / "store" / "ha" / "ner" / "1"
    assert [variant.name for variant in manifest.variants] == ["int8", "fp32"]
    assert seen == ["model_int8.onnx", "model.onnx"]
    assert set(manifest.files) == {
        *("card.md", "config.json", "model.onnx", "model_int8.onnx", "tokenizer.json", "tokenizer_config.json")
    }
    assert manifest.labels == training_task("ner").labels and manifest.licence == "CC0"
    assert manifest.scores == {"student": {"f1": 12.0}} and "12.00" in (folder / "card.md").read_text()
    assert {"torch", "onnxruntime"} <= set(manifest.versions)
    assert not (tmp_path / "staging").exists()
    predictor: Predictor[Any, Any] = Predictor.open(folder, variant="fp32", threads=1)
    prediction = predictor.predict([TokenItem(tiny.HAUSA[0])])[0]
    assert len(prediction.words) == 9
    assert put(teacher, tmp_path, precisions=("fp32",)).name == "2"


def test_a_bundle_opens_in_transformers(teacher: Path, tmp_path: Path) -> None:
    folder = put(teacher, tmp_path, precisions=("fp32",))
    config = AutoConfig.from_pretrained(folder)
    assert config.id2label[1] == "B-PER" and config.label2id["I-LOC"] == 6
    assert config.architectures == ["XLMRobertaForTokenClassification"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.model_max_length == 48
    assert tokenizer(tiny.HAUSA[0])["input_ids"] == AutoTokenizer.from_pretrained(teacher)(tiny.HAUSA[0])["input_ids"]
    assert json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    for name in ("config.json", "tokenizer_config.json", "manifest.json"):
        assert str(teacher) not in (folder / name).read_text()


def test_int8_alone_may_be_published(teacher: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "POINTS", 100.0)
    folder = put(teacher, tmp_path, precisions=("int8",))
    assert [variant.file for variant in verify(folder).variants] == ["model_int8.onnx"]
    assert not (folder / "model.onnx").exists()


def test_int8_that_loses_too_much_is_left_out_and_fp32_takes_its_place(
    teacher: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(module, "POINTS", -1000.0)
    folder = put(teacher, tmp_path, precisions=("int8",))
    assert [variant.file for variant in verify(folder).variants] == ["model.onnx"]
    assert not (folder / "model_int8.onnx").exists()


def test_a_model_whose_export_differs_is_refused_and_leaves_nothing_in_the_store(
    teacher: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(module, "parity", lambda *_: 2e-4)
    with pytest.raises(ExportError, match=r"differs from torch by 2\.0e-04"):
        put(teacher, tmp_path)
    assert not (tmp_path / "store").exists()


def test_what_cannot_be_published_is_an_error(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownChoice, match="fp32, int8"):
        put(teacher, tmp_path, precisions=("int4",))
    with pytest.raises(ConfigError, match="'stride'"):
        put(teacher, tmp_path, fields={"language": "ha", "max_length": 48})
    with pytest.raises(DataError, match="calibration texts"):
        put(teacher, tmp_path, texts=())
    with pytest.raises(DataError, match="nothing to evaluate"):
        put(teacher, tmp_path, examples=[])
    put(teacher, tmp_path, precisions=("fp32",), fields={**FIELDS, "revision": 7})
    with pytest.raises(BundleError, match="immutable"):
        put(teacher, tmp_path, precisions=("fp32",), fields={**FIELDS, "revision": 7})
    assert [path.name for path in (tmp_path / "store" / "ha" / "ner").iterdir()] == ["7"]


def test_a_question_answering_bundle_answers_with_the_contexts_own_text(teacher: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    context = " ".join(tiny.HAUSA)
    folder = publish(
        AutoModelForQuestionAnswering.from_pretrained(teacher),
        teacher,
        training_task("qa"),
        [Example(QuestionItem("A ina?", context), (Span(context.index("Kano"), "Kano"),))],
        tiny.HAUSA,
        FIELDS,
        store=tmp_path / "store",
        staging=tmp_path / "staging",
        precisions=("fp32",),
    )
    predictor: Predictor[Any, Any] = Predictor.open(folder, threads=1)
    (answer,) = predictor.predict([QuestionItem("A ina?", context)])[0].answers
    assert answer.text == context[answer.start : answer.end]
    assert json.loads((folder / "manifest.json").read_text())["codec"] == "question_answering"


def test_a_bundle_may_hold_variants_for_several_engines_that_answer_alike(
    teacher: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    pytest.importorskip("openvino", reason="pip install openvino nncf")
    monkeypatch.setattr(module, "POINTS", 100.0)
    folder = put(teacher, tmp_path, engines=("onnx", "openvino", "torch"))
    manifest = verify(folder)
    names = [variant.name for variant in manifest.variants]
    assert names == ["int8", "openvino_int8", "fp32", "openvino_fp32", "torch_fp32"]
    assert {"model_openvino_int8.xml", "model_openvino_int8.bin", "model.safetensors"} <= set(manifest.files)
    assert {"openvino", "nncf"} <= set(manifest.versions)
    import openvino

    nodes = openvino.Core().read_model(folder / "model_openvino_int8.xml").get_ops()
    products = [node for node in nodes if node.get_type_name() == "MatMul"]
    sources = [node.input_value(0).get_node().get_type_name() for node in products]
    assert sources.count("FakeQuantize") == 6  # the layer's; not attention's two, nor the head's
    assert len(products) == 9
    answers = {}
    for name in names:
        predictor: Predictor[Any, Any] = Predictor.open(folder, variant=name, threads=1)
        answers[name] = [word.score for word in predictor.predict([TokenItem(tiny.HAUSA[0])])[0].words]
        predictor.close()
    for name in ("openvino_fp32", "torch_fp32"):
        assert answers[name] == pytest.approx(answers["fp32"], abs=1e-4)
    for name in ("int8", "openvino_int8"):
        assert answers[name] == pytest.approx(answers["fp32"], abs=0.2)
    fastest: Predictor[Any, Any] = Predictor.open(folder, threads=1)
    assert fastest.predict([TokenItem(tiny.HAUSA[0])])


def test_an_engine_or_a_pair_that_no_model_is_written_for_is_an_error(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownChoice, match="onnx, openvino, torch"):
        put(teacher, tmp_path, engines=("abacus",))
    with pytest.raises(ConfigError, match="no model is written in int8 for torch"):
        put(teacher, tmp_path, engines=("torch",), precisions=("int8",))
