"""The student: every k-th layer of the teacher, with copied weights."""

import copy
import re
from pathlib import Path
from typing import Any, Literal, cast

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from app.errors import ConfigError, UnknownChoice
from distill.teacher import FAMILIES

Strategy = Literal["regular", "bottom"]
STRATEGIES: tuple[Strategy, ...] = ("regular", "bottom")

_LAYER = re.compile(r"^encoder\.layer\.(\d+)\.")
_WITH_POOLER = ("bert", "xlm-roberta")


def layer_map(n_teacher: int, factor: int, strategy: str = "regular") -> tuple[int, ...]:
    """The teacher layer, counted from 0, that each student layer is a copy of.

    `regular` takes the last of every `factor` layers (12 by 2: 1, 3, 5, 7, 9, 11), `bottom` the first ones. Raises
    ConfigError when the factor does not divide the number of layers.
    """
    if strategy not in STRATEGIES:
        raise UnknownChoice("layer map strategy", strategy, STRATEGIES)
    if factor < 1 or n_teacher % factor:
        factors = ", ".join(str(k) for k in range(1, n_teacher + 1) if n_teacher % k == 0)
        raise ConfigError(
            f"layer_reduction_factor = {factor} does not divide the teacher's {n_teacher} layers: choose from {factors}"
        )
    if strategy == "bottom":
        return tuple(range(n_teacher // factor))
    return tuple(range(factor - 1, n_teacher, factor))


def create(teacher: PreTrainedModel, *, layer_reduction_factor: int, strategy: str = "regular") -> PreTrainedModel:
    """Build a student encoder, without a head and without dropout, whose every tensor is a copy of the teacher's.

    `teacher` is an encoder or a model with a head on one; embeddings, DeBERTa's relative positions and a pooler, where
    there is one, are copied as they are. Raises UnknownChoice for an unknown family and ConfigError as `layer_map`.
    """
    encoder = cast(PreTrainedModel, teacher.base_model)
    config = copy.deepcopy(encoder.config)
    if config.model_type not in FAMILIES:
        raise UnknownChoice("teacher family", config.model_type, FAMILIES)
    layers = layer_map(config.num_hidden_layers, layer_reduction_factor, strategy)
    config.num_hidden_layers = len(layers)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    config.architectures = None

    options = {}
    if config.model_type in _WITH_POOLER:
        options["add_pooling_layer"] = getattr(encoder, "pooler", None) is not None
    with torch.device(encoder.device):
        student: Any = type(encoder)(config, **options)
    source = encoder.state_dict()
    student.load_state_dict({name: source[source_name(name, layers)] for name in student.state_dict()})
    return cast(PreTrainedModel, student.to(encoder.dtype))


def source_name(name: str, layers: tuple[int, ...]) -> str:
    """The name of the teacher's tensor that the student's tensor `name` is a copy of."""
    return _LAYER.sub(lambda match: f"encoder.layer.{layers[int(match[1])]}.", name)


def load_student(folder: Path, *, attn_implementation: str) -> PreTrainedModel:
    """The encoder that `create` made and `save_pretrained` wrote, in float32, with no pooler of its own making."""
    config = AutoConfig.from_pretrained(folder)
    options = {"add_pooling_layer": False} if config.model_type in _WITH_POOLER else {}
    return cast(
        PreTrainedModel,
        AutoModel.from_pretrained(
            folder, config=config, dtype=torch.float32, attn_implementation=attn_implementation, **options
        ),
    )
