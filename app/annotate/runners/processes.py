"""Worker processes on this machine, or none: one worker is this process itself."""

import functools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from app.annotate.annotator import Annotator, Result
from app.annotate.formats.base import Chunk
from app.annotate.job import Job
from app.errors import EngineError

_AHEAD = 2


def run(job: Job, chunks: Iterable[Chunk], *, workers: int) -> Generator[Result]:
    """The chunks' results, in their order; at most two chunks a worker are under way or waiting to be taken.

    :raises EngineError: a worker died.
    """
    if workers == 1:
        yield from map(Annotator.open(job).annotate, chunks)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start)
    waiting: deque[Future[Result]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(_annotate, job, chunk))
            if len(waiting) > _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise EngineError("a worker died, which is most often for want of memory: use fewer --workers") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start() -> None:
    """Leave Ctrl-C to the parent, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@functools.cache
def _annotator(job: Job) -> Annotator:
    """The worker's own, opened at its first chunk, so that what goes wrong then is that chunk's error."""
    return Annotator.open(job)


def _annotate(job: Job, chunk: Chunk) -> Result:
    return _annotator(job).annotate(chunk)
