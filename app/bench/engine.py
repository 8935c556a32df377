"""The engine called directly, with no server and no tokenizer: the most that a server could reach."""

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from app.bench.load import pauses
from app.bundle import Bundle
from app.choice import choose, open_streams
from app.engines.base import Engine
from app.microbatches import cut, measure
from app.paired import time_pair
from app.predictor import codec
from app.rows import Row, Tensors, pad

_TOKEN_BUDGET = 4096


class BareEngine:
    """A bundle's engine and the rows of some texts, cut into micro-batches beforehand as the server cuts what waits."""

    def __init__(self, folder: Path, texts: Sequence[str], *, variant: str, threads: int) -> None:
        bundle = Bundle.open(folder, verify=False)
        manifest = bundle.manifest
        task, tokenizer = codec(manifest), bundle.tokenizer()
        chosen = choose(bundle, variant=variant or None, threads=threads)
        self.engine: Engine = chosen.engine
        self._streams = open_streams(bundle, chosen.variant, threads=threads) or chosen.engine
        self.variant = chosen.variant.name
        self.pad_id = manifest.pad_id
        self._cost = chosen.cost or measure(self.engine.run, pad_id=manifest.pad_id, max_length=manifest.max_length)
        item = type(task.probe)
        self.rows: list[Row] = [row for text in texts for row in task.encode(item(text), tokenizer)[:1]]

    def batches(self, *, waiting: int) -> list[Tensors]:
        """The micro-batches of all rows where ``waiting`` of them are cut at a time."""
        groups = [self.rows[start : start + waiting] for start in range(0, len(self.rows), waiting)]
        return [
            {**pad([group[index] for index in batch], pad_id=self.pad_id)}
            for group in groups
            for batch in cut([len(row) for row in group], cost=self._cost, token_budget=_TOKEN_BUDGET)
        ]

    def texts_per_s(self, *, waiting: int, seconds: float) -> float:
        """Texts a second over whole passes, at least one, as many calls at once as the server makes.

        Where one text waits at a time, that is one call, with all threads.
        """
        batches = self.batches(waiting=waiting)
        engine = self._streams if waiting > 1 else self.engine
        with ThreadPoolExecutor(engine.streams) as workers:
            list(workers.map(engine.run, batches[:8]))
            started, n_passes = time.perf_counter(), 0
            while not n_passes or time.perf_counter() - started < seconds:
                list(workers.map(engine.run, batches))
                n_passes += 1
            return n_passes * len(self.rows) / (time.perf_counter() - started)


def log_ratios(
    teacher: BareEngine,
    student: BareEngine,
    *,
    seconds: float,
    pause_s: float = 0.0,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """ln(teacher / student seconds) of one text after another, each alone; every text at least once.

    The measure of the live proof's mode ``single``. There the machine rests between requests, and is slower at first
    than in a loop: ``pause_s`` is how long it rests here in the mean before each text.
    """
    order = random.Random(seed)
    waits = pauses(pause_s)
    found: list[float] = []
    started = clock()
    while not found or clock() - started < seconds:
        for theirs, own in zip(teacher.rows, student.rows, strict=True):
            time.sleep(next(waits))
            (teacher_s, student_s), _ = time_pair(
                (teacher.engine, [{**pad([theirs], pad_id=teacher.pad_id)}]),
                (student.engine, [{**pad([own], pad_id=student.pad_id)}]),
                order=order,
                clock=clock,
            )
            found.append(float(np.log(teacher_s / student_s)))
            if len(found) >= len(student.rows) and clock() - started >= seconds:
                break
    return found
