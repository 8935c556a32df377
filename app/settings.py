"""Every setting of the server: a field here, a flag ``--max-inputs``, a variable ``BISTIL_MAX_INPUTS``."""

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self, get_origin

import shtab
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.errors import ConfigError

_CGROUP = Path("/sys/fs/cgroup")
Names = Annotated[tuple[str, ...], NoDecode]

_COMPLETED = {
    **dict.fromkeys(("store", "cache", "shadow_teacher"), shtab.DIRECTORY),
    "keys_file": shtab.FILE,
}
_EPILOG = """
examples:
  bistil-serve --lang ha                                     all Hausa models of the store, on 127.0.0.1:8000
  bistil-serve --lang ha --tasks ner,pos --host 0.0.0.0      two of them, for other machines too
  bistil-serve --store s3://bucket/models --keys-file keys   from an object store, behind API keys
  bistil-serve --shadow-teacher teachers --shadow-share 0.05 with the live proof of the speed-up
  bistil-serve --print-completion bash > ~/.local/share/bash-completion/completions/bistil-serve

Every flag is also a variable: --token-budget is BISTIL_TOKEN_BUDGET. http://127.0.0.1:8000/ is a page to try the
models, /docs has every field. Exit codes: 0 after SIGTERM, 1 a model cannot be loaded or hung, 2 a flag cannot be used.
"""


def default_store() -> str:
    """The first there is: ``model_store`` here, beside the ``app`` package (a checkout), or inside it (a wheel)."""
    package = Path(__file__).parent
    for folder in (Path("model_store"), package.parent / "model_store", package / "model_store"):
        if folder.is_dir():
            return str(folder)
    return "model_store"


