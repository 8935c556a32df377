"""Ray Data: the chunks are a data set, the workers a pool of actors on the machines of a cluster.

Every machine needs this package, and the input and a store in a folder under the same paths.
"""

import dataclasses
import logging
import pickle
from collections.abc import Generator, Iterable
from functools import cached_property
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy, DataContext

from app.annotate.annotator import Annotator, Result
from app.annotate.formats.base import Chunk
from app.annotate.job import Job
from app.errors import BistilError

_MAX_BLOCKS = 4096


def run(job: Job, chunks: Iterable[Chunk], *, workers: int, address: str) -> Generator[Result]:
    """The chunks' results, in their order, from ``workers`` actors of one CPU each; 0 is as many as the cluster has.

    ``address`` is that of a cluster, ``auto`` for the one this machine is in, or ``local`` for one of its own.

    :raises BistilError: what a worker raised.
    """
    planned = [dataclasses.asdict(chunk) for chunk in chunks]
    if not planned:
        return
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.init(
        address=address,
        num_cpus=workers or None if address == "local" else None,
        log_to_driver=False,
        logging_level=logging.ERROR,
        include_dashboard=False,
    )
    try:
        context = DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        rows = ray.data.from_items(planned, override_num_blocks=min(len(planned), _MAX_BLOCKS)).map_batches(
            _Actor,
            fn_constructor_args=(job,),
            compute=ActorPoolStrategy(size=workers or int(ray.cluster_resources()["CPU"])),
            num_cpus=1,
            batch_size=1,
        )
        for row in rows.iter_rows():
            if isinstance(result := pickle.loads(row["result"]), BistilError):
                raise result
            yield result
    finally:
        ray.shutdown()


class _Actor:
    """One annotator; a batch is one chunk. An error is a result, for Ray would raise another in its place."""

    def __init__(self, job: Job) -> None:
        self._job = job

    @cached_property
    def _annotator(self) -> Annotator:
        return Annotator.open(self._job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        chunk = Chunk(**{name: int(values[0]) for name, values in batch.items()})
        try:
            result: Result | BistilError = self._annotator.annotate(chunk)
        except BistilError as error:
            result = error
        return {"result": np.array([pickle.dumps(result)], dtype=object)}
