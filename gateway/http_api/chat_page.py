"""The chat page at `/`: its files from memory, compressed once, with headers that let it run and reach nothing else."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from fastapi import Request, Response

from selfhost_transport.settings import GatewaySettings

_FOLDER: Final = Path(__file__).parent.parent / "static"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src {connect}; img-src 'self' data: blob:; "
    "manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SMALLEST_COMPRESSED: Final = 1_024
# Not left to the machine's own table.
_TYPES: Final = {
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    compressed: bytes | None
    etag: str
    media_type: str


def page_response(request: Request, settings: GatewaySettings) -> Response:
    """The page itself. It runs its own script, talks to its own gateway and `allowed_origins`, and is never framed."""
    connect = " ".join(["'self'", *settings.allowed_origins])
    headers = {
        "Content-Security-Policy": _POLICY.format(connect=connect),
        "Referrer-Policy": "no-referrer",
    }
    return _response(request, "index.html", headers)


def file_response(request: Request, name: str) -> Response:
    """A script or style sheet of the page; 404 for anything else."""
    return _response(request, name, {})


def worker_response(request: Request) -> Response:
    """The page's service worker: beside the page, so that it may open it; it reaches nothing."""
    return _response(request, "push-worker.js", {"Content-Security-Policy": "default-src 'none'"})


def _response(request: Request, name: str, headers: dict[str, str]) -> Response:
    file = _file(name) if name in _names() else None
    if file is None:
        return Response(status_code=404)
    headers |= {
        "ETag": file.etag,
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
        # Kept, and asked for again each time: the files belong together.
        "Cache-Control": "no-cache",
    }
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if file.compressed is None or not _accepts_gzip(request.headers.get("accept-encoding", "")):
        return Response(file.content, media_type=file.media_type, headers=headers)
    headers["Content-Encoding"] = "gzip"
    return Response(file.compressed, media_type=file.media_type, headers=headers)


def _accepts_gzip(accepted: str) -> bool:
    for offer in accepted.lower().split(","):
        coding, _, weight = offer.replace(" ", "").partition(";")
        if coding in ("gzip", "*"):
            return weight not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


@cache
def _names() -> frozenset[str]:
    return frozenset(path.name for path in _FOLDER.iterdir()) if _FOLDER.is_dir() else frozenset()


@cache
def _file(name: str) -> _File:
    path = _FOLDER / name
    content = path.read_bytes()
    compressed = gzip.compress(content, mtime=0) if len(content) >= _SMALLEST_COMPRESSED else None
    media_type = _TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] or "text/plain"
    return _File(content, compressed, f'W/"{hashlib.sha256(content).hexdigest()[:24]}"', media_type)
