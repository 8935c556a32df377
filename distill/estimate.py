"""`--dry-run`: what a build's stages will take, from a layer timed on this machine and a sample of the data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table

from app.errors import ConfigError
from distill import adaptation, inputs, stage
from distill.inputs import EVALUATED
from distill.measurements import Measurements, Reading
from distill.recipe import Build
from distill.speed import Model, Speed
from distill.student import layer_map
from distill.tasks.base import Example
from distill.teach import Tuning
from distill.teacher import resolve
from distill.training import Schedule, is_half

NOTE = """An estimate: a layer of the encoder and the tokenizer were timed here, just now; other work makes it longer.
Writing and quantizing ONNX files is not in it. Memory and disk are what a stage needs at its peak; in all, what stays
and the most that one stage adds for a while. Until `trim` has been run, the whole vocabulary is counted."""
_UNKNOWNS_COUNTED_IN = 20_000


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a stage takes: `disk` stays, `scratch` is gone when it ends; `is_done` where its result is there.

    Stages of one `mark` share a result.
    """

    name: str
    seconds: float
    memory: int
    disk: int
    scratch: int = 0
    is_done: bool = False
    mark: str = ""


def estimate(build: Build, stages: Sequence[str], *, measured: Measurements) -> list[Cost]:
    """The cost of each of `stages`, in the order of a build. Nothing is written."""
    plan = _Plan(build, measured)
    shared: dict[str, Callable[[], Cost]] = {
        "trim": plan.trim,
        "adapt": plan.adapt,
        "student": plan.student_made,
        "distill": plan.distill,
    }
    costs = [shared[name]() for name in stages if name in shared]
    of_a_task = {"teach": plan.teach, "transfer": plan.transfer, "evaluate": plan.evaluate, "export": plan.export}
    costs += [of_a_task[name](task) for task in build.tasks for name in stages if name in of_a_task]
    return costs


def together(name: str, costs: Sequence[Cost]) -> Cost:
    """Times and what stays are added; of the memory and the scratch of what is left the largest counts."""
    left = [cost for cost in costs if not cost.is_done]
    return Cost(
        name=name,
        seconds=sum(cost.seconds for cost in left),
        memory=max((cost.memory for cost in left), default=0),
        disk=sum(cost.disk for cost in costs),
        scratch=max((cost.scratch for cost in left), default=0),
    )


def table(costs: Sequence[Cost], *, of: str = "stage", note: str = NOTE) -> Table:
    """The costs, and all of them together."""
    shown = Table(caption=" ".join(note.split()), caption_justify="left")
    shown.add_column(of)
    for column in ("time", "memory", "disk"):
        shown.add_column(column, justify="right")
    for cost in costs:
        told = "done" if cost.is_done else _time(cost.seconds)
        shown.add_row(cost.name, told, _size(cost.memory), _size(cost.disk + cost.scratch))
    whole = together("in all", costs)
    shown.add_section()
    shown.add_row(whole.name, _time(whole.seconds), _size(whole.memory), _size(whole.disk + whole.scratch))
    return shown


