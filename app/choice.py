"""Choice: of a bundle's variants that this machine can run, the fastest here."""

import logging
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from app import plugins
from app.bundle import Bundle, Variant
from app.engines.base import Engine
from app.errors import BistilError, BundleError
from app.microbatches import Cost, measure

# a later variant must beat an earlier, better one by this much, which is more than timing the same one twice differs
_MARGIN = 0.05
_LENGTH = 32
_ROWS = 4
_STREAMS = 2
# what all threads together have to gain for one row, for a second copy of the weights to be worth its memory
_WORTH_A_COPY = 0.2

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The variant taken, open, and why; ``cost`` where variants were timed against each other.

    ``streams`` is the same model for several calls at once, where that can be had; it may be ``engine`` itself.
    """

    variant: Variant
    engine: Engine
    reason: str
    cost: Cost | None = None
    streams: Engine | None = None


def choose(bundle: Bundle, *, variant: str | None = None, device: str = "cpu", threads: int = 0) -> Choice:
    """The variant called ``variant``, or the fastest of those that run here.

    Variants are opened in the manifest's order, timed on a few shapes, and closed again but for the fastest. One that
    needs an extra which is not installed, or that the device cannot run, is left out and said to be in ``reason``.

    :raises BundleError: there is no variant of that name.
    :raises EngineError, MissingExtra: the one asked for cannot run here, or none can; then the first one's error.
    """
    if variant is not None:
        chosen = bundle.manifest.variant(variant)
        engine = open_engine(bundle.folder, chosen, device=device, threads=threads)
        return Choice(variant=chosen, engine=engine, reason="it was asked for")
    if len(bundle.manifest.variants) == 1:
        (only,) = bundle.manifest.variants
        engine = open_engine(bundle.folder, only, device=device, threads=threads)
        return Choice(variant=only, engine=engine, reason="it is the only variant")
    best: Choice | None = None
    errors: dict[str, BistilError] = {}
    seconds: dict[str, float] = {}
    for candidate in bundle.manifest.variants:
        try:
            engine = open_engine(bundle.folder, candidate, device=device, threads=threads)
            cost = measure(engine.run, pad_id=bundle.manifest.pad_id, max_length=bundle.manifest.max_length)
        except BistilError as error:
            errors[candidate.name] = error
            _LOG.warning("%s: variant %s does not run here: %s", bundle.folder, candidate.name, error)
            continue
        seconds[candidate.name] = _seconds(cost)
        if best is not None and seconds[candidate.name] > (1 - _MARGIN) * seconds[best.variant.name]:
            engine.close()
            continue
        if best is not None:
            best.engine.close()
        best = Choice(variant=candidate, engine=engine, reason="", cost=cost)
    if best is None:
        raise next(iter(errors.values()))
    return Choice(variant=best.variant, engine=best.engine, reason=_reason(seconds, errors), cost=best.cost)


def with_streams(bundle: Bundle, chosen: Choice, *, device: str = "cpu", threads: int = 0) -> Choice:
    """The choice with two streams, and with what all threads do together only where that is far faster for one row.

    :raises EngineError, MissingExtra: it cannot run here.
    """
    streams = open_streams(bundle, chosen.variant, device=device, threads=threads)
    if streams is None:
        return chosen
    timed = partial(measure, pad_id=bundle.manifest.pad_id, max_length=bundle.manifest.max_length)
    together, side_by_side = chosen.cost or timed(chosen.engine.run), timed(streams.run)
    if together.of(1, _LENGTH) < (1 - _WORTH_A_COPY) * side_by_side.of(1, _LENGTH):
        return replace(chosen, streams=streams, cost=together)
    chosen.engine.close()
    return replace(chosen, engine=streams, streams=streams, cost=side_by_side)


def open_streams(bundle: Bundle, variant: Variant, *, device: str = "cpu", threads: int = 0) -> Engine | None:
    """The variant for two calls at once; None on a GPU, on one thread, or of an engine that takes one call at a time.

    On a CPU two calls side by side, each on half of the threads, end before the same two one after the other: threads
    that compute one thing wait for each other.

    :raises EngineError, MissingExtra: it cannot run here.
    """
    if device != "cpu" or threads < _STREAMS:
        return None
    streams = open_engine(bundle.folder, variant, threads=threads, streams=_STREAMS)
    if streams.streams == _STREAMS:
        return streams
    streams.close()
    return None


def open_engine(folder: Path, variant: Variant, *, device: str = "cpu", threads: int = 0, streams: int = 1) -> Engine:
    """The engine of a variant whose files are in ``folder``.

    :raises BundleError: the variant names an engine this version does not have.
    :raises EngineError, MissingExtra: it cannot run here.
    """
    if variant.engine not in (choices := plugins.names("app.engines")):
        known = ", ".join(choices)
        raise BundleError(f"{folder}: variant {variant.name} needs the engine {variant.engine!r}; known are: {known}")
    engine: Engine = plugins.load("app.engines", variant.engine).Engine.open(
        folder, file=variant.file, device=device, threads=threads, streams=streams
    )
    return engine


def _seconds(cost: Cost) -> float:
    """The geometric mean of what a row alone takes, which one user waits for, and of several rows, which many do."""
    return math.sqrt(cost.of(1, _LENGTH) * cost.of(_ROWS, _LENGTH))


def _reason(seconds: dict[str, float], errors: dict[str, BistilError]) -> str:
    told = ", ".join(
        f"{name} {1000 * value:.2f} ms" for name, value in sorted(seconds.items(), key=lambda pair: pair[1])
    )
    reason = f"the fastest here, by the mean of 1 and {_ROWS} rows of {_LENGTH} pieces: {told}"
    return "; ".join([reason, *(f"{name} left out: {error}" for name, error in errors.items())])
