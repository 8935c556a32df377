"""The configuration of a build: a preset says how much, a method laid over it says how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from app.errors import ConfigError, UnknownChoice
from distill import config as configuration
from distill.adaptation import Adaptation
from distill.bilingual import Phase1
from distill.objectives.base import Sum
from distill.student import Initialization, Strategy, layer_map
from distill.tasks.base import TASKS
from distill.teach import Tuning
from distill.transfer import Phase2

CONFIGS = Path(__file__).parent / "configs"
METHODS = CONFIGS / "methods"

_HOW = {
    "student": (
        *("layer_reduction_factor", "hidden_size_reduction_factor"),
        *("strategy", "alignment", "initialization"),
    ),
    "phase1": ("objective", "teacher_objective", "frozen", "predict", "length"),
    "transfer": (
        *("objective", "teacher_objective", "intermediate", "frozen"),
        *("density", "start", "copy_head", "unlabelled_share"),
    ),
}
"""What a method says, table by table; a preset's word on it counts where there is no method."""

_EXAMPLES = {"teach": "max_examples=64", "transfer": "sparse_epochs=3"}


@dataclass(frozen=True, kw_only=True)
class Student:
    """What is cut: the vocabulary below `threshold`, layers and width; and where the weights come from.

    `strategy` picks the layers that are copied, `alignment` those that the objectives compare them with: the same
    unless it is given.
    """

    threshold: float = 1e-6
    keep_characters: bool = True
    layer_reduction_factor: int = 2
    hidden_size_reduction_factor: int = 1
    strategy: Strategy = "regular"
    alignment: Strategy | None = None
    initialization: Initialization = "teacher"

    def copied(self, layers: tuple[int, ...]) -> tuple[int, ...]:
        """The teacher's layer that each of the student's, as many as `layers`, is a copy of at first."""
        factor = self.layer_reduction_factor
        return layer_map(factor * len(layers), factor, self.strategy)


@dataclass(frozen=True, kw_only=True)
class Export:
    """What is published. `test_examples` and `calibration_texts` bound the time; 0 test examples means all.

    The task teacher goes to `teacher_store` as a bundle of its own, for the server's live proof; to none where empty.
    A bundle has the `vocabulary` of the language pair; or, since the labels' language is for training, those of its
    pieces alone whose share of the target's text reaches `threshold`.
    """

    exporter: Literal["torch", "optimum"] = "torch"
    precisions: tuple[str, ...] = ("fp32", "int8")
    engines: tuple[str, ...] = ("onnx",)
    calibration_texts: int = 200
    test_examples: int = 0
    rounds: int = 20
    teacher_store: str = ""
    vocabulary: Literal["pair", "target"] = "pair"
    threshold: float = 2e-6


@dataclass(frozen=True, kw_only=True)
class Build:
    """What `python -m distill build` does; `teach` and `transfer` are per task and start from `default`.

    `method` names the TOML of `configs/methods` that was laid over the preset. Builds with one `pool` share every stage
    whose inputs are the same. With `adapted`, teachers carry the language SFTs that `adapt` says how to get.
    """

    tgt: str
    phase1: Phase1
    teach: dict[str, Tuning]
    transfer: dict[str, Phase2]
    method: str = ""
    src: tuple[str, ...] = ("en",)
    teacher: str = "model_store/mmt-mini"
    target_labels: bool = False
    tasks: tuple[str, ...] = ("ner", "pos", "nli", "qa")
    data: Path = Path("data")
    text: tuple[Path, ...] = ()
    out: Path = Path("runs")
    pool: Path | None = None
    store: Path = Path("model_store")
    licence: str = ""
    adapted: bool = False
    adapt: Adaptation | None = None
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
    def labels(self) -> tuple[str, ...]:
        """Languages whose labels are learnt from: the sources, and the target with `target_labels`."""
        return self.languages if self.target_labels else tuple(dict.fromkeys(self.src))

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

    The method is the last `method` that preset and sources name; it takes the place of what the preset says on how
    to distil. Without one the preset stands alone.
    """
    if preset not in presets():
        raise UnknownChoice("preset", preset, presets())
    layers = [configuration.toml(CONFIGS / f"{preset}.toml")]
    if named := [source["method"] for source in (*layers, *sources) if "method" in source]:
        layers = [_how_much(layers[0]), *_method(named[-1])]
    merged = configuration.merge([*layers, *sources])
    for table in ("teach", "transfer"):
        _inherit(merged, table)
    build = configuration.read(Build, [merged])
    _check_unread(configuration.merge(layers), configuration.merge(sources))
    _check_objectives(build)
    _check_widths(build)
    if build.adapted and build.adapt is None:
        raise ConfigError("adapted = true, but no [adapt] table says how language SFTs are learnt")
    for table in ("teach", "transfer"):
        said = getattr(build, table)
        if "default" not in said and (missing := [task for task in build.tasks if task not in said]):
            raise ConfigError(f"[{table}] says nothing about {', '.join(missing)} and has no default")
    return build


def _check_unread(stated: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raises ConfigError for a setting of phase 2's tuning that phase 2 does not read, unless a preset states it so."""
    known = [phase.get("tuning", {}) for phase in stated.get("transfer", {}).values()]
    for task, phase in given.get("transfer", {}).items():
        for name in ("epochs", "warmup_share"):
            value = phase.get("tuning", {}).get(name)
            if value is not None and value not in [tuning.get(name) for tuning in known]:
                raise ConfigError(
                    f"transfer.{task}.tuning.{name} = {value} would change nothing: phase 2 has full_epochs and "
                    "sparse_epochs, and no warm-up"
                )


