from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import transformers
from onnx import TensorProto, helper, numpy_helper

from app.engines.onnx import Engine
from app.rows import Tensors
from distill.export import export_onnx, scopes, torch_outputs
from distill.quantize import by_column, by_row, quantize
from distill.smoothing import Linear, channel_maxima, smoothing_factors
from tests.distill import tiny
from tests.distill.test_export import batch, model_of

LENGTHS = (9, 30, 17, 5)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("teachers")
    for family in tiny.FAMILIES:
        tiny.tiny_teacher(family, root / family, layers=2)
    return root


@pytest.mark.parametrize(
    ("family", "head"),
    [
        ("bert", "SequenceClassification"),
        ("xlm-roberta", "TokenClassification"),
        ("deberta-v2", "QuestionAnswering"),
        ("xlm-roberta", "DependencyParsing"),
    ],
)
def test_int8_is_close_to_torch_and_leaves_the_head_in_float(
    teachers: Path, tmp_path: Path, family: str, head: str
) -> None:
    model = model_of(teachers, family, head)
    fp32, int8 = tmp_path / "model.onnx", tmp_path / "model_int8.onnx"
    export_onnx(model, fp32)
    quantize(fp32, int8, calibration=[batch(model, 4, 24, seed=seed) for seed in range(1, 5)])

    tensors = batch(model, 1, 30)
    answers = Engine.open(tmp_path, file=int8.name, threads=1).run(tensors)
    for name, expected in torch_outputs(model, tensors).items():
        assert np.corrcoef(answers[name].ravel().astype(float), expected.ravel().astype(float))[0, 1] > 0.99, name

    nodes = list(onnx.load(int8).graph.node)
    heads = [node for node in nodes if {"classifier", "qa_outputs", "parser", "pooler"} & set(scopes(node))]
    assert {"MatMul", "Gemm"} & {node.op_type for node in heads}
    assert not [node for node in heads if "Integer" in node.op_type or node.op_type == "QuantizeLinear"]
    float_nodes = [node for node in onnx.load(fp32).graph.node if node.op_type == "LayerNormalization"]
    assert len([node for node in nodes if node.op_type == "LayerNormalization"]) == len(float_nodes)
    stored = {tensor.name: tensor.data_type for tensor in onnx.load(int8).graph.initializer}
    assert [node.input[1] for node in nodes if node.op_type == "MatMulIntegerToFloat"]
    linear = [node for node in nodes if node.op_type == "MatMul" and node.input[1] in stored and node not in heads]
    assert not linear


def test_an_answer_is_the_same_alone_and_in_any_batch(teachers: Path, tmp_path: Path) -> None:
    model = model_of(teachers, "xlm-roberta", "TokenClassification")
    export_onnx(model, tmp_path / "model.onnx")
    calibration = [batch(model, 4, 24, seed=seed) for seed in range(1, 5)]
    quantize(tmp_path / "model.onnx", tmp_path / "model_int8.onnx", calibration=calibration)
    engine = Engine.open(tmp_path, file="model_int8.onnx", threads=1)
    rows = [batch(model, 1, length, seed=9) for length in LENGTHS]
    alone = [engine.run(row)["logits"][0] for row in rows]
    for order in ([0, 1], [2, 0, 3], [3, 2, 1, 0]):
        together = _padded([rows[place] for place in order], pad_id=int(model.config.pad_token_id or 0))
        for place, values in zip(order, engine.run(together)["logits"], strict=True):
            np.testing.assert_allclose(values[: LENGTHS[place]], alone[place], atol=1e-5)


def test_rows_are_quantised_as_worked_out_in_numpy(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(6, 4)).astype(np.float32)
    fp32 = _product(tmp_path / "model.onnx", weight)
    x = generator.normal(size=(2, 3, 6)).astype(np.float32)
    x[..., 2] *= 50
    calibration: list[Tensors] = [{"x": x, "attention_mask": np.ones((2, 3), np.int64)}]
    quantize(fp32, tmp_path / "int8.onnx", calibration=calibration, alpha=0.5)

    factor = np.sqrt(np.abs(x).max((0, 1)) / np.abs(weight).max(1))
    smooth = x / factor
    row = np.abs(smooth).max(-1, keepdims=True) / 127
    loud = weight * factor[:, None]
    column = (np.abs(loud[::2]) + np.abs(loud[1::2])).max(0) / 127
    expected = (np.round(smooth / row) @ np.round(loud / column)) * row * column
    answer = Engine.open(tmp_path, file="int8.onnx", threads=1)._session.run(None, {"x": x})[0]
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-4)


