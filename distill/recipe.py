"""The configuration of a build: a preset says how much, a method laid over it says how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from app.errors import ConfigError, UnknownChoice
from distill import config as configuration
from distill.bilingual import Phase1
from distill.teach import Tuning
from distill.transfer import Phase2

CONFIGS = Path(__file__).parent / "configs"
METHODS = CONFIGS / "methods"


@dataclass(frozen=True, kw_only=True)
class Student:
    """What is cut: the vocabulary below `threshold` and the layers not in the map."""

    threshold: float = 1e-6
    keep_characters: bool = True
    layer_reduction_factor: int = 2
    strategy: str = "regular"


@dataclass(frozen=True, kw_only=True)
class Export:
    """What is published. `test_examples` and `calibration_texts` bound the time; 0 test examples means all.

    The task teacher goes to `teacher_store` as a bundle of its own, for the server's live proof; to none where empty.
    """

    exporter: Literal["torch", "optimum"] = "torch"
    precisions: tuple[str, ...] = ("fp32", "int8")
    calibration_texts: int = 200
    test_examples: int = 0
    rounds: int = 20
    teacher_store: str = ""


@dataclass(frozen=True, kw_only=True)
class Build:
    """What `python -m distill build` does; `teach` and `transfer` are per task and start from `default`.

    `method` names the TOML of `configs/methods` that was laid over the preset. Builds with one `pool` share every stage
    whose inputs are the same.
    """

    tgt: str
    phase1: Phase1
    teach: dict[str, Tuning]
    transfer: dict[str, Phase2]
    method: str = ""
    src: tuple[str, ...] = ("en",)
    teacher: str = "model_store/mmt-mini"
    tasks: tuple[str, ...] = ("ner", "pos", "nli", "qa")
    data: Path = Path("data")
    text: tuple[Path, ...] = ()
    out: Path = Path("runs")
    pool: Path | None = None
    store: Path = Path("model_store")
    licence: str = ""
    student: Student = field(default_factory=Student)
    export: Export = field(default_factory=Export)

    @property
    def folder(self) -> Path:
        """Where this language pair's stages live."""
        return self.out / f"{'+'.join(self.src)}-{self.tgt}"

    @property
    def languages(self) -> tuple[str, ...]:
        """Source languages, then the target, each once."""
        return tuple(dict.fromkeys((*self.src, self.tgt)))

    @property
    def texts(self) -> tuple[Path, ...]:
        """The folders of plain text: those given, else `text` and `text_nr` below the data folder."""
        return self.text or tuple(p for p in (self.data / "text", self.data / "text_nr") if p.is_dir()) or (self.data,)

    def tuning(self, task: str) -> Tuning:
        """How the task teacher is tuned."""
        return self.teach.get(task) or self.teach["default"]

    def phase2(self, task: str) -> Phase2:
        """How the student is taught."""
        return self.transfer.get(task) or self.transfer["default"]


def read(preset: str, sources: Sequence[Mapping[str, Any]]) -> Build:
    """The preset, the method over it, then each of `sources`. Raises ConfigError with every mistake.

    The method is the last `method` that the sources name; without one the preset stands alone.
    """
    if preset not in presets():
        raise UnknownChoice("preset", preset, presets())
    layers = [configuration.toml(CONFIGS / f"{preset}.toml")]
    if named := [source["method"] for source in sources if "method" in source]:
        if named[-1] not in methods():
            raise UnknownChoice("method", named[-1], methods())
        layers.append(configuration.toml(METHODS / f"{named[-1]}.toml"))
    merged = configuration.merge([*layers, *sources])
    for table in ("teach", "transfer"):
        _inherit(merged.get(table, {}))
    build = configuration.read(Build, [merged])
    for table in ("teach", "transfer"):
        said = getattr(build, table)
        if "default" not in said and (missing := [task for task in build.tasks if task not in said]):
            raise ConfigError(f"[{table}] says nothing about {', '.join(missing)} and has no default")
    return build


def presets() -> list[str]:
    """The configurations that a build can start from."""
    return sorted(path.stem for path in CONFIGS.glob("*.toml") if "phase1" in configuration.toml(path))


def methods() -> list[str]:
    """The configurations that can be laid over a preset."""
    return sorted(path.stem for path in METHODS.glob("*.toml"))


def _inherit(table: dict[str, Any]) -> None:
    """Each task starts from `default`."""
    for task in table:
        if task != "default":
            table[task] = configuration.merge([table.get("default", {}), table[task]])
