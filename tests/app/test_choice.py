import dataclasses
from pathlib import Path
from typing import Any

import pytest

from app import choice as module
from app.bundle import Bundle, Variant
from app.choice import Choice, choose, with_streams
from app.errors import BundleError, EngineError, MissingExtra
from app.microbatches import Cost
from tests.app.tiny import FakeEngine, write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    variants = tuple(Variant(name=name, file="model.onnx") for name in ("int8", "fp32", "half"))
    return write_bundle(tmp_path / "store", "ner", staged=tmp_path / "staged", variants=variants)


@pytest.fixture
def engines(monkeypatch: Any) -> dict[str, FakeEngine]:
    """Engines by variant; the cost of one is the number that `costs` gives, in the order of opening."""
    opened: dict[str, FakeEngine] = {}

    def open_engine(folder: Path, variant: Variant, **_: Any) -> FakeEngine:
        if variant.name == "half":
            raise MissingExtra("half needs 'abacus': pip install abacus")
        return opened.setdefault(variant.name, FakeEngine(lambda inputs: {}))

    monkeypatch.setattr(module, "open_engine", open_engine)
    return opened


def costs(monkeypatch: Any, *seconds: float) -> None:
    left = iter(seconds)
    monkeypatch.setattr(module, "measure", lambda run, **_: Cost(per_batch=next(left), per_token=0.0))


def test_the_fastest_of_those_that_run_is_taken_and_the_reason_says_so(
    bundle: Bundle, engines: dict[str, FakeEngine], monkeypatch: Any
) -> None:
    costs(monkeypatch, 0.004, 0.002)
    found = choose(bundle)
    assert found.variant.name == "fp32" and found.engine is engines["fp32"]
    assert found.cost == Cost(per_batch=0.002, per_token=0.0)
    assert "fp32 2.00 ms, int8 4.00 ms" in found.reason
    assert "half left out: half needs 'abacus': pip install abacus" in found.reason
    assert engines["int8"].closed and not engines["fp32"].closed


def test_a_better_variant_is_kept_unless_another_is_clearly_faster(
    bundle: Bundle, engines: dict[str, FakeEngine], monkeypatch: Any
) -> None:
    costs(monkeypatch, 0.00400, 0.00390)
    assert choose(bundle).variant.name == "int8"
    assert engines["fp32"].closed and not engines["int8"].closed


def test_a_row_alone_counts_as_much_as_several(
    bundle: Bundle, engines: dict[str, FakeEngine], monkeypatch: Any
) -> None:
    # alone 3.2 and 6 ms, four together 12.8 and 12 ms
    both = iter([Cost(per_batch=0.0, per_token=1e-4), Cost(per_batch=4e-3, per_token=2e-3 / 32)])
    monkeypatch.setattr(module, "measure", lambda run, **_: next(both))
    assert choose(bundle).variant.name == "int8"


def test_a_variant_that_is_named_is_taken_whatever_the_speed(bundle: Bundle, engines: dict[str, FakeEngine]) -> None:
    assert choose(bundle, variant="fp32").reason == "it was asked for"
    assert list(engines) == ["fp32"]
    with pytest.raises(MissingExtra, match="pip install abacus"):
        choose(bundle, variant="half")
    with pytest.raises(BundleError, match="it has: int8, fp32, half"):
        choose(bundle, variant="int4")


def test_where_none_runs_the_first_ones_error_is_told(bundle: Bundle, monkeypatch: Any) -> None:
    def open_engine(folder: Path, variant: Variant, **_: Any) -> FakeEngine:
        raise EngineError(f"{variant.name} cannot be loaded")

    monkeypatch.setattr(module, "open_engine", open_engine)
    with pytest.raises(EngineError, match="int8 cannot be loaded"):
        choose(bundle)


def test_an_only_variant_needs_no_timing(bundle: Bundle) -> None:
    manifest = dataclasses.replace(bundle.manifest, variants=bundle.manifest.variants[:1])
    found = choose(Bundle(bundle.folder, manifest), threads=1)
    assert found.variant.name == "int8" and found.cost is None and found.reason == "it is the only variant"
    found.engine.close()


def test_real_engines_are_timed_and_one_is_left_open(bundle: Bundle) -> None:
    manifest = dataclasses.replace(bundle.manifest, variants=bundle.manifest.variants[:2])
    found = choose(Bundle(bundle.folder, manifest), threads=1)
    assert found.cost is not None and found.cost.of(4, 32) > 0
    assert found.reason.startswith("the fastest here, by the mean of 1 and 4 rows of 32 pieces: ")
    found.engine.close()


def test_all_threads_together_are_kept_beside_streams_where_they_are_far_faster_for_one_row(
    bundle: Bundle, monkeypatch: Any
) -> None:
    costs(monkeypatch, 0.003)
    found, streams = with_two_streams(bundle, monkeypatch, cost=Cost(per_batch=0.002, per_token=0.0))
    assert found.streams is streams and found.engine is not streams
    assert isinstance(found.engine, FakeEngine) and not found.engine.closed
    assert found.cost == Cost(per_batch=0.002, per_token=0.0)


def test_streams_alone_stay_where_all_threads_together_are_little_faster(bundle: Bundle, monkeypatch: Any) -> None:
    costs(monkeypatch, 0.0017, 0.002)
    closed: list[FakeEngine] = []
    found, streams = with_two_streams(bundle, monkeypatch, closed=closed)
    assert found.engine is found.streams is streams and [engine.closed for engine in closed] == [True]
    assert found.cost == Cost(per_batch=0.002, per_token=0.0)


@pytest.mark.parametrize("where", [{"device": "cuda", "threads": 8}, {"threads": 1}, {"threads": 8}])
def test_there_are_no_streams_on_a_gpu_with_one_thread_or_where_an_engine_has_one_only(
    bundle: Bundle, monkeypatch: Any, where: dict[str, Any]
) -> None:
    opened = FakeEngine(lambda inputs: {})
    monkeypatch.setattr(module, "open_engine", lambda *_, **__: opened)
    chosen = Choice(variant=bundle.manifest.variant("int8"), engine=FakeEngine(lambda inputs: {}), reason="")
    assert with_streams(bundle, chosen, **where) is chosen
    assert opened.closed == (where == {"threads": 8})


def with_two_streams(
    bundle: Bundle, monkeypatch: Any, *, cost: Cost | None = None, closed: list[FakeEngine] | None = None
) -> tuple[Choice, FakeEngine]:
    streams, engine = FakeEngine(lambda inputs: {}, streams=2), FakeEngine(lambda inputs: {})
    monkeypatch.setattr(module, "open_engine", lambda *_, **__: streams)
    if closed is not None:
        closed.append(engine)
    chosen = Choice(variant=bundle.manifest.variant("int8"), engine=engine, reason="", cost=cost)
    return with_streams(bundle, chosen, threads=2), streams
