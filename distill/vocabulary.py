"""Vocabulary trimming: count pieces, select those two languages use, cut tokenizer and embeddings to them together.

`kept` is everywhere the same thing: the sorted old ids; a piece's new id is its position in `kept`.
"""

import copy
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedModel

from app.errors import ConfigError, DataError, UnknownChoice
from distill import charsmap
from distill.teacher import load_teacher, load_tokenizer, wrap

KEPT = "kept.npy"

_BATCH = 1024
_WORD_MARKS = ("▁", "##", "Ġ")
_PAD_TOKENS = ("<pad>", "[PAD]")


def count(tokenizer: Tokenizer | Path, texts: Iterable[str]) -> np.ndarray:
    """Count every piece in one streaming pass, without special tokens and without truncation.

    Shape: (largest id + 1,) int64. Raises DataError when no text gives a piece.
    """
    backend = _untruncated(tokenizer)
    n_ids = 1 + max(backend.get_vocab(with_added_tokens=True).values())
    counts = np.zeros(n_ids, dtype=np.int64)
    for batch in _batches(texts):
        encodings = backend.encode_batch_fast(batch, add_special_tokens=False)
        ids = np.fromiter(itertools.chain.from_iterable(e.ids for e in encodings), dtype=np.int64)
        counts += np.bincount(ids, minlength=n_ids)
    if not counts.any():
        raise DataError("the text to count is empty: not one piece in it")
    return counts


def select(
    counts: Mapping[str, np.ndarray],
    tokenizer: Tokenizer | Path,
    *,
    threshold: float = 1e-6,
    keep_characters: bool = True,
) -> np.ndarray:
    """Choose the ids to keep: the largest share over the languages reaches `threshold`, or the piece is protected.

        p_l(v) = c_l(v) / sum_u c_l(u);   kept = {v : max_l p_l(v) >= threshold} + protected

    The maximum makes the choice independent of how much text each language has. Protected are special and added tokens,
    byte pieces, the ids up to the padding token's (RoBERTa counts positions from it), the pieces a kept BPE piece is
    merged from, Unigram's least likely piece (it sets the score of the unknown), and with `keep_characters` every piece
    of one character. Shape: (kept,) int64, ascending. Raises ConfigError for a threshold outside [0, 1).
    """
    if not 0 <= threshold < 1:
        raise ConfigError(f"threshold = {threshold}: expected a share of a language's pieces, at least 0 and below 1")
    backend = _backend(tokenizer)
    pieces = backend.get_vocab(with_added_tokens=True)
    kept = {int(i) for c in counts.values() for i in np.flatnonzero((c > 0) & (c >= threshold * c.sum()))}
    state = json.loads(backend.to_str())
    kept |= _protected(state, pieces)
    if keep_characters:
        kept |= {i for piece, i in pieces.items() if len(_bare(piece)) <= 1}
    if state["model"]["type"] == "BPE":
        kept |= _merged_from(state["model"], kept)
    return np.array(sorted(kept & set(pieces.values())), dtype=np.int64)


