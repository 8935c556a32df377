"""The live proof as a Prometheus sees it, against the offline measure of the same two engines."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from app.bench.contenders import single
from app.bench.engine import BareEngine
from app.bench.live import live
from app.bench.texts import texts
from app.bundle import write
from app.errors import ConfigError
from distill.benchmark import compare
from tests.app import tiny

WIDTH = 192


def deep(n_layers: int) -> onnx.ModelProto:
    """A tagger whose time is that of its ``n_layers`` products with one square matrix, which stays in cache."""
    random = np.random.default_rng(0)
    n_pieces = tiny.xlmr().get_vocab_size()
    sizes = {"table": (n_pieces, WIDTH), "square": (WIDTH, WIDTH), "head": (WIDTH, len(tiny.NER_LABELS))}
    constants = {name: random.normal(0, WIDTH**-0.5, size).astype(np.float32) for name, size in sizes.items()}
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["x0"], axis=0)]
    for layer in range(n_layers):
        nodes.append(helper.make_node("MatMul", [f"x{layer}", "square"], [f"y{layer}"]))
        nodes.append(helper.make_node("Relu", [f"y{layer}"], [f"x{layer + 1}"]))
    nodes.append(helper.make_node("MatMul", [f"x{n_layers}", "head"], ["logits"]))
    shape = ["rows", "length"]
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, shape)],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [*shape, len(tiny.NER_LABELS)])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def bundle(folder: Path, *, n_layers: int) -> Path:
    staged = folder / f"staged-{n_layers}"
    staged.mkdir()
    onnx.save(deep(n_layers), str(staged / "model.onnx"))
    tiny.xlmr().save(str(staged / "tokenizer.json"))
    return write(staged, tiny.manifest("ner"), store=folder / f"store-{n_layers}")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus: apt-get install prometheus")
def test_the_live_proof_from_prometheus_is_within_a_tenth_of_the_offline_ratio(tmp_path: Path) -> None:
    student, teacher = (bundle(tmp_path, n_layers=n_layers) for n_layers in (8, 24))
    asked = texts(tiny.xlmr(), 64, longest=60)
    engines = [BareEngine(folder, asked, variant="", threads=1) for folder in (teacher, student)]
    pairs = []
    for _ in range(3):  # what else runs on the machine may disturb one of the two
        said = live(
            tmp_path / "store-8",
            tmp_path / "store-24",
            single(asked),
            path="/v1/ha/ner",
            variant="fp32",
            threads=1,
            seconds=5.0,
        )
        assert said.low <= said.mean <= said.high
        offline = compare(engines[0].engine, engines[1].engine, engines[1].batches(waiting=1), rounds=8)["speedup"]
        pairs.append((said.mean, offline))
        if abs(said.mean / offline - 1) < 0.1:
            break
    else:
        pytest.fail(f"from Prometheus and offline: {pairs}")
    assert said.mean > 1.5


def test_without_prometheus_it_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="apt-get install prometheus"):
        live(tmp_path, tmp_path, [], path="/v1/ha/ner", variant="", threads=1, seconds=1.0)
