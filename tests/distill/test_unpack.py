import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from app.errors import DataError
from distill.__main__ import main
from distill.teacher import load_teacher
from distill.unpack import dequantise, read

WIDTH, LAYERS, HEADS, INNER, POSITIONS = 32, 2, 2, 64, 10
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁ya", "ra", "▁", "<mask>"]
ROWS = len(PIECES) + 3


def quantised(shape: tuple[int, ...], generator: np.random.Generator) -> tuple[bytes, np.ndarray]:
    """Random 4-bit weights as the file holds them, and the values they stand for, worked out one by one."""
    blocks, values = b"", []
    for _ in range(int(np.prod(shape)) // 32):
        scale = np.float16(generator.uniform(0.01, 0.1))
        quants = generator.integers(0, 16, 32)
        blocks += scale.tobytes() + bytes(int(quants[i]) | int(quants[i + 16]) << 4 for i in range(16))
        values += [float(scale) * (int(q) - 8) for q in quants]
    return blocks, np.array(values, np.float32).reshape(shape)


def write(path: Path) -> dict[str, np.ndarray]:
    """A file of the format with a tiny model in it; what its tensors hold."""
    generator = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"emb.word": (ROWS, WIDTH)}
    plain: dict[str, tuple[int, ...]] = {
        "emb.pos": (POSITIONS, WIDTH),
        "emb.type": (2, WIDTH),
        "emb.ln.w": (WIDTH,),
        "emb.ln.b": (WIDTH,),
    }
    for layer in range(LAYERS):
        for name in ("q", "k", "v", "ao"):
            shapes[f"l{layer}.{name}.w"], plain[f"l{layer}.{name}.b"] = (WIDTH, WIDTH), (WIDTH,)
        shapes[f"l{layer}.fi.w"], plain[f"l{layer}.fi.b"] = (INNER, WIDTH), (INNER,)
        shapes[f"l{layer}.fo.w"], plain[f"l{layer}.fo.b"] = (WIDTH, INNER), (WIDTH,)
        for name in ("aln", "oln"):
            plain[f"l{layer}.{name}.w"] = plain[f"l{layer}.{name}.b"] = (WIDTH,)
    held: dict[str, np.ndarray] = {}
    raw: dict[str, tuple[int, bytes]] = {}
    for name, shape in shapes.items():
        blocks, held[name] = quantised(shape, generator)
        raw[name] = (1, blocks)
    for name, shape in plain.items():
        held[name] = generator.normal(size=shape).astype(np.float32)
        raw[name] = (0, held[name].tobytes())
    texts = [piece.encode() for piece in PIECES]
    offsets = np.cumsum([0, *map(len, texts)]).astype("<u4")
    head = b"E5S1" + struct.pack("<I7ifi", 1, WIDTH, LAYERS, HEADS, INNER, ROWS, POSITIONS, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, int(offsets[-1])) + offsets.tobytes()
    head += np.zeros(len(PIECES), "<f4").tobytes() + b"".join(texts) + struct.pack("<iI", 1, 5) + b"\0\0\0\0\0"
    size = len(head) + 4 + sum(2 + len(name) + 21 for name in raw)
    directory, body = struct.pack("<i", len(raw)), b""
    for name, (kind, data) in raw.items():
        entry = struct.pack("<BIQQ", kind, held[name].size, size + len(body), len(data))
        directory += struct.pack("<H", len(name)) + name.encode() + entry
        body += data
    path.write_bytes(head + directory + body)
    return held


def write_tokenizer(path: Path, pieces: list[str]) -> None:
    tokenizer = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.save(str(path))


def bert(held: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """The file's own model, BERT with positions from 0, written out in numpy. Shape: (n,) -> (n, width)."""

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled: np.ndarray = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        result: np.ndarray = scaled * held[f"{name}.w"] + held[f"{name}.b"]
        return result

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        result: np.ndarray = x @ held[f"{name}.w"].T + held[f"{name}.b"]
        return result

    x = norm(held["emb.word"][ids] + held["emb.pos"][: len(ids)] + held["emb.type"][0], "emb.ln")
    for layer in range(LAYERS):
        q, k, v = (
            linear(x, f"l{layer}.{name}").reshape(len(ids), HEADS, -1).transpose(1, 0, 2) for name in ("q", "k", "v")
        )
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(WIDTH / HEADS)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(ids), WIDTH)
        x = norm(x + linear(mixed, f"l{layer}.ao"), f"l{layer}.aln")
        inner = torch.nn.functional.gelu(torch.from_numpy(linear(x, f"l{layer}.fi"))).numpy()
        x = norm(x + linear(inner, f"l{layer}.fo"), f"l{layer}.oln")
    return x


def test_four_bit_blocks_are_low_halves_then_high_halves_around_eight() -> None:
    raw = np.float16(0.5).tobytes() + bytes([0x1F] + [0x88] * 15)
    values = dequantise(np.frombuffer(raw, np.uint8))
    assert values[0] == 0.5 * (15 - 8) and values[16] == 0.5 * (1 - 8)
    assert not values[[*range(1, 16), *range(17, 32)]].any()


def test_the_unpacked_teacher_computes_what_the_packed_model_does(tmp_path: Path) -> None:
    held = write(tmp_path / "packed.bin")
    write_tokenizer(tmp_path / "tokenizer.json", PIECES)
    arguments = [str(tmp_path / "packed.bin"), str(tmp_path / "tokenizer.json"), "--out", str(tmp_path / "teacher")]
    assert main(["unpack", *arguments]) == 0
    model, tokenizer = load_teacher(tmp_path / "teacher")
    assert tokenizer.mask_token_id == 7 and tokenizer.pad_token_id == 1
    ids = [0, 4, 5, 6, 2]
    with torch.no_grad():
        states = model.base_model(torch.tensor([[*ids, 1]]), torch.tensor([[1] * 5 + [0]])).last_hidden_state[0, :5]
    np.testing.assert_allclose(states.numpy(), bert(held, ids), atol=2e-2)


def test_a_foreign_or_cut_file_and_foreign_pieces_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = tmp_path / "packed.bin"
    write(held)
    (tmp_path / "cut.bin").write_bytes(held.read_bytes()[:300])
    (tmp_path / "foreign.bin").write_bytes(b"GGUF" + bytes(64))
    for name in ("cut.bin", "foreign.bin", "none.bin"):
        with pytest.raises(DataError, match=name):
            read(tmp_path / name)
    write_tokenizer(tmp_path / "tokenizer.json", [*PIECES[:5], "bla", *PIECES[6:]])
    assert main(["unpack", str(held), str(tmp_path / "tokenizer.json"), "--out", str(tmp_path / "teacher")]) == 2
    assert "other pieces" in capsys.readouterr().err and not (tmp_path / "teacher").exists()