class Settings(BaseSettings):
    """Flags win over variables, variables over defaults. Lists are comma-separated in variables."""

    model_config = SettingsConfigDict(env_prefix="BISTIL_", frozen=True, extra="forbid", allow_inf_nan=False)

    lang: Names = Field(default=(), description="serve this language (repeatable; none: all in the store)")
    tasks: Names = Field(default=(), description="serve these tasks (comma-separated; none: all there are)")
    store: str = Field(default_factory=default_store, description="the model store: a folder, s3://... or hf://...")
    cache: str = Field(default="~/.cache/bistil", description="where bundles of a remote store are kept")
    variant: str = Field(
        default="", description="serve this variant, for example fp32 (none: the fastest that runs here)"
    )
    device: str = Field(
        default="cpu",
        pattern=r"^(cpu|(cuda|tensorrt)(:\d+)?)$",
        description="cpu, cuda, cuda:<n>, tensorrt or tensorrt:<n>",
    )
    threads: int = Field(default=0, ge=0, description="threads an engine may use (0: the container's CPU quota)")
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on (0: any free one)")
    token_budget: int = Field(default=4096, ge=1, description="rows * longest row of a micro-batch")
    max_queue_tokens: int = Field(default=131072, ge=1, description="tokens that may wait for one model before 503")
    max_inputs: int = Field(default=64, ge=1, description="inputs in one request")
    max_characters: int = Field(default=100_000, ge=1, description="characters in one input")
    max_body_bytes: int = Field(default=2_000_000, ge=1, description="bytes in one request body")
    timeout_s: float = Field(
        default=30.0, gt=0, description="seconds a request may take (x-request-timeout-ms may lower it)"
    )
    keys: str = Field(
        default="", description="API keys by sha256 and languages: 9f86... ha,sw; ... (none: open to all)"
    )
    keys_file: str = Field(default="", description="a file of such keys, one a line")
    receive_timeout_s: float = Field(default=10.0, gt=0, description="seconds a client has to send a request")
    stuck_after_s: float = Field(
        default=60.0, gt=0, description="seconds in the engine, with work waiting, after which /livez fails"
    )
    drain_delay_s: float = Field(default=2.0, ge=0, description="seconds served with /readyz at 503 after SIGTERM")
    drain_timeout_s: float = Field(default=30.0, gt=0, description="seconds open requests have after that")
    shadow_teacher: str = Field(
        default="", description="a teacher's bundle, or a store of such: run it beside the student for the live proof"
    )
    shadow_share: float = Field(default=0.01, gt=0, le=1, description="share of requests that also run the teacher")
    shadow_time_share: float = Field(default=0.1, gt=0, le=1, description="share of the time the teacher may run")
    usd_per_hour: float = Field(default=0.0, ge=0, description="price of this machine, for the cost of requests")
    docs: bool = Field(default=True, description="serve /docs and /openapi.json")

    @field_validator("lang", "tasks", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        parts = [value] if isinstance(value, str) else value
        return tuple(name.strip() for part in parts for name in part.split(",") if name.strip())

    @field_validator("port", mode="before")
    @classmethod
    def _ignore_service_link(cls, value: Any) -> Any:
        # Kubernetes sets BISTIL_PORT=tcp://... in every pod beside a Service that is named "bistil"
        return 8000 if isinstance(value, str) and value.startswith("tcp://") else value

    @field_validator("shadow_teacher")
    @classmethod
    def _is_folder(cls, value: str) -> str:
        if value and not Path(value).is_dir():
            raise ValueError(f"{value} is not a folder")
        return value

    @property
    def cache_folder(self) -> Path:
        """``cache`` with the home folder filled in."""
        return Path(self.cache).expanduser()

    @property
    def n_threads(self) -> int:
        """``threads``, or what the container or machine grants."""
        return self.threads or cpus()

    @classmethod
    def read(cls, **values: Any) -> Self:
        """Settings from ``values``, the environment and the defaults.

        :raises ConfigError: naming every setting that cannot be used, and why.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            faults = [f"--{_flag(str(item['loc'][0]))}: {item['msg']}" for item in error.errors()]
            raise ConfigError("; ".join(faults)) from error

    @classmethod
    def from_flags(cls, argv: Sequence[str] | None = None) -> Self:
        """Settings from a command line; ``--help`` and unknown flags end the program as argparse does.

        :raises ConfigError: a value cannot be used.
        """
        parser = argparse.ArgumentParser(
            prog="bistil-serve",
            description="Serve distilled students over HTTP.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=_EPILOG,
        )
        shtab.add_argument_to(
            parser, "--print-completion", help="print what completes this command in a shell, and end"
        )
        for name, field in cls.model_fields.items():
            options: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": field.description}
            if get_origin(field.annotation) is tuple:
                options |= {"action": "append", "metavar": name.upper().removesuffix("S")}
            elif field.annotation is bool:
                options |= {"action": argparse.BooleanOptionalAction}
            else:
                default = field.get_default(call_default_factory=True, validated_data={})
                options |= {"metavar": name.upper(), "help": f"{field.description} [{default or 'none'}]"}
            argument = parser.add_argument(f"--{_flag(name)}", **options)
            if name in _COMPLETED:
                argument.complete = _COMPLETED[name]  # type: ignore[attr-defined]
        given = vars(parser.parse_args(argv))
        given.pop("print_completion")
        return cls.read(**given)


def cpus(root: Path = _CGROUP) -> int:
    """Whole CPUs this process may use: the cgroup's quota rounded up, or the CPUs it may run on, whichever is less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(root)
    return allowed if quota is None else max(min(math.ceil(quota), allowed), 1)


def _quota(root: Path) -> float | None:
    for read in (_quota_v2, _quota_v1):
        try:
            quota, period = read(root)
            return quota / period if quota > 0 else None
        except (OSError, ValueError):
            continue
    return None


def _quota_v2(root: Path) -> tuple[float, float]:
    quota, period = (root / "cpu.max").read_text().split()
    return (0.0 if quota == "max" else float(quota)), float(period)


def _quota_v1(root: Path) -> tuple[float, float]:
    quota, period = ((root / "cpu" / name).read_text() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    return float(quota), float(period)


def _flag(name: str) -> str:
    return name.replace("_", "-")