def _check_objectives(build: Build) -> None:
    """Raises ConfigError for an objective that there is none of, or that learns from gold which the phase lacks."""
    phase1 = (build.phase1.objective, build.phase1.teacher_objective)
    phase2 = [
        table
        for phase in build.transfer.values()
        for table in (phase.objective, phase.teacher_objective, phase.intermediate)
    ]
    for tables, absent, where in ((phase1, "task", "phase 1, which has no labels"), (phase2, "mlm", "phase 2")):
        for table in tables:
            if table and absent in Sum.of(table).parts:
                raise ConfigError(f"objective.{absent} has nothing to learn from in {where}")
    for where, table in [
        ("phase1", build.phase1.teacher_objective),
        *((f"transfer.{task}", phase.teacher_objective) for task, phase in build.transfer.items()),
    ]:
        for name, (_, objective) in Sum.of(table).parts.items() if table else ():
            if not objective.needs <= {"logits", "labels"}:
                raise ConfigError(
                    f"{where}.teacher_objective.{name} compares layers, from which a teacher does not learn: take of "
                    "logits, task and mlm"
                )
    for task, phase in build.transfer.items():
        if phase.density < 1 and phase.tuning.weight_decay:
            raise ConfigError(
                f"transfer.{task}.tuning.weight_decay = {phase.tuning.weight_decay} would move what a sparse phase "
                "leaves alone: take 0, or density = 1.0"
            )
        if phase.intermediate and phase.teacher_objective:
            raise ConfigError(
                f"transfer.{task} has intermediate objectives, in which the teacher stands still, and a "
                "teacher_objective, by which it learns: leave one out"
            )


def _check_widths(build: Build) -> None:
    """Raises ConfigError where a narrower student would begin phase 2 with weights of its wider task teacher."""
    if build.student.hidden_size_reduction_factor == 1:
        return
    for task, phase in build.transfer.items():
        for setting, value, needed in (("start", phase.start, "student"), ("copy_head", phase.copy_head, False)):
            if value != needed:
                raise ConfigError(
                    f"transfer.{task}.{setting} = {value} copies the task teacher's weights, so the student must be of "
                    f"its width: with student.hidden_size_reduction_factor it has to be {needed}"
                )


def _how_much(preset: Mapping[str, Any]) -> dict[str, Any]:
    """The preset without what is a method's to say."""
    kept = configuration.merge([preset])
    for table, keys in _HOW.items():
        for part in kept.get("transfer", {}).values() if table == "transfer" else [kept.get(table, {})]:
            for key in keys:
                part.pop(key, None)
    return kept


def _method(name: str) -> list[dict[str, Any]]:
    """The method's TOML, after the one that it `extends`. Raises UnknownChoice."""
    if name not in methods():
        raise UnknownChoice("method", name, methods())
    said = configuration.toml(METHODS / f"{name}.toml")
    extended = said.pop("extends", None)
    return [*(_method(extended) if extended else []), said]


def presets() -> list[str]:
    """The configurations that a build can start from."""
    return sorted(path.stem for path in CONFIGS.glob("*.toml") if "phase1" in configuration.toml(path))


def methods() -> list[str]:
    """The configurations that can be laid over a preset."""
    return sorted(path.stem for path in METHODS.glob("*.toml"))


def _inherit(merged: Mapping[str, Any], name: str) -> None:
    """Each task of the table starts from `default`. Raises ConfigError where a setting is given without either."""
    table = merged.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{name} = {table!r}: expected a table by task, as in {name}.default.{_EXAMPLES[name]}")
    for task, settings in table.items():
        if not isinstance(settings, Mapping):
            setting = _EXAMPLES[name] if task in ("default", *TASKS) else f"{task}={settings}"
            raise ConfigError(f"{name}.{task}: name a task or default, as in {name}.default.{setting}")
        if task not in ("default", *TASKS):
            raise UnknownChoice(f"task in {name}", task, ("default", *TASKS))
    for task in table:
        if task != "default":
            table[task] = configuration.merge([table.get("default", {}), table[task]])