class _Plan:
    """A build's sizes, read once, and each stage's cost from them."""

    def __init__(self, build: Build, measured: Measurements) -> None:
        self.build, self._measured = build, measured
        self._folder = resolve(build.teacher)
        self._marks = inputs.fingerprints(build)
        self.whole = measured.model(self._folder)
        config = self.whole.config
        trimmed = stage.found(build.folder / "trim", self._marks["trim"], pool=build.pool)
        pieces = trimmed["pieces_after"] if trimmed else config.vocab_size
        how = build.student
        width = how.hidden_size_reduction_factor
        self.teacher = measured.model(self._folder, vocab_size=pieces)
        self.student = measured.model(
            self._folder,
            vocab_size=pieces,
            num_hidden_layers=len(layer_map(config.num_hidden_layers, how.layer_reduction_factor)),
            hidden_size=config.hidden_size // width,
            intermediate_size=config.intermediate_size // width,
        )

    def trim(self) -> Cost:
        text = self._reading
        again = 2 * min(1.0, len(self.build.languages) * _UNKNOWNS_COUNTED_IN / text.lines)
        return self._cost(
            "trim", seconds=(1 + again) * text.seconds, memory=2 * self.whole.bytes, disk=self.teacher.bytes
        )

    def adapt(self) -> Cost:
        how = self.build.adapt
        if how is None:
            raise ConfigError(adaptation.UNSAID)
        learnt = [language for language in self.build.languages if language not in how.files]
        speed = self._speed(self.teacher, how.batch_size, how.sequence_length, how.schedule)
        steps = len(learnt) * how.schedule.steps
        return self._cost(
            "adapt",
            seconds=self._reading.seconds
            + self._learn(steps, how.schedule, how.batch_size * how.sequence_length, speed),
            memory=4 * self.teacher.bytes + self.teacher.activations(how.batch_size, how.sequence_length),
            disk=len(learnt) * self.teacher.bytes,
            scratch=4 * self.teacher.bytes,
            places=[f"adapt-{language}" for language in self.build.languages],
        )

    def student_made(self) -> Cost:
        return self._cost("student", seconds=0, memory=self.teacher.bytes + self.student.bytes, disk=self.student.bytes)

    def distill(self) -> Cost:
        phase = self.build.phase1
        schedule, shape = phase.schedule, (phase.batch_size, phase.sequence_length)
        steps = round(phase.length * schedule.steps)
        tokens = phase.batch_size * phase.sequence_length
        looks = steps // schedule.evaluate_every + 1 if schedule.evaluate_every else 1
        seconds = self._reading.seconds + self._imitate(steps, schedule, shape)
        seconds += looks * phase.heldout_batches * tokens * self._pass(shape, schedule)
        return self._cost(
            "distill",
            seconds=seconds if steps else 0,
            memory=self.teacher.bytes + 4 * self.student.bytes + self.student.activations(*shape),
            disk=self.student.bytes,
            scratch=4 * self.student.bytes,
        )

    def teach(self, task: str) -> Cost:
        tuning = self.build.tuning(task)
        n, n_dev, length = self._labelled(task, tuning)
        schedule = tuning.schedule(-(-n // tuning.batch_size))
        speed = self._speed(self.teacher, tuning.batch_size, length, schedule)
        seconds = self._learn(schedule.steps, schedule, tuning.batch_size * length, speed)
        seconds += tuning.evaluations * n_dev * length * self.teacher.layers * speed.forward
        return self._cost(
            f"{task}/teach",
            seconds=seconds,
            memory=4 * self.teacher.bytes + self.teacher.activations(tuning.batch_size, tuning.max_length),
            disk=self.teacher.bytes,
            scratch=4 * self.teacher.bytes,
        )

    def transfer(self, task: str) -> Cost:
        phase = self.build.phase2(task)
        tuning = phase.tuning
        n, n_dev, length = self._labelled(task, tuning)
        shape = (tuning.batch_size, length)
        parts = [phase.full_epochs, phase.sparse_epochs] if phase.density < 1 else [phase.sparse_epochs]
        parts += [phase.full_epochs] if phase.intermediate else []
        labelling = self._speed(self.teacher, *shape, tuning.schedule(1))
        seconds = phase.unlabelled_share * n * length * self.teacher.layers * labelling.forward
        for epochs in parts:
            schedule = tuning.schedule(-(-n // tuning.batch_size), epochs=epochs)
            looking = self._speed(self.student, *shape, schedule)
            seconds += self._imitate(schedule.steps, schedule, shape)
            seconds += tuning.evaluations * n_dev * length * self.student.layers * looking.forward
        # the delta: every value, or those of some with their places, and the mask
        sparse = round((1 + 12 * phase.density) * self.student.parameters)
        delta = self.student.bytes if phase.density == 1 else sparse
        return self._cost(
            f"{task}/transfer",
            seconds=seconds,
            memory=self.teacher.bytes
            + 5 * self.student.bytes
            + self.student.activations(tuning.batch_size, tuning.max_length),
            disk=self.student.bytes + delta,
            scratch=5 * self.student.bytes,
        )

    def evaluate(self, task: str) -> Cost:
        tokens, speed = self._tested(task)
        layers = self.teacher.layers + self.student.layers
        return self._cost(
            f"{task}/evaluate",
            seconds=tokens * layers * speed.forward,
            memory=self.teacher.bytes,
            disk=0,
            places=[f"{task}/evaluate-{who}" for who in ("baseline", *EVALUATED)],
        )

    def export(self, task: str) -> Cost:
        how = self.build.export
        tokens, speed = self._tested(task)
        variants = len(how.precisions) * len(how.engines)
        kept = self.student.bytes * len(how.engines) * sum(1.0 if name == "fp32" else 0.25 for name in how.precisions)
        return self._cost(
            f"{task}/export",
            seconds=variants * tokens * self.student.layers * speed.forward,
            memory=2 * (self.teacher.bytes + self.student.bytes),
            disk=round(kept),
            scratch=self.teacher.bytes + self.student.bytes,
        )

    def _cost(
        self, name: str, *, seconds: float, memory: int, disk: int, scratch: int = 0, places: Sequence[str] = ()
    ) -> Cost:
        """`places` are the folders of what is told as one, below the build's."""
        marks = {place: self._marks[place] for place in places or [name]}
        pool = None if name.endswith("/export") else self.build.pool
        done = [stage.found(self.build.folder / place, mark, pool=pool) for place, mark in marks.items()]
        return Cost(
            name=name,
            seconds=seconds,
            memory=self._measured.resident + memory,
            disk=disk,
            scratch=scratch,
            is_done=None not in done,
            mark="+".join(marks.values()),
        )

    def _learn(self, steps: int, schedule: Schedule, tokens: int, speed: Speed) -> float:
        """Seconds of tuning the teacher."""
        there_and_back = schedule.accumulate * tokens * self.teacher.layers * speed.both
        return steps * (there_and_back + self.teacher.parameters * speed.update)

    def _imitate(self, steps: int, schedule: Schedule, shape: tuple[int, int]) -> float:
        """Seconds of a student learning from the teacher: forwards through one, there and back through the other."""
        mine = self._speed(self.student, *shape, schedule)
        theirs = self._speed(self.teacher, *shape, schedule)
        a_token = self.teacher.layers * theirs.forward + self.student.layers * mine.both
        tokens = shape[0] * shape[1]
        return steps * (schedule.accumulate * tokens * a_token + self.student.parameters * mine.update)

    def _pass(self, shape: tuple[int, int], schedule: Schedule) -> float:
        """Seconds a token forwards through both."""
        models = (self.teacher, self.student)
        return sum(model.layers * self._speed(model, *shape, schedule).forward for model in models)

    def _speed(self, model: Model, rows: int, length: int, schedule: Schedule) -> Speed:
        return self._measured.speed(model, rows, length, is_half(schedule))

    def _labelled(self, task: str, tuning: Tuning) -> tuple[int, int, int]:
        """How many rows are trained on and how many are looked at, and their mean length in tokens."""
        limits = {"train": tuning.max_examples, "dev": tuning.max_dev}
        found = {
            split: self._measured.examples(task, self.build.data, self.build.labels, split, limit)
            for split, limit in limits.items()
        }
        rows, length = self._rows(task, found["train"])
        return round(rows * len(found["train"])), round(rows * len(found["dev"])), length

    def _tested(self, task: str) -> tuple[int, Speed]:
        """The tokens of the test data, and the speed on them."""
        limit = self.build.export.test_examples
        examples = self._measured.examples(task, self.build.data, (self.build.tgt,), "test", limit)
        rows, length = self._rows(task, examples)
        tuning = self.build.tuning(task)
        return round(rows * len(examples)) * length, self._speed(
            self.teacher, tuning.batch_size, length, tuning.schedule(1)
        )

    def _rows(self, task: str, examples: Sequence[Example]) -> tuple[float, int]:
        return self._measured.rows(task, examples, tuning=self.build.tuning(task), folder=self._folder)

    @property
    def _reading(self) -> Reading:
        return self._measured.reading(self._folder, self.build.texts, self.build.languages)


def _time(spent: float) -> str:
    if spent < 90:
        return f"{spent:.0f} s"
    return f"{spent / 60:.0f} min" if spent < 90 * 60 else f"{spent / 3600:.1f} h"


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:,.0f} MB" if n_bytes < 1e9 else f"{n_bytes / 1e9:,.1f} GB"
