"""Our bundles in optimum's classes and transformers' pipelines, and optimum's exporter beside ours.

optimum-onnx needs an older transformers than this project, hence an environment of its own: these tests run where its
`optimum-cli` is on the PATH, as in CI.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.bundle import Bundle
from app.engines.onnx import Engine
from app.errors import MissingExtra
from app.predictor import Predictor
from app.tasks.question_answering import QuestionItem
from app.tasks.sequence_classification import PairItem
from app.tasks.token_classification import TokenItem, entities
from distill import optimum
from distill.export import ExportError, parity
from tests.distill import tiny
from tests.distill.test_export import HEADS, SHAPES, batch, model_of

COMMAND = shutil.which(optimum.COMMAND)
STORE = Path(__file__).parents[2] / "model_store" / "ha"
TEXTS: dict[str, Any] = {
    "ner": ["Shugaba Bola Tinubu ya isa birnin Kano ranar Litinin."],
    "pos": ["Yara suna wasa a gida."],
    "nli": ["Yara suna wasa a gida.", "Yara na barci."],
    "qa": ["Wane gari ne Aisha ta je?", "Aisha ta je garin Kano ranar Litinin."],
}
needs_optimum = pytest.mark.skipif(COMMAND is None, reason="optimum-onnx is not installed")


@pytest.mark.slow
@needs_optimum
@pytest.mark.parametrize("head", HEADS[:3])
def test_the_exporter_of_optimum_gives_the_logits_of_torch(tmp_path: Path, head: str) -> None:
    tiny.tiny_teacher("xlm-roberta", tmp_path / "xlm-roberta", layers=2)
    model = model_of(tmp_path, "xlm-roberta", head)
    optimum.export_onnx(model, tmp_path / "model.onnx")
    assert parity(model, tmp_path / "model.onnx", [batch(model, *shape) for shape in SHAPES]) < 1e-4


def test_without_optimum_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.tiny_teacher("bert", tmp_path / "bert", layers=2)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match="optimum-onnx"):
        optimum.export_onnx(model_of(tmp_path, "bert", "TokenClassification"), tmp_path / "model.onnx")


def test_optimum_refuses_a_parser(tmp_path: Path) -> None:
    tiny.tiny_teacher("bert", tmp_path / "bert", layers=2)
    with pytest.raises(ExportError, match="exporter torch"):
        optimum.export_onnx(model_of(tmp_path, "bert", "DependencyParsing"), tmp_path / "model.onnx")


@pytest.mark.slow
@needs_optimum
@pytest.mark.parametrize("task", TEXTS)
def test_a_bundle_opens_unmodified_in_optimum_and_answers_as_ours_does(task: str) -> None:
    assert COMMAND is not None
    bundle = Bundle.open(max((STORE / task).iterdir()))
    variant = bundle.manifest.variants[0]
    script = Path(__file__).with_name("open_with_optimum.py")
    arguments = [str(bundle.folder), task, variant.file, json.dumps(TEXTS[task])]
    done = subprocess.run(
        [str(Path(COMMAND).with_name("python")), str(script), *arguments], capture_output=True, text=True, check=True
    )
    theirs: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])

    ids = np.asarray(theirs["ids"], dtype=np.int64)
    assert bundle.tokenizer().encode(*TEXTS[task]).ids == ids[0].tolist()
    ours = Engine.open(bundle.folder, file=variant.file, threads=1).run(
        {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    )
    for name, values in theirs["outputs"].items():  # fused otherwise, an activation may be rounded to its neighbour
        assert np.abs(ours[name].astype(np.float64) - np.asarray(values)).max() < 0.05

    predictor: Predictor[Any, Any] = Predictor.open(bundle.folder)
    answer = theirs["pipeline"]
    if task in ("ner", "pos"):
        item = TokenItem(*TEXTS[task])
        prediction = predictor.predict([item])[0]
        if task == "ner":
            expected = [(e.label, item.text[e.start : e.end]) for e in entities(item.text, prediction)]
            assert [(e["entity_group"], item.text[e["start"] : e["end"]].strip()) for e in answer] == expected
        else:
            # transformers glues marks and like neighbours together, so only the words that begin a group are compared
            labels = {word.start: word.label for word in prediction.words}
            texts = [item.text[e["start"] : e["end"]] for e in answer]
            starts = [e["end"] - len(text.lstrip()) for e, text in zip(answer, texts, strict=True)]
            assert len(starts) >= 4 and [labels[start] for start in starts] == [e["entity_group"] for e in answer]
    elif task == "nli":
        scores = predictor.predict([PairItem(*TEXTS[task])])[0].scores
        # where a logit may differ by 0.05, a probability may by a quarter of that
        assert {e["label"]: e["score"] for e in answer} == pytest.approx(dict(scores), abs=0.0125)
    else:
        best = predictor.predict([QuestionItem(*TEXTS[task])])[0].answers[0]
        assert (answer["start"], answer["end"], answer["answer"]) == (best.start, best.end, best.text)
    predictor.close()
