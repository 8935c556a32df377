"""Energy and cost: what the machine's counters say was used, apportioned to the models by their engines' seconds."""

import importlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from app.errors import EngineError, MissingExtra

_LOG = logging.getLogger(__name__)
_POWERCAP = Path("/sys/class/powercap")
_SETTLE_EVERY_S = 60.0
_IDLE = ("none", "none", "idle")
Account = tuple[str, str, str]
"""Language, task, and the role that used the engine: student, shadow, or idle."""


class Meter(Protocol):
    """A counter of joules that only grows, from an unknown start."""

    def joules(self) -> float:
        """The counter now.

        :raises OSError: the counter can no longer be read.
        """
        ...


class Rapl:
    """The CPU packages' energy counters, in microjoules; each wraps at a range that it states."""

    def __init__(self, packages: list[Path]) -> None:
        self._packages = packages
        self._ranges = [int((package / "max_energy_range_uj").read_text()) for package in packages]
        self._seen = [self._read(package) for package in packages]
        self._total_uj = 0

    @classmethod
    def open(cls, root: Path = _POWERCAP) -> "Rapl":
        """Of all packages; their domains (cores, DRAM) are parts of them, and they of the platform (``psys``).

        :raises EngineError: the machine shows no counter, or hides it from this user.
        """
        zones = sorted(path for path in root.glob("intel-rapl:*") if path.name.count(":") == 1)
        try:
            packages = [zone for zone in zones if (zone / "name").read_text().startswith("package")]
            if not packages:
                raise EngineError(f"{root} shows no RAPL package")
            return cls(packages)
        except OSError as error:
            raise EngineError(f"{error.filename} cannot be read: {error.strerror}") from error

    def joules(self) -> float:
        """Since the meter was opened; right while it is read at least once a wrap, some minutes at full load."""
        for index, package in enumerate(self._packages):
            now = self._read(package)
            self._total_uj += (now - self._seen[index]) % (self._ranges[index] + 1)
            self._seen[index] = now
        return self._total_uj / 1e6

    @staticmethod
    def _read(package: Path) -> int:
        return int((package / "energy_uj").read_text())


class Nvml:
    """One NVIDIA GPU's energy counter, in millijoules since the driver was loaded."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle

    @classmethod
    def open(cls, index: int) -> "Nvml":
        """Of the GPU of this index.

        :raises MissingExtra: nvidia-ml-py is not installed.
        :raises EngineError: there is no driver, no such GPU, or one without the counter.
        """
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError as error:
            raise MissingExtra.of("a GPU's energy needs NVML", extra="gpu") from error
        try:
            nvml.nvmlInit()
            meter = cls(nvml, nvml.nvmlDeviceGetHandleByIndex(index))
            meter.joules()
        except (nvml.NVMLError, OSError) as error:
            raise EngineError(f"NVML has no energy counter for GPU {index}: {error}") from error
        return meter

    def joules(self) -> float:
        """Since the driver was loaded."""
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000
        except self._nvml.NVMLError as error:
            raise OSError(str(error)) from error


def open_meter(device: str) -> Meter | None:
    """The counter of the device that models run on; None, and a line in the log, where the machine does not tell."""
    kind, _, index = device.partition(":")
    try:
        meter: Meter = Nvml.open(int(index or 0)) if kind != "cpu" else Rapl.open()
    except (EngineError, MissingExtra) as error:
        _LOG.warning("energy is unavailable: %s", error)
        return None
    _LOG.info("energy is read from %s", type(meter).__name__)
    return meter


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What an account used; None where the machine does not tell, or no price is known."""

    joules: float | None
    usd: float | None


class Ledger:
    """Splits energy and money among accounts: in proportion to engine seconds of the time that passed, the rest idle.

    Energy is the whole package's or GPU's, with what it uses at rest and for others. Where engines ran side by side for
    more seconds than passed, everything is split among them.
    """

    def __init__(
        self, meter: Meter | None, *, usd_per_hour: float = 0.0, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._meter = meter
        self._usd_per_s = usd_per_hour / 3600
        self._clock = clock
        self._seconds: defaultdict[Account, float] = defaultdict(float)
        self._joules: defaultdict[Account, float] = defaultdict(float)
        self._usd: defaultdict[Account, float] = defaultdict(float)
        self._settled_at = clock()
        self._settled_joules = meter.joules() if meter is not None else 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is long since the counters were read."""
        return self._clock() - self._settled_at > _SETTLE_EVERY_S

    def spend(self, account: Account, seconds: float) -> None:
        """Note that the account's engine ran for ``seconds``."""
        self._seconds[account] += seconds

    def settle(self) -> Iterator[tuple[Account, Used]]:
        """What each account used since the last time."""
        now = self._clock()
        passed, self._settled_at = now - self._settled_at, now
        joules = self._read()
        seconds, self._seconds = self._seconds, defaultdict(float)
        busy = sum(seconds.values())
        whole = max(passed, busy)
        if whole <= 0:
            return
        for account, its in [*seconds.items(), (_IDLE, whole - busy)]:
            used = Used(
                joules=None if joules is None else joules * its / whole,
                usd=self._usd_per_s * passed * its / whole if self._usd_per_s else None,
            )
            self._joules[account] += used.joules or 0.0
            self._usd[account] += used.usd or 0.0
            yield account, used

    def total(self, account: Account) -> Used:
        """What the account used up to the last settling."""
        return Used(
            joules=None if self._meter is None else self._joules[account],
            usd=self._usd[account] if self._usd_per_s else None,
        )

    def _read(self) -> float | None:
        if self._meter is None:
            return None
        try:
            now = self._meter.joules()
        except OSError as error:
            _LOG.warning("energy is unavailable from now on: %s", error)
            self._meter = None
            return None
        used, self._settled_joules = now - self._settled_joules, now
        return used
