"""Every collector, and the one middleware that fills them: each request is counted once, here."""

import asyncio
import logging
import math
import re
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
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
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.agreement import OUTCOMES, Outcome
from app.batching import BatchStats
from app.body import limited
from app.energy import Account, Ledger, Used
from app.errors import error_types
from app.problems import problem
from app.store import Served

_LOG = logging.getLogger(__name__)
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
_COUNTED = ("/v1/", "/v2/")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
NOBODY = ("none", "none")


@dataclass(slots=True)
class Trace:
    """What one request was about and where its time went, filled in on its way.

    ``stages`` are in seconds; ``problem`` is the type of the problem it was answered with; ``after_reply`` is called
    when a good answer has been sent.
    """

    request_id: str
    started: float
    model: tuple[str, str] | None = None
    stages: dict[str, float] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    n_windows: int = 0
    n_tokens: int = 0
    rare_shares: list[float] = field(default_factory=list)
    problem: str = ""
    after_reply: Callable[[], None] | None = None


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
        self, language: str, task: str, *, seconds: Mapping[str, tuple[float, float]], agreement: Mapping[Outcome, int]
    ) -> None:
        """Count one request of the live proof; ``seconds`` are the teacher's and the student's, by mode.

        Each ran twice, once untimed.
        """
        model = (language, task)
        self.ledger.spend((*model, "shadow"), 2 * sum(map(sum, seconds.values())))
        for mode, (teacher_s, student_s) in seconds.items():
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
        self.ledger.spend(account, stats.forward_s)
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
            if trace.n_windows:
                self.windows.labels(*model).inc(trace.n_windows)
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


class Instrument:
    """ASGI middleware: a request's id, byte limit, headers and count, and a problem for what nobody caught."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        max_body_bytes: int,
        body_timeout_s: float,
        is_draining: Callable[[], bool],
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.max_body_bytes = max_body_bytes
        self.body_timeout_s = body_timeout_s
        self.is_draining = is_draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; anything but HTTP passes through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        trace = Trace(given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex, time.perf_counter())
        scope.setdefault("state", {})["trace"] = trace
        code = 500
        begun = False

        async def send_traced(message: Message) -> None:
            nonlocal code, begun
            if message["type"] == "http.response.start":
                begun = True
                code = message["status"]
                _finish(MutableHeaders(scope=message), trace, is_last=self.is_draining())
            await send(message)

        try:
            await self.app(
                scope,
                limited(receive, headers, max_bytes=self.max_body_bytes, timeout_s=self.body_timeout_s),
                send_traced,
            )
        except Exception as error:
            # the message of an unforeseen error may quote the request, so the log gets its kind and place alone
            place = "".join(traceback.format_tb(error.__traceback__))
            _LOG.error("request %s failed: %s\n%s", trace.request_id, type(error).__name__, place)
            if not begun:
                await problem(error).response(trace.request_id, path=scope["path"])(scope, receive, send_traced)
        finally:
            if scope["method"] == "POST" and scope["path"].startswith(_COUNTED):
                # in the loop's next turn: what was sent leaves at the end of this one
                asyncio.get_running_loop().call_soon(self._count, trace, code)

    def _count(self, trace: Trace, code: int) -> None:
        self.metrics.request(trace, code=code)
        if trace.after_reply is not None and code == _OK:
            trace.after_reply()


def _provider(served: Served) -> str:
    return str(getattr(served.engine, "provider", served.variant.engine))


def _scores(card: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Model, metric and score, in 0..100, of a manifest's ``scores``; ``low`` and ``high`` bound the main metric."""
    for name, scores in card.items():
        if isinstance(scores, Mapping):
            yield from ((name, metric, score) for metric, score in scores.items() if isinstance(score, int | float))


def _finish(headers: MutableHeaders, trace: Trace, *, is_last: bool) -> None:
    if is_last:
        headers["connection"] = "close"  # so that no client sends its next request into a closing connection
    headers["x-request-id"] = trace.request_id
    for name, value in trace.headers.items():
        headers[name] = value
    if trace.stages:
        short = {"tokenize": "tok", "forward": "fwd"}
        parts = (f"{short.get(stage, stage)};dur={1000 * seconds:.3f}" for stage, seconds in trace.stages.items())
        headers["server-timing"] = ", ".join(parts)
