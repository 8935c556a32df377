"""Every collector, and what fills it."""

import math
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    Histogram,
    Summary,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client import Counter as Total

from app.agreement import OUTCOMES, Outcome
from app.batching import BatchStats
from app.energy import Account, Ledger, Used
from app.errors import error_types
from app.store import Served
from app.trace import Trace

_LADDER = tuple(0.00025 * 2 ** (step / 2) for step in range(31))
_FINE_LADDER = tuple(0.00025 * 1.2**step for step in range(58))
_POWERS = tuple(float(2**power) for power in range(14))
_OK = 200
_GONE = 499
_FAILED = 500
_CODES = sorted({200, 404, 405, 408, 413, 422, _GONE, _FAILED} | {error.status for error in error_types()} - {400})
_STAGES = ("parse", "tokenize", "queue", "forward", "decode", "serialize")
_REASONS = sorted(
    {"body-too-large", "method-not-allowed", "not-found", "request-timeout"}
    | {error.type for error in error_types() if error.status not in (400, _GONE, _FAILED)}
)
NOBODY = ("none", "none")


class Metrics:
    """The collectors of one app, on a registry of its own. ``lang`` and ``task`` are only ever served ones or none."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.ledger = ledger or Ledger(None)
        self._answered: Counter[tuple[str, str]] = Counter()
        disable_created_metrics()  # type: ignore[no-untyped-call]  # series beside each counter that nothing reads
        self.registry = registry = CollectorRegistry()
        model = ("lang", "task")
        self.requests = Total("bistil_requests", "Requests answered.", (*model, "code"), registry=registry)
        self.duration = Histogram(
            "bistil_request_duration_seconds", "Request to last byte.", model, buckets=_LADDER, registry=registry
        )
        self.stages = Histogram(
            "bistil_stage_duration_seconds", "Time in one stage.", (*model, "stage"), buckets=_LADDER, registry=registry
        )
        self.input_tokens = Histogram(
            "bistil_input_tokens", "Tokens of a request, windows summed.", model, buckets=_POWERS, registry=registry
        )
        self.unk_ratio = Histogram(
            "bistil_input_unk_ratio",
            "Share of an input's pieces that are unknown, or rare in the model's languages.",
            model,
            buckets=(0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0),
            registry=registry,
        )
        self.windows = Total("bistil_windows", "Rows run for requests.", model, registry=registry)
        self.rejected = Total(
            "bistil_rejected", "Requests refused or given up, by problem type.", ("reason",), registry=registry
        )
        self.client_gone = Total("bistil_client_gone", "Callers that left before the answer.", registry=registry)
        self.batch_sequences = Histogram(
            "bistil_batch_sequences", "Rows of a micro-batch.", buckets=_POWERS, registry=registry
        )
        self.batch_tokens = Histogram(
            "bistil_batch_tokens", "Tokens of a micro-batch, padded.", buckets=_POWERS, registry=registry
        )
        self.batch_padding = Histogram(
            "bistil_batch_padding_ratio",
            "Padding's share of a micro-batch.",
            buckets=(0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0),
            registry=registry,
        )
        self.queue_depth = Gauge("bistil_queue_depth", "Rows waiting for an engine.", registry=registry)
        self.queue_tokens = Gauge("bistil_queue_tokens", "Tokens waiting for an engine.", registry=registry)
        self.ready = Gauge("bistil_ready", "1 when every configured model is served.", registry=registry)
        self.model_info = Gauge(
            "bistil_model_info",
            "A served model.",
            (*model, "role", "precision", "provider", "model_sha"),
            registry=registry,
        )
        self.load_duration = Gauge(
            "bistil_model_load_duration_seconds", "Time to verify, load and warm up.", model, registry=registry
        )
        self.resident = Gauge(
            "bistil_model_resident_bytes",
            "Growth of resident memory while the model loaded.",
            (*model, "role"),
            registry=registry,
        )
        self.quality = Gauge(
            "bistil_model_quality_ratio", "Scores on the card.", (*model, "model", "metric"), registry=registry
        )
        self.shadow_pairs = Total(
            "bistil_shadow_pairs", "Requests run on teacher and student.", (*model, "mode"), registry=registry
        )
        self.shadow_log_speedup = Summary(
            "bistil_shadow_log_speedup",
            "ln(teacher / student seconds) where the student was faster, else 0.",
            (*model, "mode"),
            registry=registry,
        )
        # apart, since Prometheus takes any decrease of a sum for a restart
        self.shadow_log_slowdown = Summary(
            "bistil_shadow_log_slowdown",
            "ln(student / teacher seconds) where the student was slower, else 0.",
            (*model, "mode"),
            registry=registry,
        )
        self.shadow_sumsq = Gauge(
            "bistil_shadow_log_speedup_sumsq", "Sum of the squares of both.", (*model, "mode"), registry=registry
        )
        self.shadow_duration = Histogram(
            "bistil_shadow_duration_seconds",
            "Engine time in the live proof.",
            (*model, "mode", "role"),
            buckets=_FINE_LADDER,
            registry=registry,
        )
        self.shadow_agreement = Total(
            "bistil_shadow_agreement",
            "Findings of both, compared.",
            (*model, "outcome"),
            registry=registry,
        )
        self.shadow_dropped = Total(
            "bistil_shadow_dropped", "Sampled requests not run on the teacher.", (*model, "reason"), registry=registry
        )
        self.energy = Total(
            "bistil_energy_joules", "Energy used, by engine seconds.", (*model, "role"), registry=registry
        )
        self.cost = Total("bistil_cost_usd", "Money spent, by engine seconds.", (*model, "role"), registry=registry)
        for reason in _REASONS:
            self.rejected.labels(reason)
        self._initialise(NOBODY)

    def register(self, served: Served) -> None:
        """Begin every series of a model at zero and count its batches."""
        model = (served.language, served.task)
        self._initialise(model)
        for stage in _STAGES:
            self.stages.labels(*model, stage)
        self.input_tokens.labels(*model)
        self.windows.labels(*model)
        if served.guard is not None:
            self.unk_ratio.labels(*model)
        self.load_duration.labels(*model).set(served.load_s)
        if served.resident_bytes is not None:
            self.resident.labels(*model, "student").set(served.resident_bytes)
        for name, metric, score in _scores(served.bundle.manifest.scores):
            self.quality.labels(*model, name, metric).set(score / 100)
        self.model_info.labels(*model, "student", served.variant.precision, _provider(served), served.sha).set(1)
        served.batcher.on_batch = partial(self.batch, (*model, "student"))

    def register_shadow(self, served: Served, *, sha: str, grown_bytes: int | None) -> None:
        """Begin every series of a model's live proof at zero; ``grown_bytes`` is the memory that it took."""
        model = (served.language, served.task)
        self.model_info.labels(*model, "teacher", served.variant.precision, _provider(served), sha).set(1)
        if grown_bytes is not None:
            self.resident.labels(*model, "teacher").set(grown_bytes)
        for mode in ("single", "batch"):
            self.shadow_pairs.labels(*model, mode)
            self.shadow_log_speedup.labels(*model, mode)
            self.shadow_log_slowdown.labels(*model, mode)
            self.shadow_sumsq.labels(*model, mode)
            for role in ("teacher", "student"):
                self.shadow_duration.labels(*model, mode, role)
        for outcome in OUTCOMES:
            self.shadow_agreement.labels(*model, outcome)
        for reason in ("busy", "backlog", "budget", "failed"):
            self.shadow_dropped.labels(*model, reason)

    def shadow(
        self,
        language: str,
        task: str,
        *,
        seconds: Mapping[str, tuple[float, float]],
        agreement: Mapping[Outcome, int],
        disturbed: Collection[str] = (),
    ) -> None:
        """Count one request of the live proof; ``seconds`` are the teacher's and the student's, by mode.

        Each ran twice, once untimed. Modes that were ``disturbed`` used energy, and make no pair.
        """
        model = (language, task)
        self.ledger.spend((*model, "shadow"), 2 * sum(map(sum, seconds.values())))
        for mode, (teacher_s, student_s) in seconds.items():
            if mode in disturbed:
                continue
            ratio = math.log(teacher_s / student_s)
            self.shadow_pairs.labels(*model, mode).inc()
            self.shadow_log_speedup.labels(*model, mode).observe(max(ratio, 0.0))
            self.shadow_log_slowdown.labels(*model, mode).observe(max(-ratio, 0.0))
            self.shadow_sumsq.labels(*model, mode).inc(ratio**2)
            self.shadow_duration.labels(*model, mode, "teacher").observe(teacher_s)
            self.shadow_duration.labels(*model, mode, "student").observe(student_s)
        for outcome, count in agreement.items():
            self.shadow_agreement.labels(*model, outcome).inc(count)

    def batch(self, account: Account, stats: BatchStats) -> None:
        """Count one micro-batch, on the account of the model that it ran on."""
        self.ledger.spend(account, stats.engine_s)
        if self.ledger.is_due:
            self._settle()
        self.batch_sequences.observe(stats.n_rows)
        self.batch_tokens.observe(stats.n_padded)
        self.batch_padding.observe(1 - stats.n_tokens / stats.n_padded)

    def request(self, trace: Trace, *, code: int) -> None:
        """Count one answered inference request."""
        model = trace.model or NOBODY
        self.requests.labels(*model, code).inc()
        self.duration.labels(*model).observe(time.perf_counter() - trace.started)
        self._answered[model] += code == _OK
        if code == _GONE:
            self.client_gone.inc()
        elif trace.problem and code != _FAILED:
            self.rejected.labels(trace.problem).inc()
        if trace.model is not None:
            for stage, seconds in trace.stages.items():
                self.stages.labels(*model, stage).observe(seconds)
            for share in trace.rare_shares:
                self.unk_ratio.labels(*model).observe(share)
            self.windows.labels(*model).inc(trace.n_windows)
            if trace.n_tokens:
                self.input_tokens.labels(*model).observe(trace.n_tokens)

    def render(self, served: Iterable[Served], *, ready: bool) -> bytes:
        """The text format of all series, with the gauges read now."""
        self._settle()
        batchers = [model.batcher for model in served]
        self.queue_depth.set(sum(batcher.n_waiting for batcher in batchers))
        self.queue_tokens.set(sum(batcher.waiting_tokens for batcher in batchers))
        self.ready.set(ready)
        return generate_latest(self.registry)

    def per_1000(self, served: Served) -> Used:
        """What 1000 answered requests of the model used so far, in its own engine; 0 before the first."""
        self._settle()
        model = (served.language, served.task)
        used, share = self.ledger.total((*model, "student")), 1000 / max(self._answered[model], 1)
        return Used(
            joules=None if used.joules is None else used.joules * share,
            usd=None if used.usd is None else used.usd * share,
        )

    def _settle(self) -> None:
        for account, used in self.ledger.settle():
            if used.joules is not None:
                self.energy.labels(*account).inc(used.joules)
            if used.usd is not None:
                self.cost.labels(*account).inc(used.usd)

    def _initialise(self, model: tuple[str, str]) -> None:
        for code in _CODES:
            self.requests.labels(*model, code)
        self.duration.labels(*model)


def _provider(served: Served) -> str:
    return str(getattr(served.engine, "provider", served.variant.engine))


def _scores(card: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Model, metric and score, in 0..100, of a manifest's ``scores``; ``low`` and ``high`` bound the main metric."""
    for name, scores in card.items():
        if isinstance(scores, Mapping):
            yield from ((name, metric, score) for metric, score in scores.items() if isinstance(score, int | float))