def test_a_row_of_zeros_gives_zeros(tmp_path: Path) -> None:
    fp32 = _product(tmp_path / "model.onnx", np.ones((4, 2), np.float32))
    x = np.ones((1, 2, 4), np.float32)
    quantize(fp32, tmp_path / "int8.onnx", calibration=[{"x": x, "attention_mask": np.ones((1, 2), np.int64)}])
    engine = Engine.open(tmp_path, file="int8.onnx", threads=1)
    assert not engine._session.run(None, {"x": np.zeros_like(x)})[0].any()


def test_smoothing_tames_loud_channels(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(64, 32)).astype(np.float32)
    x = generator.normal(size=(4, 16, 64)).astype(np.float32)
    x[..., [5, 40]] *= 60
    calibration: list[Tensors] = [{"x": x, "attention_mask": np.ones((4, 16), np.int64)}]
    fp32 = _product(tmp_path / "model.onnx", weight)
    errors = {}
    for alpha in (0.0, 0.5):
        quantize(fp32, tmp_path / "int8.onnx", calibration=calibration, alpha=alpha)
        answer = Engine.open(tmp_path, file="int8.onnx", threads=1)._session.run(None, {"x": x})[0]
        errors[alpha] = np.abs(answer - x @ weight).mean()
    assert errors[0.5] < 0.5 * errors[0.0]


def test_maxima_leave_padding_out(tmp_path: Path) -> None:
    model = onnx.load(_product(tmp_path / "model.onnx", np.ones((2, 2), np.float32)))
    x = np.array([[[1, -3], [2, 0], [99, 99]]], np.float32)
    batches: list[Tensors] = [{"x": x, "attention_mask": np.array([[1, 1, 0]])}]
    assert channel_maxima(model, ["x"], batches)["x"].tolist() == [2, 3]


def test_layers_that_meet_share_a_factor_and_silent_channels_keep_their_range(tmp_path: Path) -> None:
    model = onnx.load(_product(tmp_path / "model.onnx", np.ones((2, 2), np.float32)))
    x = np.array([[[4, 0]]], np.float32)
    quiet, loud = np.full((2, 1), 1, np.float32), np.full((2, 1), 16, np.float32)
    linears = [Linear("x", "quiet", "a", quiet), Linear("x", "loud", "b", loud)]
    factors = smoothing_factors(model, linears, [{"x": x, "attention_mask": np.ones((1, 1), np.int64)}], alpha=0.5)
    np.testing.assert_allclose(factors["x"], [0.5, 1.0])


def test_no_two_neighbouring_weights_overflow_16_bits() -> None:
    weight = np.random.default_rng(0).normal(size=(33, 50)).astype(np.float32)
    values, scales = by_column(weight)
    pairs = np.abs(np.pad(values.astype(int), ((0, 1), (0, 0)))).reshape(-1, 2, 50).sum(1)
    assert (255 * pairs).max() < 2**15
    assert np.abs(values * scales - weight).max() <= 0.5 * scales.max() * 1.001


def test_embeddings_keep_half_a_step_of_their_row() -> None:
    table = np.random.default_rng(0).normal(size=(9, 16)).astype(np.float32) * np.arange(9)[:, None].astype(np.float32)
    values, scales = by_row(table)
    assert values.dtype == np.int8 and not values[0].any()
    assert (np.abs(values * scales - table) <= 0.501 * scales).all()


def test_int8_is_about_a_quarter_of_the_size(tmp_path: Path) -> None:
    config = transformers.XLMRobertaConfig(
        vocab_size=3000,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=130,
        type_vocab_size=1,
    )
    model = transformers.XLMRobertaForTokenClassification(config)
    fp32, int8 = tmp_path / "model.onnx", tmp_path / "model_int8.onnx"
    export_onnx(model, fp32)
    quantize(fp32, int8, calibration=[batch(model, 2, 16)])
    assert int8.stat().st_size < 0.3 * fp32.stat().st_size


def _product(path: Path, weight: np.ndarray) -> Path:
    """A model that multiplies (rows, length, k) floats by a weight."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length", weight.shape[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "length", weight.shape[1]])
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    graph = helper.make_graph([node], "product", [x], [y], [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def _padded(rows: list[Tensors], *, pad_id: int) -> Tensors:
    longest = max(row["input_ids"].shape[1] for row in rows)
    fill: dict[str, Any] = {"input_ids": pad_id, "attention_mask": 0, "token_type_ids": 0}
    return {
        name: np.concatenate(
            [np.pad(row[name], ((0, 0), (0, longest - row[name].shape[1])), constant_values=value) for row in rows]
        )
        for name, value in fill.items()
    }
