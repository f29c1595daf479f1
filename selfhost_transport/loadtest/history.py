"""Reads a session's history over HTTP, to compare it with what was delivered live."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx

from selfhost_transport.errors import ConnectionFailed
from selfhost_transport.loadtest.plan import Target

_PAGE = 1000
_TIMEOUT_S = 30.0
_TRIES = 3


class HistoryClient:
    """One HTTP client for all sessions of a process."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._http = httpx.AsyncClient(
            headers={**target.headers, "accept": "application/json"},
            timeout=_TIMEOUT_S,
            limits=httpx.Limits(max_connections=16),
        )

    async def read(self, session: str, number: int) -> list[dict[str, Any]]:
        """Every message of a session in its latest version, oldest first. Raises ConnectionFailed."""
        url = httpx.URL(
            f"{self._target.http_url(number)}/channels/{quote(session, safe='')}/messages",
            params={"limit": _PAGE, "direction": "forwards"},
        )
        rows: list[dict[str, Any]] = []
        while True:
            answer = await self._get(url, session)
            rows += answer.json()
            following = answer.links.get("next")
            if following is None:
                return rows
            url = url.join(following["url"])

    async def close(self) -> None:
        """Close the client's connections."""
        await self._http.aclose()

    async def _get(self, url: httpx.URL, session: str) -> httpx.Response:
        reason = ""
        for _ in range(_TRIES):
            try:
                answer = await self._http.get(url)
            except httpx.HTTPError as error:
                reason = str(error) or type(error).__name__
                continue
            if answer.is_success:
                return answer
            reason = f"status {answer.status_code}"
        raise ConnectionFailed(f"the history of {session} cannot be read: {reason}")
