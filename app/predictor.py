"""Predictor: items in, predictions out, in the calling thread. The scores in a bundle's card come from here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from tokenizers import Tokenizer

from app import plugins
from app.bundle import Bundle, Manifest
from app.choice import choose
from app.engines.base import Engine
from app.microbatches import Cost, cut
from app.rows import Tensors, pad, split
from app.tasks.base import Task

ItemT = TypeVar("ItemT")
PredictionT = TypeVar("PredictionT")


class Predictor(Generic[ItemT, PredictionT]):
    """One task on one engine; micro-batches hold rows of like length, and answers come in the items' order."""

    def __init__(
        self,
        task: Task[ItemT, PredictionT],
        tokenizer: Tokenizer,
        engine: Engine,
        *,
        pad_id: int,
        token_budget: int = 4096,
    ) -> None:
        self.task = task
        self.tokenizer = tokenizer
        self.engine = engine
        self.pad_id = pad_id
        self.token_budget = token_budget

    @classmethod
    def open(cls, folder: Path, *, variant: str | None = None, device: str = "cpu", threads: int = 0) -> Self:
        """The predictor of a bundle, on its fastest variant here or a named one.

        :raises BundleError: the bundle is not intact, or has no such variant.
        :raises EngineError, MissingExtra: no variant, or not the one named, can run here.
        """
        bundle = Bundle.open(folder)
        manifest = bundle.manifest
        return cls(
            codec(manifest),
            bundle.tokenizer(),
            choose(bundle, variant=variant, device=device, threads=threads).engine,
            pad_id=manifest.pad_id,
        )

    def predict(self, items: Sequence[ItemT]) -> list[PredictionT]:
        """One prediction an item, in order.

        :raises InputTooLong: a part of an item that cannot be windowed is too long; no item is answered.
        """
        encoded = [self.task.encode(item, self.tokenizer) for item in items]
        rows = [row for item_rows in encoded for row in item_rows]
        outputs: list[Tensors] = [{} for _ in rows]
        for batch in cut([len(row) for row in rows], cost=Cost(), token_budget=self.token_budget):
            batch_rows = [rows[index] for index in batch]
            answers = self.engine.run({**pad(batch_rows, pad_id=self.pad_id)})
            for index, answer in zip(batch, split(answers, batch_rows, per_token=self.task.per_token), strict=True):
                outputs[index] = answer
        predictions = []
        place = 0
        for item, item_rows in zip(items, encoded, strict=True):
            predictions.append(self.task.decode(item, item_rows, outputs[place : place + len(item_rows)]))
            place += len(item_rows)
        return predictions

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


def codec(manifest: Manifest) -> Task[Any, Any]:
    """The task codec a manifest names: the class of ``app/tasks/<codec>.py`` called like the module.

    :raises UnknownChoice: there is no such module.
    """
    module = plugins.load("app.tasks", manifest.codec)
    kind = getattr(module, "".join(part.capitalize() for part in manifest.codec.split("_")))
    task: Task[Any, Any] = kind.from_manifest(manifest)
    return task
