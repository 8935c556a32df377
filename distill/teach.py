"""The task teacher: the multilingual model tuned on labelled data of one or more source languages."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import transformers
from torch import nn
from transformers import PreTrainedModel

from distill import datasets
from distill.delta import SparseDelta
from distill.evaluate import evaluate, open_tokenizer, predictor_for
from distill.examples import TaskBatches
from distill.tasks.base import Batch, Example, TrainingTask, training_task
from distill.teacher import attention_for
from distill.training import Schedule, Trained, train


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How a task is learnt. Steps follow from the epochs; at most `max_examples` examples a language are read."""

    epochs: float
    learning_rate: float
    head_rate: float = 1.0
    batch_size: int = 16
    max_length: int = 256
    stride: int = 64
    warmup_share: float = 0.1
    weight_decay: float = 0.0
    dropout: float = 0.1
    max_examples: int = 0
    max_dev: int = 1000
    evaluations: int = 3
    seed: int = 42
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    accumulate: int = 1

    def schedule(self, n_batches: int, *, epochs: float | None = None, warm: bool = True) -> Schedule:
        """The training schedule for that many micro-batches an epoch."""
        steps = max(1, round((self.epochs if epochs is None else epochs) * n_batches / self.accumulate))
        return Schedule(
            steps=steps,
            learning_rate=self.learning_rate,
            head_rate=self.head_rate,
            warmup_steps=round(self.warmup_share * steps) if warm else 0,
            weight_decay=self.weight_decay,
            precision=self.precision,
            accumulate=self.accumulate,
            seed=self.seed,
            log_every=min(20, steps),
            checkpoint_every=max(50, steps // 10),
            evaluate_every=max(1, -(-steps // self.evaluations)),
        )


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """Training and dev examples of the source languages, with what they were read from."""

    task: TrainingTask
    train: list[Example]
    dev: list[Example]
    files: list[dict[str, Any]]


def read_sources(
    name: str, folder: Path, languages: Sequence[str], *, target: str, max_examples: int, max_dev: int
) -> TaskData:
    """Read every source language, without the originals of the target's test data, where these are translations.

    Where there is a limit, an even sample is kept. Raises DataError.
    """
    task = training_task(name)
    train_examples: list[Example] = []
    dev: list[Example] = []
    files: list[dict[str, Any]] = []
    for language in languages:
        for split, into, limit in (("train", train_examples, max_examples), ("dev", dev, max_dev)):
            corpus = datasets.read(name, folder, language, split, target=target)
            into += thin(corpus.examples, limit)
            files += corpus.files
    return TaskData(task=task, train=train_examples, dev=dev, files=files)


def thin(examples: list[Example], limit: int) -> list[Example]:
    """At most `limit` examples at even distances; 0 keeps all."""
    if not limit or len(examples) <= limit:
        return examples
    return [examples[i * len(examples) // limit] for i in range(limit)]


def teach(
    model_folder: Path, data: TaskData, *, tuning: Tuning, folder: Path, sfts: Sequence[SparseDelta] = ()
) -> tuple[PreTrainedModel, Trained]:
    """Tune every parameter, from the model with `sfts` added to it; the weights with the best dev score win."""
    model = open_model(model_folder, data.task, dropout=tuning.dropout, attn_implementation="sdpa", seed=tuning.seed)
    for delta in sfts:
        delta.apply(model)
    tokenizer = open_tokenizer(model_folder)
    pad_id = int(model.config.pad_token_id)
    lengths = {"max_length": tuning.max_length, "stride": tuning.stride, "pad_id": pad_id}
    batches = TaskBatches.of(
        data.task, data.train, tokenizer, batch_size=tuning.batch_size, seed=tuning.seed, **lengths
    )
    predictor = predictor_for(model, tokenizer, data.task, **lengths)

    def loss(batch: Batch) -> dict[str, Any]:
        return {"task": data.task.loss(model(**inputs(batch, model)), batch)}

    def score() -> float:
        return evaluate(predictor, data.task, data.dev, progress=False)[data.task.main_metric]

    trained = train(
        model,
        loss,
        batches,
        schedule=tuning.schedule(batches.per_epoch),
        folder=folder,
        name=f"teacher {data.task.name}",
        score=score,
    )
    return model, trained


def open_model(
    folder: Path,
    task: TrainingTask,
    *,
    dropout: float,
    attention_dropout: float | None = None,
    attn_implementation: str,
    seed: int,
) -> PreTrainedModel:
    """The encoder in `folder` with a head for the task, new where the folder holds none; float32.

    A new head starts as torch's layers do, at a scale of 1 / sqrt(width). transformers' constant 0.02 is that of width
    768: a narrower encoder gets too faint a gradient through it, and learns no inference for hundreds of steps. What
    starts at zero stays there. `attention_dropout`, of attention maps, is `dropout` unless given.
    """
    transformers.set_seed(seed)
    options: dict[str, Any] = {}
    if task.labels:
        options = {
            "num_labels": len(task.labels),
            "id2label": dict(enumerate(task.labels)),
            "label2id": {label: index for index, label in enumerate(task.labels)},
        }
    config = transformers.AutoConfig.from_pretrained(folder, **options)
    config.attention_probs_dropout_prob = dropout if attention_dropout is None else attention_dropout
    config.hidden_dropout_prob = dropout
    for name in ("classifier_dropout", "cls_dropout", "pooler_dropout"):
        if getattr(config, name, None) is not None:
            setattr(config, name, dropout)
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        model, info = task.auto_model.from_pretrained(
            folder,
            config=config,
            dtype="float32",
            attn_implementation=attention_for(config, attn_implementation),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    finally:
        transformers.logging.set_verbosity(level)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and f"{name}.weight" in info["missing_keys"] and module.weight.any():
            module.reset_parameters()
    return cast(PreTrainedModel, model)


def inputs(batch: Batch, model: PreTrainedModel) -> Batch:
    """The tensors of a batch that the model reads."""
    names = ["input_ids", "attention_mask"]
    if getattr(model.config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    return {name: batch[name] for name in names}
