"""ModelStore: which bundles there are under a root, how to get one here and how to bring it up."""

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from app.batching import Batcher
from app.bundle import MANIFEST, Bundle, Variant
from app.choice import choose, with_streams
from app.engines.base import Engine
from app.errors import BundleError, ConfigError, UnknownChoice
from app.guard import LanguageGuard
from app.microbatches import measure
from app.predictor import Predictor, codec
from app.remote import Remote
from app.settings import Settings
from app.tasks.base import Task


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """One bundle's place under a store's root."""

    language: str
    task: str
    revision: int

    @property
    def path(self) -> str:
        """Relative to the root."""
        return f"{self.language}/{self.task}/{self.revision}"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Served:
    """One bundle, verified, loaded and warm.

    ``reason`` says why this variant; ``resident_bytes`` is the growth of memory while it loaded.
    """

    bundle: Bundle
    variant: Variant
    codec: Task[Any, Any]
    tokenizer: Tokenizer
    engine: Engine
    batcher: Batcher
    reason: str = ""
    guard: LanguageGuard | None = None
    load_s: float = 0.0
    resident_bytes: int | None = None

    @property
    def language(self) -> str:
        """The language it serves."""
        return self.bundle.manifest.language

    @property
    def task(self) -> str:
        """The task's name in routes."""
        return self.bundle.manifest.task

    @property
    def sha(self) -> str:
        """The sha256 of the model file."""
        return self.bundle.manifest.files.get(self.variant.file, "")

    @property
    def name(self) -> str:
        """What answered, for people and logs: ``ha/ner/1/int8@1a2b3c4d5e6f``."""
        return f"{self.language}/{self.task}/{self.bundle.manifest.revision}/{self.variant.name}@{self.sha[:12]}"


class ModelStore:
    """A folder, or anything fsspec can list (``s3://``, ``hf://``), that holds ``<language>/<task>/<revision>/``."""

    def __init__(self, root: str, *, cache: Path) -> None:
        self.root = root.rstrip("/")
        self._remote = Remote(self.root, cache=cache) if "://" in root else None

    @property
    def is_remote(self) -> bool:
        """Whether bundles have to be fetched."""
        return self._remote is not None

    def find(self, *, languages: Sequence[str] = (), tasks: Sequence[str] = ()) -> list[Location]:
        """The highest revision of every language and task asked for; no filter means all.

        :raises ConfigError: the store is not there or holds no bundle.
        :raises UnknownChoice: the store has no bundle of a language, or none of a task.
        """
        places = self._places() if self._remote is None else self._remote.places()
        parts = [place.split("/") for place in places]
        locations = [Location(language, task, int(number)) for language, task, number in parts if number.isdecimal()]
        newest = {(location.language, location.task): location for location in sorted(locations)}
        if not newest:
            raise ConfigError(f"no bundle under {self.root}: expected <language>/<task>/<revision>/{MANIFEST}")
        _check("language", languages, {language for language, _ in newest})
        found = [item for item in newest.values() if not languages or item.language in languages]
        _check("task", tasks, {item.task for item in found})
        return [item for item in found if not tasks or item.task in tasks]

    def fetch(self, location: Location) -> Path:
        """The bundle's folder on this machine, fetched to the cache where the store is remote.

        :raises BundleError: it cannot be fetched; nothing half-written is left.
        """
        return Path(self.root) / location.path if self._remote is None else self._remote.fetch(location.path)

    def open(self, location: Location, settings: Settings) -> Served:
        """Fetch, verify, load and answer one item, so that the first request finds everything warm.

        :raises BundleError: the bundle is not intact, lies in another bundle's place, or its model does not fit it.
        """
        started, resident_before = time.perf_counter(), resident_bytes()
        folder = self.fetch(location)
        try:
            bundle = Bundle.open(folder)
        except BundleError:
            if self._remote is not None:
                self._remote.forget(folder)
            raise
        manifest = bundle.manifest
        if Location(manifest.language, manifest.task, manifest.revision) != location:
            raise BundleError(
                f"{folder} says it is {manifest.language}/{manifest.task}/{manifest.revision}, not {location.path}"
            )
        where: dict[str, Any] = {"device": settings.device, "threads": settings.n_threads}
        choice = with_streams(bundle, choose(bundle, variant=settings.variant or None, **where), **where)
        engine = choice.engine
        task, tokenizer = codec(manifest), bundle.tokenizer()
        Predictor(task, tokenizer, engine, pad_id=manifest.pad_id).predict([task.probe] * 2)
        return Served(
            bundle=bundle,
            variant=choice.variant,
            reason=choice.reason,
            codec=task,
            tokenizer=tokenizer,
            engine=engine,
            batcher=Batcher(
                engine,
                pad_id=manifest.pad_id,
                per_token=task.per_token,
                streams=choice.streams,
                cost=choice.cost or measure(engine.run, pad_id=manifest.pad_id, max_length=manifest.max_length),
                token_budget=settings.token_budget,
                max_queue_tokens=settings.max_queue_tokens,
                stuck_after_s=settings.stuck_after_s,
            ),
            load_s=time.perf_counter() - started,
            guard=LanguageGuard.from_manifest(manifest, tokenizer),
            resident_bytes=None if resident_before is None else max((resident_bytes() or 0) - resident_before, 0),
        )

    def _places(self) -> list[str]:
        root = Path(self.root)
        if not root.is_dir():
            raise ConfigError(
                f"the store {self.root} is not a folder: expected <language>/<task>/<revision>/{MANIFEST}"
            )
        return ["/".join(path.parts[-4:-1]) for path in sorted(root.glob(f"*/*/*/{MANIFEST}"))]


def resident_bytes() -> int | None:
    """Memory of this process that is in RAM; None where the system has no ``/proc``."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * resource.getpagesize()


def _check(what: str, wanted: Sequence[str], choices: set[str]) -> None:
    for name in wanted:
        if name not in choices:
            raise UnknownChoice(what, name, sorted(choices))
