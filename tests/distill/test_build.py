"""The whole path in miniature: one command from a teacher and a data folder to bundles that serve."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from tokenizers import Tokenizer

from app.bundle import Bundle
from app.guard import LanguageGuard
from app.main import create_app
from app.predictor import Predictor
from app.settings import Settings
from app.store import ModelStore
from app.tasks.question_answering import QuestionItem
from app.tasks.sequence_classification import PairItem
from app.tasks.token_classification import TokenItem
from distill import recipe
from distill.__main__ import main
from distill.delta import SparseDelta
from distill.evaluate import predictor_for
from distill.tasks.base import training_task
from distill.teach import open_model
from tests.distill import corpora
from tests.distill.tiny import tiny_teacher

SMALL = (
    "student.layer_reduction_factor=2",
    "phase1.schedule.steps=24",
    "phase1.schedule.checkpoint_every=4",
    "phase1.schedule.evaluate_every=8",
    "phase1.sequence_length=32",
    "phase1.batch_size=4",
    "phase1.heldout=0.2",
    "export.rounds=1",
    "export.calibration_texts=40",
    *(
        f"{table}.{setting}"
        for table in ("teach.default", "teach.qa", "transfer.default.tuning", "transfer.qa.tuning")
        for setting in ("max_length=64", "stride=16")
    ),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpora.write(tmp_path_factory.mktemp("data"))


def arguments(folder: Path, data: Path, *extra: str, family: str = "xlm-roberta") -> list[str]:
    teacher = folder / "teacher"
    if not teacher.is_dir():
        torch.manual_seed(0)
        tiny_teacher(family, teacher)
    places = {"teacher": teacher, "data": data, "out": folder / "runs", "store": folder / "store"}
    options = [part for name, place in places.items() for part in (f"--{name}", str(place))]
    said = {part.partition("=")[0] for part in extra}
    return ["build", "--tgt", "ha", *options, *extra, *(part for part in SMALL if part.partition("=")[0] not in said)]


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "distill", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.mark.slow
def test_one_command_builds_bundles_that_answer_for_every_task(tmp_path: Path, data: Path) -> None:
    teachers = tmp_path / "teachers"
    assert main(arguments(tmp_path, data, f"export.teacher_store={teachers}", "export.vocabulary=pair")) == 0
    for store in (tmp_path / "store", teachers):
        assert main(["verify", str(store)]) == 0
    items: dict[str, Any] = {
        "ner": TokenItem("Aisha ta tafi Kano jiya."),
        "pos": TokenItem("Aisha ta tafi Kano jiya."),
        "nli": PairItem("Aisha tana Kano.", "Aisha tana nan."),
        "qa": QuestionItem("Ina Aisha?", "Aisha is in Kano today."),
    }
    for task, item in items.items():
        manifest = Bundle.open(tmp_path / "store" / "ha" / task / "1").manifest
        assert manifest.layer_map == (1, 3) and manifest.teacher["unk_rate"]["ha"]["after"] <= 0.01
        assert {"baseline", "teacher", "student"} < set(manifest.scores)
        assert all(scores["low"] <= scores["high"] for scores in manifest.scores.values())
        shadowed = Bundle.open(teachers / "ha" / task / "1").manifest
        assert (shadowed.layer_map, set(shadowed.scores)) == ((), {"baseline", "teacher"})
        assert shadowed.files["tokenizer.json"] == manifest.files["tokenizer.json"]
        guard = LanguageGuard.from_manifest(manifest, Bundle.open(tmp_path / "store" / "ha" / task / "1").tokenizer())
        assert guard is not None and 0 <= guard.limit < 1
        assert str(teachers) not in manifest.to_json()
        predictor: Predictor[Any, Any] = Predictor.open(tmp_path / "store" / "ha" / task / "1")
        prediction = predictor.predict([item])[0]
        predictor.close()
        if task in ("ner", "pos"):
            words = [item.text[word.start : word.end] for word in prediction.words]
            assert words == ["Aisha", "ta", "tafi", "Kano", "jiya", "."]
        card = (tmp_path / "store" / "ha" / task / "1" / "card.md").read_text()
        assert f"- command: `python -m distill build --tgt ha --tasks {task} --data <folder> --preset quick" in card
        assert "## Licence" in card and f"Baseline: {training_task(task).baseline_rule}." in card
        assert f"on CPU, {torch.get_num_threads()} thread(s), one row a micro-batch" in card


@pytest.mark.slow
@pytest.mark.parametrize("family", ["deberta-v2", "xlm-roberta"])
def test_a_parser_builds_on_request_and_is_served(tmp_path: Path, data: Path, family: str) -> None:
    learning = ("teach.dp.epochs=12", "teach.dp.learning_rate=3e-3", "export.precisions=fp32,int8")
    assert main(arguments(tmp_path, data, "--tasks", "dp", *learning, family=family)) == 0
    folder = tmp_path / "store" / "ha" / "dp" / "1"
    manifest = Bundle.open(folder).manifest
    assert manifest.codec == "dependency_parsing" and manifest.variants[-1].name == "fp32"
    assert set(manifest.scores["student"]) == {"las", "uas", "low", "high"}
    # the teacher has learnt most of the three templates of its own language
    report = json.loads((tmp_path / "runs" / "en-ha" / "dp" / "teach" / "stage.json").read_text())
    assert report["best"] > 60
    assert "dependency parsing" in (folder / "card.md").read_text()
    settings = Settings.read(store=str(tmp_path / "store"), threads=1)
    store = ModelStore(settings.store, cache=tmp_path)
    served = [store.open(location, settings) for location in store.find()]
    with TestClient(create_app(settings, served=served)) as client:
        text = "Aisha ta tafi Kano jiya. Malami ya gana da Musa."
        answer = client.post("/v1/ha/dp", json={"inputs": text}).json()
        lines = client.post("/v1/ha/dp?format=conllu", json={"inputs": text}).text.splitlines()
    assert " ".join(word["text"] for word in answer) == "Aisha ta tafi Kano jiya . Malami ya gana da Musa ."
    assert [sum(word["head"] == 0 for word in answer if word["sentence"] == number) for number in (1, 2)] == [1, 1]
    assert [line.split("\t")[7] for line in lines if line[:1].isdigit()] == [word["deprel"] for word in answer]


@pytest.mark.slow
def test_a_build_killed_at_three_stages_ends_like_an_uninterrupted_one(tmp_path: Path, data: Path) -> None:
    torch.manual_seed(0)
    tiny_teacher("xlm-roberta", tmp_path / "whole" / "teacher")
    shutil.copytree(tmp_path / "whole" / "teacher", tmp_path / "cut" / "teacher")
    sparse = ("--tasks", "ner", "--method", "bistil")  # the default method has no mask to find
    whole = start(arguments(tmp_path / "whole", data, *sparse))
    told, _ = whole.communicate()
    assert whole.returncode == 0, told.decode()
    command = arguments(tmp_path / "cut", data, *sparse)
    runs = tmp_path / "cut" / "runs" / "en-ha"
    for sign in (
        runs / "distill" / "checkpoint" / "run.json",
        runs / "ner" / "teach" / "log.jsonl",
        runs / "ner" / "transfer" / "mask.safetensors",
    ):
        process = start(command)
        while not sign.exists() and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None, "the build ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert not (tmp_path / "cut" / "store").exists()
    finished = start(command)
    output, _ = finished.communicate()
    assert finished.returncode == 0, output.decode()
    deltas = [
        SparseDelta.load(tmp_path / name / "runs" / "en-ha" / "ner" / "transfer" / "delta.safetensors")
        for name in ("whole", "cut")
    ]
    for name, (indices, values) in deltas[0].sparse.items():
        assert torch.equal(indices, deltas[1].sparse[name][0]) and torch.equal(values, deltas[1].sparse[name][1])
    manifests = [Bundle.open(tmp_path / name / "store" / "ha" / "ner" / "1").manifest for name in ("whole", "cut")]
    assert manifests[0].scores == manifests[1].scores
    graphs = [{name: sha for name, sha in m.files.items() if name.endswith(".onnx")} for m in manifests]
    assert graphs[0] and graphs[0] == graphs[1]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_teachers_of_the_other_families_build_too(tmp_path: Path, data: Path, family: str) -> None:
    assert main(arguments(tmp_path, data, "--tasks", "ner", family=family)) == 0
    assert main(["verify", str(tmp_path / "store")]) == 0


def test_every_missing_file_is_named_before_the_work_starts(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = arguments(tmp_path, data, "--tasks", "ner,pos")
    command[command.index("--tgt") + 1] = "yo"
    assert main(command) == 2
    error = capsys.readouterr().err
    for part in ("yo.txt", "ner/yo", "pos/yo"):
        assert part in error
    assert not (tmp_path / "runs").exists() and not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no dev data of the task 'ner' for the language 'en'"),
        (b"", "dev.conll holds no sentence"),
        ("Musé B-PER\n".encode("latin-1"), "dev.conll:1 is not UTF-8"),
        (b"Musa PER\n", "dev.conll:1 needs the form 'token tag'"),
    ],
)
def test_dev_labels_are_looked_at_before_the_work_starts(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, told: str
) -> None:
    own = shutil.copytree(data, tmp_path / "data")
    (own / "ner" / "en" / "dev.conll").unlink()
    if content is not None:
        (own / "ner" / "en" / "dev.conll").write_bytes(content)
    assert main(arguments(tmp_path, own, "--tasks", "ner")) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_parsing_has_settings_of_its_own_and_is_done_on_request_alone() -> None:
    assert recipe.read("quick", [{"tgt": "ha"}]).tasks == ("ner", "pos", "nli", "qa")
    for preset in ("quick", "paper"):
        build = recipe.read(preset, [{"tgt": "pcm", "tasks": "dp"}])
        assert build.tasks == ("dp",) and "dp" in build.teach
    published = build.phase2("dp")
    assert (published.full_epochs, published.sparse_epochs, published.density) == (10, 10, 0.08)
    assert (published.tuning.learning_rate, published.tuning.batch_size, published.copy_head) == (5e-5, 8, False)


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (("--tasks", "nre"), "ner, pos, nli, qa"),
        (("student.layer_reduction_factor=3",), "1, 2, 4"),
        (("phase1.stepz=3",), "phase1.stepz"),
        (("--preset", "fast"), "paper, quick"),
        (("phase1.objective.hiden=1.0",), "hidden_states"),
        (("export.precisions=int4",), "export.precisions: unknown precision 'int4'; choose from: fp32, int8"),
        (("export.engines=foo",), "export.precisions: unknown engine 'foo'; choose from: onnx"),
        (("phase1.sequence_length=65",), "phase1.sequence_length = 65: the teacher has 64 positions"),
        (("--tasks", "ner", "teach.ner.max_length=65"), "teach.ner.max_length = 65: the teacher has 64 positions"),
    ],
)
def test_a_wrong_setting_is_an_error_that_lists_the_choices(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], extra: tuple[str, ...], told: str
) -> None:
    assert main(arguments(tmp_path, data, *extra)) == 2
    assert told in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (("export.engines=onnx,openvino",), "engines = openvino needs nncf: pip install openvino nncf"),
        (("--exporter", "optimum"), "there is no optimum-cli on the PATH: install `optimum-onnx[onnxruntime]`"),
        (("--exporter", "optimum", "--tasks", "ner,dp"), "optimum exports no dependency parser"),
    ],
)
def test_what_cannot_be_exported_here_is_told_before_the_work_starts(
    tmp_path: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    extra: tuple[str, ...],
    told: str,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("distill.openvino.find_spec", {"openvino": object()}.get)
    assert main(arguments(tmp_path, data, *extra)) == 2
    assert told in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "runs").exists()


def test_a_later_stage_alone_says_which_one_comes_first(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = arguments(tmp_path, data, "--tasks", "ner")
    assert main(["transfer", *command[1:]]) == 2
    assert "python -m distill distill" in capsys.readouterr().err


def test_verifying_an_empty_store_says_what_was_expected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path)]) == 2
    assert "manifest.json" in capsys.readouterr().err


@pytest.mark.slow
def test_a_bundle_may_have_the_pieces_of_the_target_alone_and_answers_as_before(tmp_path: Path, data: Path) -> None:
    """Against torch: the student and its tokenizer of the pair's vocabulary, on text whose pieces all survive."""
    small = ("--tasks", "ner", "student.threshold=1e-4", "export.vocabulary=target", "export.precisions=fp32")
    assert main(arguments(tmp_path, data, *small)) == 0
    bundle = Bundle.open(tmp_path / "store" / "ha" / "ner" / "1")
    source = tmp_path / "runs" / "en-ha" / "ner" / "transfer" / "model"
    pair, target = Tokenizer.from_file(str(source / "tokenizer.json")), bundle.tokenizer()
    kept, all_of_pair = set(target.get_vocab()), set(pair.get_vocab())
    assert kept < all_of_pair and "<mask>" in kept
    item = TokenItem("Aisha ta tafi Kano jiya.")
    assert target.encode(item.text).tokens == pair.encode(item.text).tokens
    model = open_model(source, training_task("ner"), dropout=0.0, attn_implementation="eager", seed=0).eval()
    manifest = bundle.manifest
    lengths = {"max_length": manifest.max_length, "stride": manifest.stride, "pad_id": manifest.pad_id}
    before = predictor_for(model, pair, training_task("ner"), **{**lengths, "pad_id": int(model.config.pad_token_id)})
    predictor: Predictor[Any, Any] = Predictor.open(bundle.folder)
    (found,), (expected,) = predictor.predict([item]), before.predict([item])
    predictor.close()
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
