"""Send varied texts to a server for a long time and report how its memory grows.

    python -m tests.load.soak --minutes 30 --rate 20 --texts <folder of .txt or .txt.xz> --store model_store --lang ha

Without ``--texts`` the texts are made up. The slope is of a straight line through the means of the minutes after the
first fifth, in which caches and arenas fill. Exits 1 if a request failed, or if the server counted another number.
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
from scipy import stats

from tests.load import texts
from tests.load.server import Server
from tests.load.traffic import Outcome, Traffic

_WARM_UP = 0.2
_MEAN_OF_S = 60.0
_TOLD_EVERY_S = 300.0


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Megabytes an hour with the half-width of its 95 % interval, and megabytes after the warm-up and at the end."""

    per_hour: float
    interval: float
    first: float
    last: float

    def __str__(self) -> str:
        slope = f"{self.per_hour:+.2f} MB/h (95 % interval +-{self.interval:.2f})"
        return f"resident memory {slope}, {self.first:.1f} MB at the first fifth, {self.last:.1f} MB at the end"


def growth(seconds: Sequence[float], resident_bytes: Sequence[int]) -> Growth:
    """Least squares over the means of the minutes after the warm-up; neighbouring samples hang together, minutes less.

    With fewer than three minutes there is no interval, and both figures of the slope are not a number.
    """
    at, megabytes = np.asarray(seconds), np.asarray(resident_bytes) / 1e6
    warm = at >= _WARM_UP * at[-1]
    at, megabytes = at[warm], megabytes[warm]
    minutes = ((at - at[0]) // _MEAN_OF_S).astype(int)
    hours, means = (np.bincount(minutes, values) / np.bincount(minutes) for values in (at / 3600, megabytes))
    slope = interval = np.nan
    if (n := len(means)) > 2:
        line = stats.linregress(hours, means)
        slope, interval = line.slope, stats.t.ppf(0.975, n - 2) * line.stderr
    return Growth(per_hour=float(slope), interval=float(interval), first=float(means[0]), last=float(means[-1]))


@dataclass(frozen=True, kw_only=True)
class Soaked:
    """What became of the requests, how many the server counted, its processor time a second, and its memory."""

    outcome: Outcome
    n_counted: int
    cpu_share: float
    memory: Growth

    @property
    def is_good(self) -> bool:
        """Every request was answered with 200, and counted once."""
        return not self.outcome.n_failed and self.n_counted == self.outcome.n_sent

    def __str__(self) -> str:
        counted = f"{self.n_counted} counted by the server, which used {100 * self.cpu_share:.0f} % of a core"
        return f"{self.outcome}\n{counted}\n{self.memory}"


async def soak(
    flags: Sequence[str],
    *,
    path: str,
    source: Iterator[str],
    rate: float,
    minutes: float,
    sample_every_s: float = 2.0,
) -> Soaked:
    """Load a server of its own, and what was seen of it."""
    async with AsyncExitStack() as stack:
        server = await Server.start(flags, stack=stack)
        await server.until_ready()
        traffic = Traffic(server.host, server.port, path=path, texts=source, rate=rate)
        running = asyncio.create_task(traffic.run())
        started, begun_cpu_s = time.perf_counter(), server.cpu_s()
        seconds: list[float] = []
        sizes: list[int] = []
        n_told = 0
        while (elapsed := time.perf_counter() - started) < 60 * minutes and not running.done():
            seconds.append(elapsed)
            sizes.append(server.resident_bytes())
            if elapsed // _TOLD_EVERY_S > n_told:
                n_told += 1
                print(f"{elapsed / 60:.0f} min: {sizes[-1] / 1e6:.1f} MB; {traffic.outcome}", flush=True)
            await asyncio.sleep(sample_every_s)
        traffic.stop()
        await running
        cpu_share = (server.cpu_s() - begun_cpu_s) / (time.perf_counter() - started)
        n_counted = await server.n_counted()
        server.process.send_signal(signal.SIGTERM)
        await server.process.wait()
    return Soaked(outcome=traffic.outcome, n_counted=n_counted, cpu_share=cpu_share, memory=growth(seconds, sizes))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=20, help="requests a second")
    parser.add_argument("--path", default="/v1/ha/ner")
    parser.add_argument("--texts", type=Path, help="a folder of .txt or .txt.xz files")
    arguments, flags = parser.parse_known_args()
    source = texts.made_up() if arguments.texts is None else texts.lines(arguments.texts)
    soaked = asyncio.run(
        soak(flags, path=arguments.path, source=source, rate=arguments.rate, minutes=arguments.minutes)
    )
    print(f"{arguments.minutes:g} minutes at {arguments.rate:g}/s: {soaked}")
    return 0 if soaked.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
