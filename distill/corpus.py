"""Plain text, one `<language>.txt[.xz]` a language, packed into equal blocks of token ids on disk."""

import hashlib
import json
import lzma
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, Features, Value, disable_progress_bars
from datasets import Sequence as Column
from datasets.arrow_writer import ArrowWriter
from tokenizers import Tokenizer

from app.errors import ConfigError, DataError
from distill import stage
from distill.layout import plain_first

Batch = dict[str, torch.Tensor]

SPLITS = ("train", "heldout")
_PACKED = "packed.json"

disable_progress_bars()


def files(folders: Sequence[Path], language: str) -> list[Path]:
    """The text files of one language, each plain or with .xz; the plain one where a folder has both.

    Raises DataError that names what was looked for.
    """
    wanted = [folder / f"{language}.txt{suffix}" for folder in folders for suffix in ("", ".xz")]
    found = plain_first(path for path in wanted if path.is_file())
    if not found:
        raise DataError(
            f"no text for language {language!r}: put one text a line (UTF-8) into one of "
            + ", ".join(str(path) for path in wanted)
        )
    return found


def lines(folders: Sequence[Path], language: str) -> Iterator[str]:
    """Every non-blank line of the language's files, stripped, in file order.

    Raises DataError on text that is not UTF-8, with the number of its line, and on files without a single line.
    """
    empty = True
    for path in files(folders, language):
        try:
            with (lzma.open if path.suffix == ".xz" else open)(path, "rt", encoding="utf-8") as stream:
                for line in stream:
                    if text := line.strip():
                        empty = False
                        yield text
        except UnicodeDecodeError as error:
            number = _undecodable(path)
            raise DataError(f"{path}:{number} is not UTF-8: convert the file, for example with iconv") from error
        except (lzma.LZMAError, EOFError) as error:
            raise DataError(f"{path} is no readable xz file: {error}") from error
    if empty:
        raise DataError(f"the text of language {language!r} is empty: {', '.join(map(str, files(folders, language)))}")


def _undecodable(path: Path) -> int:
    """The number of the first line that is not UTF-8."""
    number = 1
    with (lzma.open if path.suffix == ".xz" else open)(path, "rb") as stream:
        for line in stream:
            try:
                line.decode()
            except UnicodeDecodeError:
                break
            number += 1
    return number


