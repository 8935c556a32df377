"""Frozen dataclasses read from TOML files and `key=value` overrides, every mistake reported at once."""

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from app.errors import ConfigError
from distill.ranges import misfits

T = TypeVar("T")


def read(cls: type[T], sources: Sequence[Mapping[str, Any]]) -> T:
    """Merge nested mappings, later ones winning, into the dataclass `cls`.

    Raises ConfigError with every unknown key, every value of a wrong type and every number out of range.
    """
    merged = merge(sources)
    problems = misfits(merged)
    value = _build(cls, merged, "", problems)
    if problems:
        raise ConfigError("the configuration has mistakes:\n" + "\n".join(f"  - {p}" for p in problems))
    return typing.cast(T, value)


def merge(sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One nested mapping, later sources winning key by key; the sources stay as they are."""
    merged: dict[str, Any] = {}
    for source in sources:
        _merge(merged, source)
    return merged


def toml(path: Path) -> dict[str, Any]:
    """Parse one TOML file. Raises ConfigError that names the file and the place of the mistake."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no configuration file at {path}") from error
    except OSError as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """Turn `phase1.steps=200` arguments into the nested mapping a TOML file would give."""
    nested: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            raise ConfigError(f"{argument!r} is no override: write key=value, for example phase1.steps=200")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        table = nested
        *parents, last = key.split(".")
        for place, parent in enumerate(parents, start=1):
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                name = ".".join(parents[:place])
                raise ConfigError(f"{argument}: {name} = {table!r} was given before it, so that it has no keys")
        table[last] = value
    return nested


def plain(config: Any) -> dict[str, Any]:
    """The dataclass as JSON-ready values."""
    return typing.cast(dict[str, Any], _plain(dataclasses.asdict(config)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _merge(into: dict[str, Any], source: Mapping[str, Any]) -> None:
    for key, value in source.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        elif isinstance(value, Mapping):
            into[key] = {}
            _merge(into[key], value)
        else:
            into[key] = value


def _build(cls: Any, values: Mapping[str, Any], prefix: str, problems: list[str]) -> Any:
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else ""
            problems.append(f"unknown key {prefix}{key}{hint} (keys: {', '.join(sorted(fields))})")
    arguments = {}
    for name, field in fields.items():
        if name in values:
            arguments[name] = _convert(hints[name], values[name], f"{prefix}{name}", problems)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{prefix}{name} is missing")
    return cls(**arguments) if not problems else None


def _convert(hint: Any, value: Any, name: str, problems: list[str]) -> Any:
    origin, parameters = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return _build(hint, value, f"{name}.", problems)
    if origin is types.UnionType or origin is typing.Union:
        if value is None:
            return None
        return _convert(next(p for p in parameters if p is not type(None)), value, name, problems)
    if origin is typing.Literal:
        if value not in parameters:
            problems.append(f"{name} = {value!r}: choose one of {', '.join(map(repr, parameters))}")
        return value
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            problems.append(f"{name} = {value!r}: expected a list")
            return ()
        return tuple(_convert(parameters[0], item, name, problems) for item in items)
    if origin is dict:
        if not isinstance(value, Mapping):
            problems.append(f"{name} = {value!r}: expected a table")
            return {}
        return {str(key): _convert(parameters[1], item, f"{name}.{key}", problems) for key, item in value.items()}
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is not Any and not (isinstance(value, hint) and not (hint is int and isinstance(value, bool))):
        problems.append(f"{name} = {value!r}: expected {getattr(hint, '__name__', hint)}")
    return value
