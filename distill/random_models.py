"""A student and a teacher of given sizes with random weights, ready to serve: speed does not depend on weights.

`python -m distill.random_models FOLDER --student 6x768x25000 --teacher 12x768x120000`
"""

import argparse
import re
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    BertConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

from app.errors import ConfigError
from app.tasks.token_classification import TokenItem
from distill.datasets.base import joined
from distill.evaluate import open_tokenizer
from distill.publish import publish
from distill.tasks.base import Example, training_task

LANGUAGE, TASK = "qaa", "ner"
MAX_LENGTH = 256
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SYLLABLES = ["".join(pair) for pair in product("bcdfghjklmnprstvwyz", "aeiou")]
_N_CALIBRATION, _N_DEV = 32, 8
# about a tenth of the words are then in an entity, as in a text, and not nearly all of them
_OUTSIDE_BIAS = 1.5


def write(spec: str, folder: Path, *, store: Path, seed: int = 0) -> Path:
    """Write a NER model of random weights to `folder`, as transformers does, and its bundle to `store`; the bundle.

    `spec` is `<layers>x<hidden size>x<pieces>` of a BERT, or a folder with a `config.json` and a `tokenizer.json`. Most
    words are outside of entities, since what is found takes time to answer. No gate that compares scores can fail,
    because there is nothing to find in the texts that they are measured on.
    """
    task = training_task(TASK)
    config, tokenizer = _configured(spec)
    config.num_labels = len(task.labels)
    torch.manual_seed(seed)
    model: Any = AutoModelForTokenClassification.from_config(config)
    with torch.no_grad():
        model.classifier.bias[task.labels.index("O")] += _OUTSIDE_BIAS
    model.save_pretrained(folder)
    limit = min(MAX_LENGTH, config.max_position_embeddings - config.pad_token_id - 1)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=limit, pad_token=tokenizer.id_to_token(config.pad_token_id)
    )
    wrapped.save_pretrained(folder)
    texts = [" ".join(words) for words in _chunks(open_tokenizer(folder), size=24)]
    dev = []
    for text in texts[:_N_DEV]:
        text, spans = joined(text.split())
        dev.append(Example(TokenItem(text, spans), ("O",) * len(spans)))
    fields: dict[str, Any] = {"language": LANGUAGE, "max_length": limit, "stride": limit // 4}
    return publish(
        model,
        folder,
        task,
        dev,
        texts[:_N_CALIBRATION],
        {**fields, "pad_id": config.pad_token_id, "licence": "random weights"},
        store=store,
        staging=folder / "staging",
        engines=engines(),
    )


def engines() -> tuple[str, ...]:
    """The engines that serve on a CPU without torch, as far as what writes their files is installed."""
    return ("onnx", "openvino") if all(map(find_spec, ("openvino", "nncf"))) else ("onnx",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write `student`, `teacher`, and their bundles in `store` and `teachers`, below the folder."""
    parser = argparse.ArgumentParser(prog="python -m distill.random_models", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--student", required=True, help="<layers>x<hidden size>x<pieces>, or a model's folder")
    parser.add_argument("--teacher", required=True, help="the same")
    options = parser.parse_args(arguments)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name, store in (("student", "store"), ("teacher", "teachers")):
        print(write(getattr(options, name), options.folder / name, store=options.folder / store))
    return 0


def _configured(spec: str) -> tuple[PretrainedConfig, Tokenizer]:
    if size := re.fullmatch(r"(\d+)x(\d+)x(\d+)", spec):
        n_layers, hidden, n_pieces = map(int, size.groups())
        config = BertConfig(
            vocab_size=n_pieces,
            hidden_size=hidden,
            num_hidden_layers=n_layers,
            num_attention_heads=max(hidden // 64, 1),
            intermediate_size=4 * hidden,
        )
        return config, word_pieces(n_pieces)
    folder = Path(spec)
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{spec} is neither <layers>x<hidden size>x<pieces> nor a folder with a config.json")
    return AutoConfig.from_pretrained(folder), open_tokenizer(folder)


def word_pieces(n: int) -> Tokenizer:
    """A WordPiece tokenizer of `n` pieces: letters, then words made of syllables, the same for all `n`."""
    letters = [f"{mark}{letter}" for mark in ("", "##") for letter in "abcdefghijklmnopqrstuvwxyz.,'"]
    words = ("".join(parts) for length in (2, 3) for parts in product(_SYLLABLES, repeat=length))
    pieces = [*_SPECIAL, *letters][:n]
    pieces += islice(words, n - len(pieces))
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(list(_SPECIAL))
    return tokenizer


def _chunks(tokenizer: Tokenizer, *, size: int) -> list[list[str]]:
    """Words of the vocabulary, `size` at a time."""
    ranked = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    words = [word for piece, _ in ranked if len(word := piece.removeprefix("▁")) > 2 and word.isalpha()]
    step = max(len(words) // (size * _N_CALIBRATION), 1)
    spread = (words * size * _N_CALIBRATION)[::step][: size * _N_CALIBRATION]
    return [spread[start : start + size] for start in range(0, len(spread), size)]


if __name__ == "__main__":
    raise SystemExit(main())
