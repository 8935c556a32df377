"""Masked-language-model pretraining of a small multilingual teacher: from nothing, or from another model."""

import json
import math
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaForMaskedLM

from app.errors import ConfigError
from distill import config as configuration
from distill import cooccurrence, initialization, inputs, packed, stage, vocabulary
from distill.corpus import Blocks, Masking, MixedBatches, files, lines, pack, temperature_shares
from distill.datasets.base import provenance
from distill.observation import masked_loss
from distill.report import teacher_card
from distill.teacher import XLMR_ROLES, load_teacher, load_tokenizer, resolve
from distill.training import Schedule, train

HELDOUT_BLOCKS = 64
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """XLM-R's shape."""

    layers: int = 6
    hidden_size: int = 256
    heads: int = 4
    intermediate_size: int = 1024
    positions: int = 512


@dataclass(frozen=True, kw_only=True)
class Start:
    """A teacher to go on from, cut to the pieces of share `threshold` in some language and to its bottom `layers`.

    0 layers are all. With `train = "head"` only the language model head learns: an encoder that came without one keeps
    its weights. `origin` and `licence` are for the card.
    """

    model: str
    threshold: float = 1.5e-5
    layers: int = 0
    train: Literal["all", "head"] = "all"
    origin: str = ""
    licence: str = ""


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """One TOML of `python -m distill pretrain`."""

    out: Path
    text: tuple[Path, ...]
    languages: tuple[str, ...]
    schedule: Schedule
    start: Start | None = None
    architecture: Architecture = field(default_factory=Architecture)
    vocabulary: int = 24_000
    tokenizer_megabytes: float = 12.0
    alpha: float = 0.3
    boost: dict[str, float] = field(default_factory=dict)
    sequence_length: int = 128
    batch_size: int = 32
    mask_share: float = 0.15
    embeddings: Literal["random", "cooccurrence"] = "cooccurrence"
    heldout: float = 0.005
    machine: str = ""

    def __post_init__(self) -> None:
        """Raises ConfigError for a shape that no model can have, or that cannot read its text."""
        shape = self.architecture
        if shape.heads == 0 or shape.hidden_size % shape.heads:
            raise ConfigError(f"architecture.hidden_size = {shape.hidden_size} is no multiple of {shape.heads} heads")
        if self.start is None and self.sequence_length > shape.positions:
            raise ConfigError(
                f"sequence_length = {self.sequence_length}: it can be at most architecture.positions, {shape.positions}"
            )


def pretrain(run: Pretraining, *, work: Path) -> Path:
    """Train the model into the folder `run.out`; `work` keeps packed text and checkpoints.

    Without `run.start` a tokenizer is trained and the weights are random, and `architecture` and `vocabulary` count.
    Held-out loss (nats a masked token) per language, data and recipe go to `pretrain.json`, and to a card for people.
    Raises ConfigError where `work` is that of another run.
    """
    claim(run, work)
    torch.manual_seed(run.schedule.seed)
    if run.start is None:
        tokenizer = _tokenizer(run, work)
        model = new_model(run.architecture, tokenizer, pieces=len(tokenizer))
    else:
        model, tokenizer = begin(run.start, run, work)
    for language in run.languages:
        pack(
            run.text,
            language,
            tokenizer.backend_tokenizer,
            length=run.sequence_length,
            heldout=run.heldout,
            out=work / "packed" / language,
        )
    blocks = [Blocks.open(work / "packed" / language, language, "train") for language in run.languages]
    shares = temperature_shares({b.language: len(b) for b in blocks}, alpha=run.alpha)
    batches = MixedBatches(
        blocks,
        [shares[b.language] * run.boost.get(b.language, 1.0) for b in blocks],
        batch_size=run.batch_size,
        seed=run.schedule.seed,
        mask=Masking.of(tokenizer, share=run.mask_share),
    )
    if run.start is None:
        words = None
        if run.embeddings == "cooccurrence" and not (work / "checkpoint").is_dir():
            width = run.architecture.hidden_size
            width -= initialization.position_dimensions(width)
            words = cooccurrence.embeddings(blocks, vocabulary=len(tokenizer), width=width)
        initialization.initialize(model, words)
    elif run.start.train == "head" and not (work / "checkpoint").is_dir():
        expect_frequencies(model, blocks, [shares[b.language] for b in blocks])
    train(
        model,
        lambda batch: {"mlm": masked_loss(model, batch)},
        batches,
        schedule=run.schedule,
        folder=work,
        name="pretrain",
    )
    return save(run, model, tokenizer, work=work)


