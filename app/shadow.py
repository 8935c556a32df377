"""Shadow: the live proof. A share of real requests runs on the teacher too, off the request path."""

import asyncio
import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from app.agreement import FOUND_BY_CODEC, Outcome, agreement
from app.bundle import MANIFEST, Bundle, Variant
from app.choice import open_engine
from app.daemon import in_daemon
from app.engines.base import Engine
from app.errors import BistilError, BundleError
from app.metrics import Metrics
from app.paired import time_pair
from app.predictor import codec
from app.rows import Row, Tensors, pad, split
from app.schemas.base import TaskRequest
from app.settings import Settings
from app.store import ModelStore, Served, resident_bytes
from app.tasks.base import Task

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Twins:
    """A served model's teacher and a second session of its student, opened alike: engine, precision, threads.

    ``grown_bytes`` is the growth of memory while they loaded.
    """

    served: Served
    bundle: Bundle
    variant: Variant
    codec: Task[Any, Any]
    tokenizer: Tokenizer
    teacher: Engine
    student: Engine
    same_pieces: bool
    grown_bytes: int | None

    @property
    def key(self) -> tuple[str, str]:
        """Language and task."""
        return self.served.language, self.served.task


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One input of an answered request, what the student said, and the micro-batch that it was answered in."""

    twins: Twins
    item: Any
    student_codec: Task[Any, Any]
    teacher_codec: Task[Any, Any]
    prediction: Any
    batch: Sequence[Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One sample's outcome. ``seconds`` are the teacher's and the student's, by mode.

    In ``disturbed`` modes the server ran something else meanwhile.
    """

    seconds: dict[str, tuple[float, float]]
    agreement: Counter[Outcome]
    disturbed: frozenset[str] = frozenset()


class Shadow:
    """Times teacher and student on sampled requests in a thread of its own, and counts how they agree.

    ``single`` runs the rows of one input one at a time, ``batch`` the micro-batch that the request was answered in, on
    both; each first once untimed, because an engine in service is warm, and whose turn comes first is drawn.
    A sample is dropped, and counted so, where requests wait for the model (``busy``), where the last one still runs
    (``backlog``), where it would bring the time that the shadow runs above its share (``budget``), or where it fails.
    Times that were taken while a model answered requests make no pair and are ``busy``, too: they would say how the
    two get along with others. The agreement counts all the same.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        seed: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self._random = random.Random(seed)
        self._clock = clock
        self._served: list[Served] = []
        self._twins: dict[tuple[str, str], Twins] = {}
        self._running: asyncio.Task[None] | None = None
        self._free_at = -math.inf

    def open(self, served: Sequence[Served]) -> None:
        """Load the teachers of all served models that have one, then begin: loading would disturb what is timed.

        Why one cannot be used is logged, and no more.
        """
        self._served = list(served)
        opened = [twins for model in served if (twins := self._open(model)) is not None]
        self._twins = {
            twins.key: twins for twins in opened
        }  # before their series show: from then on requests are sampled
        for twins in opened:
            self.metrics.register_shadow(
                twins.served, sha=twins.bundle.manifest.files[twins.variant.file], grown_bytes=twins.grown_bytes
            )
            _LOG.info(
                "live proof of %s: %.3g of requests also run the teacher",
                twins.served.name,
                self.settings.shadow_share,
            )

    def sample(
        self,
        served: Served,
        request: TaskRequest,
        items: Sequence[Any],
        predictions: Sequence[Any],
        batch: Sequence[Row],
    ) -> Callable[[], None] | None:
        """For the drawn share of requests, what to call when the reply has left; None for the others."""
        twins = self._twins.get((served.language, served.task))
        if twins is None or not items or self._random.random() >= self.settings.shadow_share:
            return None
        index = self._random.randrange(len(items))
        drawn = Sample(
            twins=twins,
            item=items[index],
            student_codec=request.adjust(served.codec),
            teacher_codec=request.adjust(twins.codec),
            prediction=predictions[index],
            batch=batch,
        )
        return lambda: self._offer(drawn)

    async def close(self) -> None:
        """Let the sample that runs end, then free the engines."""
        twins, self._twins = list(self._twins.values()), {}
        if self._running is not None:
            await asyncio.wait([self._running])
        for pair in twins:
            pair.teacher.close()
            pair.student.close()

    def _open(self, served: Served) -> Twins | None:
        try:
            folder = _teachers(self.settings.shadow_teacher).get((served.language, served.task))
            if folder is not None:
                return _open(folder, served, self.settings)
            _LOG.warning("no teacher for %s/%s under --shadow-teacher", served.language, served.task)
        except BistilError as error:
            _LOG.error("no live proof for %s/%s: %s", served.language, served.task, error)
        return None

    def _offer(self, sample: Sample) -> None:
        if sample.twins.key not in self._twins:
            return
        if sample.twins.served.batcher.n_waiting:
            self._drop(sample, "busy")
        elif self._running is not None and not self._running.done():
            self._drop(sample, "backlog")
        elif self._clock() < self._free_at:
            self._drop(sample, "budget")
        else:
            self._running = asyncio.create_task(self._run(sample), name="shadow")

    async def _run(self, sample: Sample) -> None:
        started = self._clock()
        try:
            pair = await in_daemon(partial(self._measure, sample))
        except Exception as error:
            _LOG.error("a sample of the live proof failed: %s", type(error).__name__)
            self._drop(sample, "failed")
        else:
            self.metrics.shadow(
                *sample.twins.key, seconds=pair.seconds, agreement=pair.agreement, disturbed=pair.disturbed
            )
            if "single" in pair.disturbed:
                self._drop(sample, "busy")
        ended = self._clock()
        self._free_at = ended + (ended - started) * (1 / self.settings.shadow_time_share - 1)

    def _drop(self, sample: Sample, reason: str) -> None:
        self.metrics.shadow_dropped.labels(*sample.twins.key, reason).inc()

    def _measure(self, sample: Sample) -> Pair:
        twins = sample.twins
        rows = sample.teacher_codec.encode(sample.item, twins.tokenizer)
        own_rows = sample.student_codec.encode(sample.item, twins.served.tokenizer)
        if not rows or not own_rows:
            return Pair(seconds={}, agreement=Counter())
        timed = {"single": self._time(twins, [[row] for row in rows], [[row] for row in own_rows])}
        if twins.same_pieces:
            timed["batch"] = self._time(twins, [sample.batch], [sample.batch])
        outputs = timed["single"].outputs
        per_token = twins.codec.per_token
        answers = [split(values, [row], per_token=per_token)[0] for values, row in zip(outputs, rows, strict=True)]
        found = FOUND_BY_CODEC[twins.bundle.manifest.codec]
        return Pair(
            seconds={mode: its.seconds for mode, its in timed.items()},
            agreement=agreement(
                found(sample.item, sample.teacher_codec.decode(sample.item, rows, answers)),
                found(sample.item, sample.prediction),
            ),
            disturbed=frozenset(mode for mode, its in timed.items() if its.disturbed),
        )

    def _time(self, twins: Twins, batches: Sequence[Sequence[Row]], own: Sequence[Sequence[Row]]) -> "_Timed":
        before = self._begun()
        seconds, (outputs, _) = time_pair(
            (twins.teacher, [{**pad(rows, pad_id=twins.bundle.manifest.pad_id)} for rows in batches]),
            (twins.student, [{**pad(rows, pad_id=twins.served.bundle.manifest.pad_id)} for rows in own]),
            order=self._random,
            clock=self._clock,
        )
        return _Timed(seconds=seconds, outputs=outputs, disturbed=before is None or before != self._begun())

    def _begun(self) -> int | None:
        """How many batches the server's models have begun; None while one runs."""
        batchers = [served.batcher for served in self._served]
        begun = sum(batcher.n_begun for batcher in batchers)
        return None if any(batcher.busy_s for batcher in batchers) else begun


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timed:
    """Seconds of teacher and student, the teacher's outputs, and whether a model answered requests meanwhile."""

    seconds: tuple[float, float]
    outputs: list[Tensors]
    disturbed: bool


