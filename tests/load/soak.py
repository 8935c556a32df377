"""Send varied texts to a server for a long time and report how its memory grows.

    python -m tests.load.soak --minutes 30 --rate 20 --texts <folder of .txt or .txt.xz> --store model_store --lang ha

Without ``--texts`` the texts are made up. The slope is of a straight line through the samples after the first fifth,
in which caches and arenas fill. Exits 1 if a request failed.
"""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.load import texts
from tests.load.server import Server
from tests.load.traffic import Outcome, Traffic

_WARM_UP = 0.2


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Megabytes an hour with the half-width of its 95 % interval, and megabytes at the samples used, first and last.

    The interval takes samples for independent, which neighbours are not, so that it is too narrow.
    """

    per_hour: float
    interval: float
    first: float
    last: float

    def __str__(self) -> str:
        slope = f"{self.per_hour:+.2f} MB/h (95 % interval +-{self.interval:.2f})"
        return f"resident memory {slope}, {self.first:.1f} MB at the first fifth, {self.last:.1f} MB at the end"


def growth(seconds: Sequence[float], resident_bytes: Sequence[int]) -> Growth:
    """Least squares over the samples after the warm-up."""
    skip = int(_WARM_UP * len(seconds))
    hours = np.asarray(seconds[skip:]) / 3600
    megabytes = np.asarray(resident_bytes[skip:]) / 1e6
    (slope, _), covariance = np.polyfit(hours, megabytes, 1, cov=True)
    return Growth(
        per_hour=float(slope),
        interval=1.96 * float(np.sqrt(covariance[0, 0])),
        first=float(megabytes[0]),
        last=float(megabytes[-1]),
    )


async def soak(
    flags: Sequence[str],
    *,
    path: str,
    source: Iterator[str],
    rate: float,
    minutes: float,
    sample_every_s: float = 2.0,
) -> tuple[Outcome, Growth]:
    """What became of the requests, and of the server's memory."""
    async with AsyncExitStack() as stack:
        server = await Server.start(flags, stack=stack)
        await server.until_ready()
        traffic = Traffic(server.host, server.port, path=path, texts=source, rate=rate)
        running = asyncio.create_task(traffic.run())
        started = time.perf_counter()
        seconds: list[float] = []
        sizes: list[int] = []
        while (elapsed := time.perf_counter() - started) < 60 * minutes and not running.done():
            seconds.append(elapsed)
            sizes.append(server.resident_bytes())
            await asyncio.sleep(sample_every_s)
        traffic.stop()
        await running
        server.process.send_signal(signal.SIGTERM)
        await server.process.wait()
    return traffic.outcome, growth(seconds, sizes)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=20, help="requests a second")
    parser.add_argument("--path", default="/v1/ha/ner")
    parser.add_argument("--texts", type=Path, help="a folder of .txt or .txt.xz files")
    arguments, flags = parser.parse_known_args()
    source = texts.made_up() if arguments.texts is None else texts.lines(arguments.texts)
    outcome, memory = asyncio.run(
        soak(flags, path=arguments.path, source=source, rate=arguments.rate, minutes=arguments.minutes)
    )
    print(f"{arguments.minutes:g} minutes at {arguments.rate:g}/s: {outcome}\n{memory}")
    return 1 if outcome.n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
