"""The student: every k-th layer of the teacher, of its width or narrower, with weights copied, cut or new."""

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from app.errors import ConfigError, UnknownChoice
from distill.teacher import FAMILIES, attention_for

Strategy = Literal["regular", "bottom", "spread"]
Initialization = Literal["teacher", "random"]
STRATEGIES: tuple[Strategy, ...] = ("regular", "bottom", "spread")

Part = Literal["embeddings", "word_embeddings", "layer_norm"]
_PARTS = {"embeddings": "embeddings.", "word_embeddings": "word_embeddings.", "layer_norm": "LayerNorm."}

_LAYER = re.compile(r"^encoder\.layer\.(\d+)\.")
_WITH_POOLER = ("bert", "xlm-roberta")


def layer_map(n_teacher: int, factor: int, strategy: str = "regular") -> tuple[int, ...]:
    """The teacher layer, counted from 0, of each student layer.

    `regular` takes the last of every `factor` layers (12 by 2: 1, 3, 5, 7, 9, 11), `bottom` the first ones, `spread`
    the first, the last and those at even distances between (0, 2, 4, 7, 9, 11, as DistilBERT). Raises ConfigError when
    the factor does not divide the number of layers.
    """
    if strategy not in STRATEGIES:
        raise UnknownChoice("layer map strategy", strategy, STRATEGIES)
    if factor < 1 or n_teacher % factor:
        raise ConfigError(
            f"layer_reduction_factor = {factor} does not divide the teacher's {n_teacher} layers: "
            f"choose from {_divisors(n_teacher)}"
        )
    count = n_teacher // factor
    if strategy == "bottom":
        return tuple(range(count))
    if strategy == "spread" and count > 1:
        return tuple(round(i * (n_teacher - 1) / (count - 1)) for i in range(count))
    return tuple(range(factor - 1, n_teacher, factor))


def create(
    teacher: PreTrainedModel,
    *,
    layer_reduction_factor: int,
    hidden_size_reduction_factor: int = 1,
    strategy: str = "regular",
    initialization: Initialization = "teacher",
    seed: int = 42,
) -> PreTrainedModel:
    """Build a student encoder, without a head and without dropout.

    `teacher` is an encoder or a model with a head on one. At the teacher's width every tensor is a copy: of the layers
    that `strategy` picks, of the embeddings, DeBERTa's relative positions and a pooler, where there is one. A narrower
    student has its embeddings cut by singular values and new layers; the number of heads stays. `random` copies
    nothing. Raises UnknownChoice for an unknown family and ConfigError for a factor that does not divide.
    """
    encoder = cast(PreTrainedModel, teacher.base_model)
    config = copy.deepcopy(encoder.config)
    if config.model_type not in FAMILIES:
        raise UnknownChoice("teacher family", config.model_type, FAMILIES)
    layers = layer_map(config.num_hidden_layers, layer_reduction_factor, strategy)
    config.num_hidden_layers = len(layers)
    _narrow(config, hidden_size_reduction_factor)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    config.architectures = None

    options = {}
    if config.model_type in _WITH_POOLER:
        options["add_pooling_layer"] = getattr(encoder, "pooler", None) is not None
    torch.manual_seed(seed)
    with torch.device(encoder.device):
        student: Any = type(encoder)(config, **options)
    if initialization == "teacher" and hidden_size_reduction_factor == 1:
        copy_layers(student, encoder, layers)
    elif initialization == "teacher":
        _cut_embeddings(student, encoder)
    return cast(PreTrainedModel, student.to(encoder.dtype))


def copy_layers(student: PreTrainedModel, source: PreTrainedModel, layers: tuple[int, ...]) -> None:
    """Give the encoder `student` the encoder `source`'s weights, layer i those of layer `layers[i]`, at equal width."""
    weights = source.state_dict()
    student.load_state_dict({name: weights[source_name(name, layers)] for name in student.state_dict()})


def source_name(name: str, layers: tuple[int, ...]) -> str:
    """The name of the teacher's tensor that the student's tensor `name` is a copy of."""
    return _LAYER.sub(lambda match: f"encoder.layer.{layers[int(match[1])]}.", name)


def freeze(model: PreTrainedModel, parts: Sequence[str]) -> None:
    """Keep parts of a model as they are: all `embeddings` with their norm, `word_embeddings` alone, or `layer_norm`."""
    for name, parameter in model.named_parameters():
        if any(_PARTS[part] in name for part in parts):
            parameter.requires_grad_(False)


def with_language_model_head(
    student: PreTrainedModel, teacher: PreTrainedModel, *, initialization: Initialization = "teacher"
) -> PreTrainedModel:
    """The encoder `student` under a masked-language-model head: the teacher's at equal width, else a new one.

    `random` makes a new one at any width. The encoder is the same object, so training the whole trains it.
    """
    with torch.device(student.device):
        model: Any = type(teacher)(student.config)
    prefix = f"{teacher.base_model_prefix}."
    setattr(model, teacher.base_model_prefix, student)
    model.tie_weights()
    if initialization == "random":
        return cast(PreTrainedModel, model)
    own, words = dict(model.named_parameters()), teacher.get_input_embeddings().weight
    with torch.no_grad():
        for name, value in teacher.named_parameters():
            if not name.startswith(prefix) and value is not words and own[name].shape == value.shape:
                own[name].copy_(value)
    return cast(PreTrainedModel, model)


def load_student(folder: Path, *, attn_implementation: str) -> PreTrainedModel:
    """The encoder that `create` made and `save_pretrained` wrote, in float32, with no pooler of its own making."""
    config = AutoConfig.from_pretrained(folder)
    options = {"add_pooling_layer": False} if config.model_type in _WITH_POOLER else {}
    return cast(
        PreTrainedModel,
        AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            attn_implementation=attention_for(config, attn_implementation),
            **options,
        ),
    )


def _narrow(config: Any, factor: int) -> None:
    """Divide the widths of a configuration; each head gets narrower by as much."""
    heads = config.num_attention_heads
    if factor < 1 or config.hidden_size % (factor * heads) or config.intermediate_size % factor:
        whole = [k for k in range(1, config.hidden_size // heads + 1) if config.hidden_size % (k * heads) == 0]
        raise ConfigError(
            f"hidden_size_reduction_factor = {factor} does not divide the width of the teacher's {heads} heads, "
            f"{config.hidden_size // heads}: choose from {', '.join(map(str, whole))}"
        )
    if factor > 1:
        config.hidden_size //= factor
        config.intermediate_size //= factor
        if getattr(config, "embedding_size", None) is not None:
            config.embedding_size = config.hidden_size
        if getattr(config, "pooler_hidden_size", None) is not None:
            config.pooler_hidden_size = config.hidden_size


@torch.no_grad()
def _cut_embeddings(student: PreTrainedModel, encoder: PreTrainedModel) -> None:
    """Every embedding table E becomes E V, so that singular values stay in it.

    V: the top right singular vectors of all tables stacked, each at equal weight, since the layers read a word plus its
    position. They come from d x d matrices E^T E, so nothing of the vocabulary's size squared is made.
    """
    tables = {
        name: value.double()
        for name, value in encoder.named_parameters()
        if name.startswith("embeddings.") and "_embeddings." in name
    }
    gram = torch.stack([table.T @ table / len(table) for table in tables.values()]).sum(dim=0)
    axes = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, : student.config.hidden_size]
    for name, parameter in student.named_parameters():
        if name in tables:
            parameter.copy_((tables[name] @ axes).to(parameter.dtype))


def _divisors(n: int) -> str:
    return ", ".join(str(k) for k in range(1, n + 1) if n % k == 0)
