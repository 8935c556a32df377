"""The page at / for people, and its files: read once, all of them from this server."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

_FOLDER = Path(__file__).parent / "ui"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

router = APIRouter()


@dataclass(frozen=True, slots=True)
class _Asset:
    content: bytes
    media_type: str
    etag: str


def page(request: Request) -> Response:
    """The page itself."""
    return _respond(request, "index.html")


@router.get("/ui/{name}", include_in_schema=False)
async def asset(name: str, request: Request) -> Response:
    """A file of the page."""
    return _respond(request, name)


def _respond(request: Request, name: str) -> Response:
    """The file, or 304 where the browser has it.

    :raises HTTPException: 404, the page has no such file.
    """
    found = _assets().get(name)
    if found is None:
        raise HTTPException(404)
    headers = {
        "cache-control": "no-cache",
        "content-security-policy": _POLICY,
        "etag": found.etag,
        "referrer-policy": "no-referrer",
        "vary": "accept",
        "x-content-type-options": "nosniff",
    }
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)


@cache
def _assets() -> dict[str, _Asset]:
    contents = {path: path.read_bytes() for path in _FOLDER.iterdir() if path.suffix in _TYPES}
    return {
        path.name: _Asset(content, _TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')
        for path, content in contents.items()
    }
