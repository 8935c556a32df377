"""The teacher: a multilingual masked language model, read from a folder or from the Hugging Face hub."""

import json
import os
import re
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from app.errors import ConfigError, DataError, UnknownChoice
from distill import packed

FAMILIES = ("bert", "deberta-v2", "xlm-roberta")
"""The model types a student can be made from."""

XLMR_ROLES = {
    **{"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"},
    **{"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"},
}
"""The special tokens of XLM-R's tokenizers."""

_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model"]
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "spm.model")
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def load_teacher(
    source: str | Path, *, attn_implementation: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Load a masked language model in float32, in eval mode, and its fast tokenizer.

    `source` is a folder, or a hub id with an optional revision (`org/name@revision`). Weights come from safetensors and
    code from transformers alone. Raises DataError for a source that cannot be read, ConfigError for a model that is no
    masked language model, UnknownChoice for a family that is not supported.
    """
    folder = resolve(source)
    config = _config(folder)
    kind: Any = MODEL_FOR_MASKED_LM_MAPPING[type(config)]
    stored = (folder / packed.WEIGHTS).exists()
    try:
        model, info = kind.from_pretrained(
            None if stored else folder,
            state_dict=packed.weights(folder) if stored else None,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **({"attn_implementation": attention_for(config, attn_implementation)} if attn_implementation else {}),
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(f"the teacher in {folder} cannot be loaded: {error}") from error
    _check_complete(model, set(info["missing_keys"]), folder)
    return cast(PreTrainedModel, model.eval()), load_tokenizer(folder)


def attention_for(config: Any, wanted: str) -> str:
    """`wanted` where the family has it (DeBERTa's disentangled attention is written out by hand) and a GPU runs it.

    On a CPU the fused kernel's backward pass costs more than it saves at the lengths of sentences.
    """
    return wanted if config.model_type != "deberta-v2" and torch.cuda.is_available() else "eager"


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer exactly as tokenizer.json states it, with its special tokens' roles.

    transformers' own classes rebuild some tokenizers from their vocabulary (XLMRobertaTokenizer with unknown id 3
    and its own normaliser); the server reads tokenizer.json, so that file decides. Raises DataError.
    """
    folder = resolve(source)
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise DataError(f"{folder} has no tokenizer: expected one of {', '.join(TOKENIZER_FILES)}")
    try:
        auto: Any = AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise DataError(f"no fast tokenizer can be loaded from {folder}: {error}") from error
    if not getattr(auto, "is_fast", False):
        raise DataError(f"{folder} has no fast tokenizer ({type(auto).__name__}): save it with a tokenizer.json")
    stated = folder / "tokenizer.json"
    backend = Tokenizer.from_file(str(stated)) if stated.exists() else auto.backend_tokenizer
    return wrap(backend, like=auto)


def wrap(backend: Tokenizer, *, like: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The transformers tokenizer around `backend`, with the special tokens' roles and limits of `like`."""
    roles = {role: str(token) for role in _SPECIAL if (token := getattr(like, role, None)) is not None}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=like.model_max_length,
        model_input_names=list(like.model_input_names),
        padding_side=like.padding_side,
        clean_up_tokenization_spaces=False,
        **roles,
    )


def resolve(source: str | Path) -> Path:
    """The local folder of a teacher; a hub id is fetched into the hub's cache first. Raises DataError."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise DataError(f"the teacher {source} is a file: give the folder that holds config.json and model.safetensors")
    if isinstance(source, Path) or source.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(source):
        raise DataError(f"no teacher folder at {source}")
    return _fetch(source)


def _fetch(source: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = source.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=_HUB_FILES))
    except (LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise DataError(
            f"{source!r} is neither a folder nor in the hub's cache, and the hub cannot be reached{offline}. Where "
            f"there is a network, run `hf download {name} --local-dir teacher`; then give that folder as the teacher."
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise DataError(f"the hub does not give {source!r}: {error}") from error


def _config(folder: Path) -> Any:
    try:
        stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{folder} holds no model: it has no config.json") from error
    except ValueError as error:
        raise DataError(f"{folder / 'config.json'} is not JSON: {error}") from error
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.ckpt") for p in folder.glob(pattern))
        found = f" but {', '.join(pickles)}, and pickled weights are never read" if pickles else ""
        raise DataError(
            f"{folder} has no safetensors weights{found}. Save them with `save_pretrained`, or name a revision of the "
            "hub model that has them: org/name@refs/pr/1"
        )
    if "auto_map" in stated and stated.get("model_type") not in FAMILIES:
        raise ConfigError(f"the teacher in {folder} needs code of its own ({stated['auto_map']}), which is never run")
    if stated.get("model_type") not in FAMILIES:
        raise UnknownChoice("teacher family", stated.get("model_type"), FAMILIES)
    architectures = stated.get("architectures")
    if architectures and not any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in architectures):
        raise ConfigError(
            f"the teacher in {folder} is a {architectures[0]}, not a masked language model (…ForMaskedLM)"
        )
    if stated["model_type"] == "deberta-v2" and stated.get("legacy") is False:
        raise ConfigError(
            f"the teacher in {folder} has legacy = false, a head that is not read: DeBERTa-v3 has the other"
        )
    return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def _check_complete(model: PreTrainedModel, missing: set[str], folder: Path) -> None:
    """DeBERTa-v3's published weights have a head that transformers cannot read and state no architecture: let it be."""
    prefix = f"{model.base_model_prefix}."
    encoder = {name for name in missing if name.startswith(prefix)}
    head = missing - encoder if model.config.architectures else set()
    if encoder or head:
        names = ", ".join(sorted(encoder | head)[:3])
        raise DataError(f"the weights in {folder} lack {len(encoder | head)} tensors, among them {names}")