def claim(run: Pretraining, work: Path) -> None:
    """Take the work folder for this run. Raises ConfigError where it is another's, or holds parts of no known run."""
    mark, told = fingerprint(run), work / "inputs.json"
    begun = told.is_file() or any((work / part).exists() for part in ("tokenizer.json", "start", "checkpoint"))
    if begun and not (told.is_file() and json.loads(told.read_text(encoding="utf-8")) == mark):
        raise ConfigError(f"{work} holds the work of another pretraining: give this one a --work folder of its own")
    work.mkdir(parents=True, exist_ok=True)
    stage.write(told, json.dumps(mark))


def fingerprint(run: Pretraining) -> str:
    """Of all that decides the model: not where it goes, nor what is only on its card."""
    recipe = configuration.plain(run)
    for name in ("out", "machine"):
        recipe.pop(name)
    recipe["text"] = [
        (path.name, path.stat().st_size) for language in run.languages for path in files(run.text, language)
    ]
    if run.start is not None:
        recipe["start"] |= {"model": inputs.identity(resolve(run.start.model)), "origin": "", "licence": ""}
    return stage.fingerprint(recipe)


def begin(start: Start, run: Pretraining, work: Path) -> tuple[XLMRobertaForMaskedLM, PreTrainedTokenizerFast]:
    """The teacher `start.model` cut to the languages' pieces and its bottom layers, frozen where it is not to learn."""
    folder = work / "start"
    if not folder.is_dir():
        backend = load_tokenizer(start.model).backend_tokenizer
        counts = {language: vocabulary.count(backend, lines(run.text, language)) for language in run.languages}
        kept = vocabulary.select(counts, backend, threshold=start.threshold, keep_characters=False)
        vocabulary.trim(start.model, kept, folder)
    model, tokenizer = load_teacher(folder)
    keep_part(model, start)
    return cast(XLMRobertaForMaskedLM, model), tokenizer


def keep_part(model: PreTrainedModel, start: Start) -> None:
    """Leave the bottom layers that `start` names, frozen where only the head is to learn. Raises ConfigError."""
    if start.layers:
        if not 0 < start.layers <= model.config.num_hidden_layers:
            raise ConfigError(f"start.layers = {start.layers}: {start.model} has {model.config.num_hidden_layers}")
        encoder = cast(Any, model.base_model).encoder
        encoder.layer = encoder.layer[: start.layers]
        model.config.num_hidden_layers = start.layers
    if start.train == "head":
        model.base_model.requires_grad_(False)


def expect_frequencies(model: PreTrainedModel, blocks: Sequence[Blocks], shares: Sequence[float]) -> None:
    """Start an untrained head's bias at the log-frequencies of the pieces, which it would first have to learn."""
    frequencies = np.full(model.config.vocab_size, 1e-7)
    for part, share in zip(blocks, shares, strict=True):
        ids = part.take(0, min(500, len(part)), seed=0)
        frequencies += share * np.bincount(ids.ravel(), minlength=len(frequencies)) / ids.size
    with torch.no_grad():
        model.lm_head.bias.copy_(torch.from_numpy(np.log(frequencies)))