def is_heldout(text: str, *, share: float) -> bool:
    """Whether a line belongs to the held-out part: decided by its content alone, so duplicates never straddle."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def pack(
    folders: Sequence[Path], language: str, tokenizer: Tokenizer, *, length: int, heldout: float, out: Path
) -> None:
    """Write `out/{train,heldout}.arrow`: blocks of exactly `length` ids, each line wrapped in its special tokens.

    Streams once through the text, in constant memory (BiStil 1.4: lines are concatenated and cut, so blocks hold no
    padding). A finished folder is left alone.
    """
    if is_packed(folders, language, tokenizer, length=length, heldout=heldout, out=out):
        return
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    encoder = Tokenizer.from_str(tokenizer.to_str())
    splits = {split: _Split(out / f"{split}.arrow", encoder, length=length) for split in SPLITS}
    for text in lines(folders, language):
        splits["heldout" if is_heldout(text, share=heldout) else "train"].add(text)
    for name, split in splits.items():
        if split.close() == 0:
            raise DataError(
                f"the {name} part of the {language!r} text holds less than one block of {length} tokens: "
                "give more text, a shorter sequence_length or a larger heldout share"
            )
    fingerprint = _fingerprint(folders, language, tokenizer, length, heldout)
    stage.write(out / _PACKED, json.dumps({"fingerprint": fingerprint}))


def is_packed(
    folders: Sequence[Path], language: str, tokenizer: Tokenizer, *, length: int, heldout: float, out: Path
) -> bool:
    """Whether `pack` has written all of it."""
    done = out / _PACKED
    wanted = _fingerprint(folders, language, tokenizer, length, heldout)
    return done.is_file() and json.loads(done.read_text())["fingerprint"] == wanted


def _fingerprint(folders: Sequence[Path], language: str, tokenizer: Tokenizer, length: int, heldout: float) -> str:
    text = [(str(path), path.stat().st_size) for path in files(folders, language)]
    return hashlib.sha256(json.dumps([tokenizer.to_str(), length, heldout, text]).encode()).hexdigest()


class _Split:
    """One Arrow file of blocks in the making."""

    def __init__(self, path: Path, encoder: Tokenizer, *, length: int) -> None:
        features = Features({"ids": Column(Value("int32"), length=length)})
        self.writer = ArrowWriter(path=str(path), features=features)
        self.encoder, self.length, self.blocks = encoder, length, 0
        self.texts: list[str] = []
        self.rest = np.zeros(0, dtype=np.int32)

    def add(self, text: str) -> None:
        self.texts.append(text)
        if len(self.texts) == 1000:
            self._flush()

    def close(self) -> int:
        """The number of blocks written."""
        self._flush()
        self.writer.finalize()
        return self.blocks

    def _flush(self) -> None:
        encoded = [np.asarray(found.ids, dtype=np.int32) for found in self.encoder.encode_batch_fast(self.texts)]
        ids = np.concatenate([self.rest, *encoded])
        whole = len(ids) // self.length
        if whole:
            blocks = pa.FixedSizeListArray.from_arrays(pa.array(ids[: whole * self.length]), self.length)
            self.writer.write_batch({"ids": blocks})
        self.rest, self.texts, self.blocks = ids[whole * self.length :].copy(), [], self.blocks + whole


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Random access to the packed blocks of one language and split."""

    language: str
    ids: Dataset

    @classmethod
    def open(cls, folder: Path, language: str, split: str) -> "Blocks":
        return cls(language=language, ids=Dataset.from_file(str(folder / f"{split}.arrow")).with_format("numpy"))

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, ordinal: int, count: int, *, seed: int) -> np.ndarray:
        """Blocks number `ordinal` to `ordinal + count` of an endless reading, every epoch shuffled anew.

        Shape: (count, length).
        """
        places = range(ordinal, ordinal + count)
        rows = [int(_order(len(self), seed, place // len(self))[place % len(self)]) for place in places]
        return np.asarray(self.ids[rows]["ids"], dtype=np.int64)


_orders: dict[tuple[int, int, int], np.ndarray] = {}


def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    key = (n, seed, epoch)
    if key not in _orders:
        if len(_orders) > 256:
            _orders.clear()
        _orders[key] = np.random.default_rng([seed, epoch, n]).permutation(n)
    return _orders[key]


class MonolingualBatches:
    """Micro-batches of one language each: micro-batch `index` is a function of the seed and `index` alone.

    Languages come round in proportion to `shares` by error diffusion, so that any stretch of n micro-batches holds
    each language `share * n` times to within one (BiStil 1.4 with equal shares: 50/50).
    """

    def __init__(
        self,
        blocks: Sequence[Blocks],
        shares: Sequence[float],
        *,
        batch_size: int,
        seed: int,
        mask: "Masking | None",
    ) -> None:
        if len(blocks) != len(shares) or min(shares) <= 0:
            raise ConfigError("every language needs a positive share")
        self.blocks, self.batch_size, self.seed, self.mask = list(blocks), batch_size, seed, mask
        self.shares = np.asarray(shares, dtype=np.float64) / np.sum(shares)
        self._turns: list[int] = []
        self._counts = np.zeros(len(self.blocks), dtype=np.int64)
        self._ordinals: list[int] = []

    def language(self, index: int) -> str:
        """The language of micro-batch `index`."""
        self._extend(index)
        return self.blocks[self._turns[index]].language

    def __call__(self, index: int) -> Batch:
        """Shape: input_ids, attention_mask (and labels where masked) of (batch_size, length); language ().

        The language is the place of the micro-batch's among `blocks`.
        """
        self._extend(index)
        turn = self._turns[index]
        ids = torch.from_numpy(
            self.blocks[turn].take(self._ordinals[index] * self.batch_size, self.batch_size, seed=self.seed)
        )
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.mask is not None:
            batch = self.mask(ids, seed=hash((self.seed, index)) & 0x7FFFFFFF)
        return {**batch, "language": torch.tensor(turn)}

    def _extend(self, index: int) -> None:
        while len(self._turns) <= index:
            turn = int(np.argmax(self.shares * (len(self._turns) + 1) - self._counts))
            self._turns.append(turn)
            self._ordinals.append(int(self._counts[turn]))
            self._counts[turn] += 1


class MixedBatches:
    """Micro-batches whose rows come from all languages, in proportion to `shares`: a calmer gradient a token."""

    def __init__(
        self, blocks: Sequence[Blocks], shares: Sequence[float], *, batch_size: int, seed: int, mask: "Masking"
    ) -> None:
        self.rows = MonolingualBatches(blocks, shares, batch_size=1, seed=seed, mask=None)
        self.batch_size, self.seed, self.mask = batch_size, seed, mask

    def __call__(self, index: int) -> Batch:
        """Shape: input_ids, attention_mask, labels of (batch_size, length)."""
        places = range(index * self.batch_size, (index + 1) * self.batch_size)
        ids = torch.cat([self.rows(place)["input_ids"] for place in places])
        return self.mask(ids, seed=hash((self.seed, index)) & 0x7FFFFFFF)


@dataclass(frozen=True, kw_only=True)
class Masking:
    """BERT's corruption: of the chosen ordinary tokens 80 % become the mask, 10 % a random token, 10 % stay."""

    mask_id: int
    special_ids: tuple[int, ...]
    vocabulary: int
    share: float = 0.15

    @classmethod
    def of(cls, tokenizer: Any, *, share: float) -> "Masking":
        """For a transformers tokenizer. Raises ConfigError if it has no mask token."""
        if tokenizer.mask_token_id is None:
            raise ConfigError("the teacher's tokenizer has no mask token: it is no masked language model")
        return cls(
            mask_id=tokenizer.mask_token_id,
            special_ids=tuple(sorted(set(tokenizer.all_special_ids))),
            vocabulary=len(tokenizer),
            share=share,
        )

    def __call__(self, ids: torch.Tensor, *, seed: int) -> Batch:
        """Shape: ids (b, n) -> input_ids, attention_mask, labels (b, n); labels are -100 where nothing is predicted."""
        generator = torch.Generator().manual_seed(seed)
        ordinary = ~torch.isin(ids, torch.tensor(self.special_ids))
        chosen = (torch.rand(ids.shape, generator=generator) < self.share) & ordinary
        labels = torch.where(chosen, ids, -100)
        dice = torch.rand(ids.shape, generator=generator)
        random = torch.randint(self.vocabulary, ids.shape, generator=generator)
        corrupted = torch.where(dice < 0.8, torch.full_like(ids, self.mask_id), torch.where(dice < 0.9, random, ids))
        return {
            "input_ids": torch.where(chosen, corrupted, ids),
            "attention_mask": torch.ones_like(ids),
            "labels": labels,
        }


def temperature_shares(sizes: Mapping[str, int], *, alpha: float) -> dict[str, float]:
    """XLM's sampling: a language of n blocks is drawn with probability proportional to n ** alpha."""
    weights = {language: float(size) ** alpha for language, size in sizes.items()}
    total = sum(weights.values())
    return {language: weight / total for language, weight in weights.items()}
