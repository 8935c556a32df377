"""API keys: which there are, kept as sha256, what languages each is for, and who may pass."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import BistilError, ConfigError, Forbidden, Unauthorized
from app.problems import problem

_DIGEST = re.compile(r"[0-9a-f]{64}")
_GUARDED = re.compile(r"/v[12](/|$)")
_OPEN = re.compile(r"/v1/[^/]+/ready|/v2/health/(live|ready)|/v2/models/[^/]+(/versions/[^/]+)?/ready")
_LANGUAGE = re.compile(r"/v1/(?!models$)([^/]+)|/v2/models/([^/]+)-[^/-]+(?:/|$)")


@dataclass(frozen=True, slots=True)
class Key:
    """The sha256 of a key in hexadecimal digits, and the languages it is for; none means all."""

    digest: str
    languages: frozenset[str] = frozenset()


def read_keys(*, inline: str, file: str) -> tuple[Key, ...]:
    """The keys of a setting and of a file, one a line or ``;``; none where both are empty, and then all is open.

    A line is a digest and the languages it is for, ``*`` or none for all. ``#`` begins a comment.

    :raises ConfigError: they cannot be read, or the file names none.
    """
    keys = _parse(inline, source="--keys")
    if file:
        try:
            named = _parse(Path(file).read_text(encoding="utf-8"), source=file)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--keys-file: {file} cannot be read: {error}") from error
        if not named:
            raise ConfigError(f"--keys-file: {file} names no key")
        keys += named
    return keys


def is_guarded(path: str) -> bool:
    """Whether a path, or the template of one, is behind the keys."""
    return bool(_GUARDED.match(path)) and not _OPEN.fullmatch(path)


class Guard:
    """ASGI middleware: everything under /v1 and /v2 but the probes needs a key for its language.

    The body is not read before the key is known. The time it takes does not depend on how much of a key is right.
    """

    def __init__(self, app: ASGIApp, *, keys: Sequence[Key]) -> None:
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401 or 403."""
        path = scope.get("path", "")
        if scope["type"] == "http" and is_guarded(path):
            try:
                self._check(Headers(scope=scope).get("authorization", ""), path)
            except BistilError as error:
                trace = scope["state"]["trace"]
                told = problem(error)
                trace.problem = told.slug
                await told.response(trace.request_id, path=path)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check(self, authorization: str, path: str) -> None:
        scheme, _, given = authorization.partition(" ")
        digest = hashlib.sha256(given.strip().encode()).hexdigest()
        found = [key for key in self.keys if hmac.compare_digest(key.digest, digest)]
        if scheme.lower() != "bearer" or not found:
            raise Unauthorized("this needs a key that is known here, as in: Authorization: Bearer <key>")
        named = _LANGUAGE.match(path)
        language = named and (named[1] or named[2])
        if language and not any(not key.languages or language in key.languages for key in found):
            raise Forbidden("this key is not for this language")


def _parse(text: str, *, source: str) -> tuple[Key, ...]:
    """The keys of a text.

    :raises ConfigError: a line is no key; ``source`` and the line's number are named, the line is not.
    """
    keys = []
    for number, line in enumerate(text.replace(";", "\n").splitlines(), start=1):
        digest, *rest = line.partition("#")[0].split() or [""]
        if not digest:
            continue
        if not _DIGEST.fullmatch(digest) or len(rest) > 1:
            raise ConfigError(
                f"{source}, line {number}: expected a sha256, in hexadecimal, and languages: 9f86... ha,sw"
            )
        languages = frozenset(name for name in "".join(rest).split(",") if name)
        keys.append(Key(digest, frozenset() if "*" in languages else languages))
    return tuple(keys)