def save(run: Pretraining, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, work: Path) -> Path:
    """Write the weights in half precision, the tokenizer and the held-out losses to `run.out`.

    Packed weights of an earlier model there would be read in place of these, and go.
    """
    model.eval()
    losses = {
        language: heldout_loss(model, Blocks.open(work / "packed" / language, language, "heldout"), tokenizer, run)
        for language in run.languages
    }
    run.out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(run.out)
    (run.out / packed.WEIGHTS).unlink(missing_ok=True)
    model.float()
    tokenizer.save_pretrained(run.out)
    recipe = configuration.plain(run)
    for place in ("text", "out"):
        recipe.pop(place)
    if run.start is not None and Path(run.start.model).is_dir():
        recipe["start"]["model"] = Path(run.start.model).name
    state = json.loads((work / "checkpoint" / "run.json").read_text())
    facts = {
        "parameters": model.num_parameters(),
        "tokens": state["tokens"],
        "training_seconds": round(state["seconds"]),
        "machine": run.machine or f"{torch.get_num_threads()} threads of {platform.machine()}",
        "heldout_loss": losses,
        "data": [
            provenance(path, path.parent.parent) for language in run.languages for path in files(run.text, language)
        ],
        "layers": model.config.num_hidden_layers,
        "hidden_size": model.config.hidden_size,
        "pieces": len(tokenizer),
        "recipe": recipe,
    }
    (run.out / "pretrain.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (run.out / "README.md").write_text(teacher_card(facts), encoding="utf-8")
    return run.out


def heldout_loss(model: PreTrainedModel, blocks: Blocks, tokenizer: PreTrainedTokenizerFast, run: Pretraining) -> float:
    """Mean loss over at most `HELDOUT_BLOCKS` held-out blocks under one fixed corruption, in nats a masked token."""
    mask = Masking.of(tokenizer, share=0.15)
    count = min(HELDOUT_BLOCKS, len(blocks))
    total, weight = 0.0, 0
    with torch.no_grad():
        for start in range(0, count, run.batch_size):
            ids = torch.from_numpy(np.asarray(blocks.ids[start : min(start + run.batch_size, count)]["ids"], np.int64))
            batch = mask(ids, seed=start)
            n = int((batch["labels"] != -100).sum())
            if n:
                total += float(masked_loss(model, batch)) * n
                weight += n
    return total / weight if weight else math.nan


def new_model(shape: Architecture, tokenizer: PreTrainedTokenizerFast, *, pieces: int) -> XLMRobertaForMaskedLM:
    """Random weights of that shape, for a tokenizer of so many pieces."""
    config = XLMRobertaConfig(
        vocab_size=pieces,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.positions + 2,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.05,
    )
    return XLMRobertaForMaskedLM(config)


def _tokenizer(run: Pretraining, work: Path) -> PreTrainedTokenizerFast:
    path = work / "tokenizer.json"
    if not path.is_file():
        tokenizer = train_tokenizer(_tokenizer_text(run), vocabulary=run.vocabulary)
        tokenizer.save(str(path.with_suffix(".tmp")))
        path.with_suffix(".tmp").replace(path)
    return dressed(Tokenizer.from_file(str(path)), run)


def dressed(tokenizer: Tokenizer, run: Pretraining) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers knows it, with the special tokens' roles."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **XLMR_ROLES, model_max_length=run.architecture.positions
    )


def train_tokenizer(texts: Iterable[str], *, vocabulary: int) -> Tokenizer:
    """A Unigram tokenizer of at most about so many pieces; a word begins with its space, a mark is a word."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    spaces = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    marks = pre_tokenizers.Split(Regex(r"[^\p{L}\p{M}\p{N}\s'’ʼ▁]"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([spaces, marks])
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        unk_token="<unk>",
        max_piece_length=16,
        shrinking_factor=0.75,
        n_sub_iterations=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    tokenizer = _with_marks_as_words(tokenizer)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([marks, spaces])
    bos, eos = SPECIAL.index("<s>"), SPECIAL.index("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", bos), ("</s>", eos)]
    )
    return tokenizer


def _with_marks_as_words(tokenizer: Tokenizer) -> Tokenizer:
    """Give every punctuation mark its piece with a word start: tagged words, and so raw text here, begin with one.

    Trained together they would make the bare word start the likeliest piece of all and split every short word.
    """
    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    known = {piece for piece, _ in vocabulary}
    marks = [[f"▁{piece}", score] for piece, score in vocabulary if len(piece) == 1 and not piece.isalnum()]
    state["model"]["vocab"] += [[piece, score] for piece, score in marks if piece not in known and piece != "▁▁"]
    return Tokenizer.from_str(json.dumps(state))


def _tokenizer_text(run: Pretraining) -> Iterator[str]:
    """About `tokenizer_megabytes` of text, spread over the languages by the same temperature as training."""
    shares = temperature_shares(
        {language: sum(len(text) for text in lines(run.text, language)) for language in run.languages}, alpha=run.alpha
    )
    weights = {language: share * run.boost.get(language, 1.0) for language, share in shares.items()}
    whole = sum(weights.values())
    for language in run.languages:
        budget = run.tokenizer_megabytes * 1e6 * weights[language] / whole
        stride = max(1, int(sum(len(text) for text in lines(run.text, language)) // max(budget, 1.0)))
        spent = 0
        for text in islice(lines(run.text, language), 0, None, stride):
            if spent > budget:
                break
            spent += len(text.encode())
            yield text
