from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from app.errors import ConfigError
from distill import config


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5
    steps: int


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    inner: Inner
    kind: Literal["a", "b"] = "a"
    folders: tuple[Path, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)


def test_later_sources_win_and_nested_tables_merge() -> None:
    outer = config.read(Outer, [{"name": "x", "inner": {"steps": 3}}, {"inner": {"rate": 1}, "folders": "a,b"}])
    assert outer == Outer(name="x", inner=Inner(rate=1.0, steps=3), folders=(Path("a"), Path("b")))


def test_every_mistake_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        config.read(Outer, [{"inner": {"step": 3, "rate": "fast"}, "kind": "c"}])
    text = str(error.value)
    for part in ("inner.step;", "did you mean inner.steps", "inner.rate = 'fast'", "'a', 'b'", "name is missing"):
        assert part in text


def test_overrides_are_typed_as_in_toml() -> None:
    assert config.overrides(["a.b=2", "a.c=text", "d=[1, 2]", "e=true"]) == {
        "a": {"b": 2, "c": "text"},
        "d": [1, 2],
        "e": True,
    }
    with pytest.raises(ConfigError, match="key=value"):
        config.overrides(["--steps"])


def test_a_key_below_what_is_no_table_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"a\.b\.c=2: a\.b = 1 was given before it"):
        config.overrides(["a.b=1", "a.b.c=2"])


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        config.toml(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=f"{tmp_path} cannot be read: Is a directory"):
        config.toml(tmp_path)
    (tmp_path / "bad.toml").write_text("a = ")
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        config.toml(tmp_path / "bad.toml")