def _teachers(place: str) -> dict[tuple[str, str], Path]:
    """The teacher bundles by language and task: one bundle's folder, or a store of several."""
    folder = Path(place)
    if (folder / MANIFEST).is_file():
        manifest = Bundle.open(folder, verify=False).manifest
        return {(manifest.language, manifest.task): folder}
    store = ModelStore(place, cache=folder)
    return {(found.language, found.task): store.fetch(found) for found in store.find()}


def _open(folder: Path, served: Served, settings: Settings) -> Twins:
    before, bundle = resident_bytes(), Bundle.open(folder)
    ours, theirs = served.bundle.manifest, bundle.manifest
    if (ours.codec, ours.labels) != (theirs.codec, theirs.labels):
        raise BundleError(f"{folder} has other labels than {served.name}")
    variant = _alike(served, bundle)
    options: dict[str, Any] = {"device": settings.device, "threads": settings.n_threads}
    teacher = open_engine(bundle.folder, variant, **options)
    student = open_engine(served.bundle.folder, served.variant, **options)
    return Twins(
        served=served,
        bundle=bundle,
        variant=variant,
        codec=codec(theirs),
        tokenizer=bundle.tokenizer(),
        teacher=teacher,
        student=student,
        same_pieces=ours.files["tokenizer.json"] == theirs.files["tokenizer.json"],
        grown_bytes=None if before is None else max((resident_bytes() or 0) - before, 0),
    )


def _alike(served: Served, teacher: Bundle) -> Variant:
    """The teacher's variant of the served one's engine and precision.

    :raises BundleError: there is none, and speeds could not be compared.
    """
    wanted = served.variant
    for variant in teacher.manifest.variants:
        if (variant.engine, variant.precision) == (wanted.engine, wanted.precision):
            return variant
    there = ", ".join(f"{variant.precision} on {variant.engine}" for variant in teacher.manifest.variants)
    raise BundleError(
        f"{served.name} is served in {wanted.precision} on {wanted.engine}, and the teacher has {there}: "
        "serve a --variant that both have, or export the teacher in that precision"
    )