def trim(model_folder: str | Path, kept: np.ndarray, out: Path, *, sample: Sequence[str] = ()) -> Path:
    """Write the teacher in `model_folder` cut to `kept`: weights, config, tokenizer and kept.npy. Returns `out`.

    Everything is written beside `out` and renamed, so `out` is complete or absent. Texts of `sample` whose pieces all
    survive must get the same pieces afterwards. Raises DataError if `out` exists, the disk is full, or a check fails.
    """
    out = Path(out)
    if out.exists():
        raise DataError(f"{out} exists already: a trimmed teacher is never overwritten")
    model, tokenizer = load_teacher(model_folder)
    trimmed = wrap(trim_tokenizer(tokenizer.backend_tokenizer, kept), like=tokenizer)
    check(tokenizer.backend_tokenizer, trimmed.backend_tokenizer, kept, sample=sample)
    slice_embeddings(model, kept)

    out.parent.mkdir(parents=True, exist_ok=True)
    needed = 4 * model.num_parameters() + 2**20
    if (free := shutil.disk_usage(out.parent).free) < needed:
        raise DataError(f"no disk space for {out}: {needed >> 20} MiB needed, {free >> 20} MiB free")
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        model.save_pretrained(staging)
        save_tokenizer(trimmed, staging)
        np.save(staging / KEPT, kept)
        check(tokenizer.backend_tokenizer, load_tokenizer(staging).backend_tokenizer, kept, sample=sample)
        staging.chmod(0o755)
        os.rename(staging, out)
    except OSError as error:
        raise DataError(f"the trimmed teacher cannot be written to {out}: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return out


def slice_embeddings(model: PreTrainedModel, kept: np.ndarray) -> PreTrainedModel:
    """Cut a model's embedding, output layer and output bias to the rows `kept`, in place, and return it.

    Serves any model of the same multilingual family: the teacher, or a task teacher tuned from it. Every `*_token_id`
    of the config and of the generation config is renumbered. Raises DataError where the ids do not fit the matrix.
    """
    embedding = cast(nn.Embedding, model.get_input_embeddings())
    n_rows = embedding.num_embeddings
    if len(kept) == 0 or kept[0] < 0 or kept[-1] >= n_rows or np.any(np.diff(kept) <= 0):
        raise DataError(f"kept ids must be ascending and below {n_rows}, the number of embedding rows")
    new_ids = old_to_new(kept, n_rows)
    _check_pad(model, new_ids)

    rows = torch.from_numpy(kept).to(embedding.weight.device)
    cut: dict[int, nn.Parameter] = {}
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        module, leaf = _owner(model, name)
        of_head = not name.startswith(f"{model.base_model_prefix}.") and module is not model.base_model
        if module is embedding or (of_head and _is_output(module, leaf, parameter, n_rows)):
            if id(parameter) not in cut:
                new = parameter.detach().index_select(0, rows).clone()
                cut[id(parameter)] = nn.Parameter(new, requires_grad=parameter.requires_grad)
            setattr(module, leaf, cut[id(parameter)])
            if isinstance(module, nn.Linear):
                module.out_features = len(kept)
    embedding.num_embeddings = len(kept)
    if embedding.padding_idx is not None:
        embedding.padding_idx = int(new_ids[embedding.padding_idx])
    _renumber(model.config, new_ids)
    model.config.vocab_size = len(kept)
    if getattr(model, "generation_config", None) is not None:
        _renumber(model.generation_config, new_ids)
    model.tie_weights()
    return model


def trim_tokenizer(tokenizer: Tokenizer, kept: np.ndarray) -> Tokenizer:
    """A copy of the tokenizer that has the pieces `kept` alone, numbered 0, 1, 2, … in their old order.

    Handles Unigram, WordPiece and BPE; scores and merges stay. A SentencePiece normaliser keeps what concerns the
    characters of these pieces. Stored truncation and padding are dropped.
    """
    state = json.loads(tokenizer.to_str())
    new_ids = {int(old): new for new, old in enumerate(kept)}
    _trim_model(state["model"], new_ids)
    if not state["model"].get("byte_fallback"):
        charsmap.prune(state["normalizer"], _alphabet(state["model"]))
    state["added_tokens"] = [t | {"id": new_ids[t["id"]]} for t in state["added_tokens"] if t["id"] in new_ids]
    state["truncation"] = state["padding"] = None
    _renumber_processor(state.get("post_processor"), new_ids)
    return Tokenizer.from_str(json.dumps(state, ensure_ascii=False))


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write tokenizer.json and a config that makes AutoTokenizer, of transformers 4 and 5, take that file as it is."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    stated = json.loads(path.read_text(encoding="utf-8"))
    stated["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(stated, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check(before: Tokenizer, after: Tokenizer, kept: np.ndarray, *, sample: Sequence[str] = ()) -> None:
    """Compare a trimmed tokenizer with its origin; raises DataError on any difference.

    Every new id is below len(kept) and names the piece kept[id] named; a text whose pieces survive keeps them.
    """
    old, new = before.get_vocab(with_added_tokens=True), after.get_vocab(with_added_tokens=True)
    names = {i: piece for piece, i in old.items()}
    wrong = [i for piece, i in new.items() if i >= len(kept) or names.get(int(kept[i])) != piece]
    if wrong or len(new) != len(kept):
        raise DataError(f"trimming misnumbered the tokenizer: {len(wrong)} wrong ids, {len(new)} of {len(kept)} pieces")
    new_ids = old_to_new(kept, 1 + max(old.values()))
    for text in sample:
        expected = new_ids[_untruncated(before).encode(text).ids]
        if (expected >= 0).all() and after.encode(text).ids != expected.tolist():
            raise DataError("trimming changed the pieces of a text whose pieces all survive")


def unknown_id(tokenizer: Tokenizer) -> int:
    """The id of the unknown token, -1 where there is none."""
    return _unknown(json.loads(tokenizer.to_str())["model"], tokenizer)


def unk_rate(tokenizer: Tokenizer | Path, texts: Iterable[str]) -> float:
    """The share of the pieces of `texts` that are the unknown token, between 0 and 1."""
    backend = _untruncated(tokenizer)
    unknown = unknown_id(backend)
    n_pieces = n_unknown = 0
    for batch in _batches(texts):
        for encoding in backend.encode_batch_fast(batch, add_special_tokens=False):
            n_pieces += len(encoding.ids)
            n_unknown += encoding.ids.count(unknown)
    return n_unknown / max(n_pieces, 1)


def old_to_new(kept: np.ndarray, n_old: int) -> np.ndarray:
    """New id of each old id, -1 where it was dropped. Shape: (n_old,) int64."""
    new_ids = np.full(n_old, -1, dtype=np.int64)
    new_ids[kept] = np.arange(len(kept))
    return new_ids


def load_kept(folder: Path) -> np.ndarray:
    """Read the kept ids beside a trimmed model. Raises DataError."""
    try:
        return cast(np.ndarray, np.load(folder / KEPT, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} has no readable {KEPT}: it is no trimmed teacher") from error


def _backend(tokenizer: Tokenizer | Path) -> Tokenizer:
    return tokenizer if isinstance(tokenizer, Tokenizer) else load_tokenizer(tokenizer).backend_tokenizer


def _untruncated(tokenizer: Tokenizer | Path) -> Tokenizer:
    backend = _backend(tokenizer)
    if backend.truncation is None and backend.padding is None:
        return backend
    backend = copy.deepcopy(backend)
    backend.no_truncation()
    backend.no_padding()
    return backend


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    texts = iter(texts)
    while batch := list(itertools.islice(texts, _BATCH)):
        yield batch


def _bare(piece: str) -> str:
    for mark in _WORD_MARKS:
        if piece.startswith(mark):
            return piece[len(mark) :]
    return piece.removesuffix("</w>")


def _protected(state: dict[str, Any], pieces: Mapping[str, int]) -> set[int]:
    model = state["model"]
    kept = {int(token["id"]) for token in state["added_tokens"]}
    kept |= {pieces[name] for name in (model.get("unk_token"),) if name in pieces}
    kept |= {i for piece, i in pieces.items() if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")}
    for pad in _PAD_TOKENS:
        kept |= set(range(pieces.get(pad, -1) + 1))
    if model["type"] == "Unigram":
        kept.add(int(np.argmin([score for _, score in model["vocab"]])))
        if model["unk_id"] is not None:
            kept.add(int(model["unk_id"]))
    return kept


def _merged_from(model: dict[str, Any], kept: set[int]) -> set[int]:
    vocab = model["vocab"]
    parts: dict[str, list[str]] = {}
    for left, right in _merges(model):
        parts.setdefault(_joined(model, left, right), []).extend((left, right))
    waiting = [piece for piece, i in vocab.items() if i in kept]
    reached = set(waiting)
    while waiting:
        new = set(parts.get(waiting.pop(), ())) - reached
        reached |= new
        waiting.extend(new)
    return {vocab[piece] for piece in reached if piece in vocab}


def _merges(model: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right


def _joined(model: dict[str, Any], left: str, right: str) -> str:
    return left + right.removeprefix(model.get("continuing_subword_prefix") or "")


def _trim_model(model: dict[str, Any], new_ids: Mapping[int, int]) -> None:
    match model["type"]:
        case "Unigram":
            model["vocab"] = [entry for i, entry in enumerate(model["vocab"]) if i in new_ids]
            if model["unk_id"] is not None:
                if model["unk_id"] not in new_ids:
                    raise DataError("the kept ids must contain the tokenizer's unknown token")
                model["unk_id"] = new_ids[model["unk_id"]]
        case "WordPiece" | "BPE":
            vocab = sorted(((i, piece) for piece, i in model["vocab"].items() if i in new_ids))
            model["vocab"] = {piece: new_ids[i] for i, piece in vocab}
            if model["type"] == "BPE":
                model["merges"] = [
                    [left, right]
                    for left, right in _merges(model)
                    if {left, right, _joined(model, left, right)} <= model["vocab"].keys()
                ]
        case other:
            raise UnknownChoice("tokenizer model", other, ("BPE", "Unigram", "WordPiece"))


def _alphabet(model: dict[str, Any]) -> set[str]:
    """The characters of the pieces, in both cases, and the space that stands for the mark of a word's start."""
    pieces = (piece for piece, _ in model["vocab"]) if model["type"] == "Unigram" else model["vocab"]
    characters = set().union(*pieces)
    return {" ", *characters, *map(str.lower, characters), *map(str.upper, characters)}


def _renumber_processor(processor: dict[str, Any] | None, new_ids: Mapping[int, int]) -> None:
    if processor is None:
        return
    for inner in processor.get("processors", ()):
        _renumber_processor(inner, new_ids)
    for key in ("sep", "cls"):
        if key in processor:
            token, old = processor[key]
            processor[key] = [token, new_ids[old]]
    if processor["type"] == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            token["ids"] = [new_ids[old] for old in token["ids"]]


def _unknown(model: dict[str, Any], backend: Tokenizer) -> int:
    if model["type"] == "Unigram":
        return -1 if model["unk_id"] is None else int(model["unk_id"])
    unknown = backend.token_to_id(model["unk_token"]) if model.get("unk_token") else None
    return -1 if unknown is None else unknown


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf


def _is_output(module: nn.Module, leaf: str, parameter: nn.Parameter, n_rows: int) -> bool:
    """The output layer of a masked language model (its only linear layer of n_rows outputs), or the bias beside it."""
    if parameter.shape[0] != n_rows:
        return False
    return (isinstance(module, nn.Linear) and module.out_features != module.in_features) or leaf == "bias"


def _check_pad(model: PreTrainedModel, new_ids: np.ndarray) -> None:
    pad = model.config.pad_token_id
    if pad is None:
        return
    if new_ids[pad] < 0:
        raise DataError(f"the kept ids must contain the padding token's, {pad}")
    if "roberta" in model.config.model_type and new_ids[pad] != pad:
        raise DataError(f"the padding token must keep its id {pad}: this family counts positions from it")


def _renumber(config: Any, new_ids: np.ndarray) -> None:
    for name, value in config.to_dict().items():
        if not name.endswith("_token_id") or value is None:
            continue
        old = value if isinstance(value, list) else [value]
        new = [int(new_ids[i]) for i in old if 0 <= i < len(new_ids) and new_ids[i] >= 0]
        setattr(config, name, new if isinstance(value, list) else (new[0] if new else None))
