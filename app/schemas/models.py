"""What a server tells about its models and its errors."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from app.energy import Used
from app.store import Served

Measured = float | Literal["unavailable"]


class Model(BaseModel):
    """One served model; ``reason`` says why this variant of it.

    Energy and cost are those of its own engine, per 1000 requests answered so far.
    """

    language: str
    task: str
    revision: int
    variant: str
    reason: str
    engine: str
    precision: str
    labels: list[str]
    scores: dict[str, Any]
    licence: str
    url: str
    card: str
    sha256: str
    joules_per_1000_requests: Measured
    usd_per_1000_requests: Measured

    @classmethod
    def of(cls, served: Served, used: Used) -> Self:
        """What is told of a model that is up, and of what 1000 of its requests use."""
        manifest = served.bundle.manifest
        url = f"/v1/{served.language}/{served.task}"
        return cls(
            language=served.language,
            task=served.task,
            revision=manifest.revision,
            variant=served.variant.name,
            reason=served.reason,
            engine=served.variant.engine,
            precision=served.variant.precision,
            labels=list(manifest.labels),
            scores=manifest.scores,
            licence=manifest.licence,
            url=url,
            card=f"{url}/card",
            sha256=served.sha,
            joules_per_1000_requests="unavailable" if used.joules is None else used.joules,
            usd_per_1000_requests="unavailable" if used.usd is None else used.usd,
        )


class Models(BaseModel):
    """What this server serves."""

    models: list[Model]


class Card(BaseModel):
    """What is known about one model: its quality with 95 % intervals, its teacher's beside it, and where it is from."""

    task: str
    revision: int
    variant: str
    scores: dict[str, Any]
    benchmark: dict[str, Any]
    teacher: dict[str, Any]
    source_languages: list[str]
    data: list[dict[str, Any]]
    licence: str
    created: str
    files: dict[str, str]

    @classmethod
    def of(cls, served: Served) -> Self:
        """The card of a model that is up."""
        manifest = served.bundle.manifest
        return cls(
            task=served.task,
            revision=manifest.revision,
            variant=served.variant.name,
            scores=manifest.scores,
            benchmark=manifest.benchmark,
            teacher=manifest.teacher,
            source_languages=list(manifest.source_languages),
            data=manifest.data,
            licence=manifest.licence,
            created=manifest.created,
            files=manifest.files,
        )


class LanguageCard(BaseModel):
    """The cards of all models of a language that are up."""

    language: str
    tasks: list[Card]


class Problem(BaseModel):
    """RFC 9457 problem details; ``instance`` is the request's id. Further members depend on ``type``."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str
