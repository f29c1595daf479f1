"""The operations of `operating.py` through a gateway: for operators that cannot, or should not, reach Redis."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from selfhost_transport.client.rest import error_of, failure_reason
from selfhost_transport.commands.holdings import SessionHoldings
from selfhost_transport.commands.inspect import SessionReport
from selfhost_transport.commands.operating import (
    PUSH,
    CancelReport,
    EmergencyStop,
    PersonTraces,
    Requeued,
    UndeliveredLine,
)
from selfhost_transport.commands.session_list import SessionLine
from selfhost_transport.errors import ConnectionFailed, InvalidArgument, ServiceError
from selfhost_transport.store.dead_letters import DeadLetter
from selfhost_transport.store.erasure import ErasedSession
from selfhost_transport.store.live_sessions import RegisteredWorker
from selfhost_transport.store.person_erasure import ErasedPerson
from selfhost_transport.store.turn_store import CancelFilter, Scope

T = TypeVar("T")

_TIMEOUT_S: Final = 30.0
_LONG_TIMEOUT_S: Final = 600.0
"""Of what goes through all of a large session."""
_FIELDS: Final = {Scope.TURN: "turnId", Scope.OWNER: "clientId", Scope.ALL: "all"}


class HttpOperations:
    """Use as a context manager. `key`: `name:secret`, or a token, with the right `console` on all sessions.

    Raises ConnectionFailed, and whatever the gateway answers: Unauthorized, CapabilityError, NotFound, StoreUnavailable.
    """

    def __init__(self, url: str, key: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidArgument("--url is the address of a gateway, as https://gateway.example.com")
        headers = {} if ":" in key else {"authorization": f"Bearer {key}"}
        name, _, secret = key.partition(":")
        auth = httpx.BasicAuth(name, secret) if secret else None
        # A gateway is reached directly; authorities of one's own are in SSL_CERT_FILE.
        self._http = httpx.AsyncClient(
            base_url=url, headers=headers, auth=auth, timeout=_TIMEOUT_S, trust_env=False,
            verify=ssl.create_default_context(),
        )  # fmt: skip
        self._url = url

    async def __aenter__(self) -> HttpOperations:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def sessions(self, prefix: str) -> list[SessionLine]:
        """Those whose names begin with `prefix`."""
        return await self._call(list[SessionLine], "GET", "sessions", params={"prefix": prefix})

    async def report(self, session: str, ended: int, entries: int) -> SessionReport:
        """The state of one."""
        params = {"ended": ended, "entries": entries}
        return await self._call(SessionReport, "GET", f"sessions/{quote(session, safe='')}", params=params)

    async def cancel(self, session: str, chosen: CancelFilter, by: str, *, force: bool) -> CancelReport:
        """End turns of a session."""
        value: object = True if chosen.scope is Scope.ALL else chosen.value
        body = {_FIELDS[chosen.scope]: value, "by": by, "force": force}
        return await self._call(CancelReport, "POST", f"sessions/{quote(session, safe='')}/cancel", body)

    async def cancel_all(self, prefix: str, by: str, *, force: bool) -> EmergencyStop:
        """End every turn of every session whose name begins with `prefix`."""
        return await self._call(EmergencyStop, "POST", "cancel", {"prefix": prefix, "by": by, "force": force})

    async def workers(self) -> list[RegisteredWorker]:
        """Those that run."""
        found = await self._call(list[dict[str, Any]], "GET", "workers")
        return [RegisteredWorker(one["worker"], tuple(one["agents"])) for one in found]

    async def drain(self, worker: str) -> None:
        """Have one end."""
        await self._call(dict[str, str], "POST", "workers/drain", {"worker": worker})

    async def dead(self) -> list[DeadLetter]:
        """Turns whose workers were all lost."""
        found = await self._call(list[dict[str, Any]], "GET", "dead")
        return [
            DeadLetter(
                one["letterId"], one["session"], one["turnId"], one["attempts"], one["worker"], one["timeMs"]
            )
            for one in found
        ]

    async def requeue(self, letter_id: str) -> Requeued:
        """Send one of those again."""
        return await self._call(Requeued, "POST", "dead/requeue", {"letterId": letter_id})

    async def undelivered(self, sink: str) -> list[UndeliveredLine]:
        """What a webhook, or PUSH, has given up."""
        return await self._call(list[UndeliveredLine], "GET", f"{_place(sink)}/dead")

    async def deliver_again(self, sink: str, letter_id: str) -> None:
        """Have one of those delivered again."""
        await self._call(dict[str, str], "POST", f"{_place(sink)}/requeue", {"letterId": letter_id})

    async def lines(self, session: str) -> AsyncIterator[dict[str, Any]]:
        """Everything that there is of a session."""
        async for line in self._lines(f"sessions/{quote(session, safe='')}/export"):
            yield line

    async def lines_of_person(self, person: str, sessions: Sequence[str]) -> AsyncIterator[dict[str, Any]]:
        """What these sessions have of a client id."""
        async for line in self._lines(f"people/{quote(person, safe='')}/export", {"session": list(sessions)}):
            yield line

    async def traces(self, person: str, sessions: Sequence[str]) -> list[PersonTraces]:
        """How much that is, by session."""
        body = {"sessions": list(sessions)}
        path = f"people/{quote(person, safe='')}/traces"
        return await self._call(list[PersonTraces], "POST", path, body, timeout_s=_LONG_TIMEOUT_S)

    async def erase_person(self, person: str, sessions: Sequence[str], by: str) -> ErasedPerson:
        """Erase it."""
        body = {"sessions": list(sessions), "by": by}
        path = f"people/{quote(person, safe='')}/erase"
        return await self._call(ErasedPerson, "POST", path, body, timeout_s=_LONG_TIMEOUT_S)

    async def _lines(self, path: str, params: Any = None) -> AsyncIterator[dict[str, Any]]:
        with self._reaching():
            async with self._http.stream(
                "GET", f"/v1/operator/{path}", params=params, timeout=_LONG_TIMEOUT_S
            ) as response:
                if not response.is_success:
                    await response.aread()
                    raise error_of(response)
                async for line in response.aiter_lines():
                    yield json.loads(line)

    async def holdings(self, session: str) -> SessionHoldings:
        """How much that is."""
        return await self._call(SessionHoldings, "POST", f"sessions/{quote(session, safe='')}/erase", {})

    async def erase(self, session: str, by: str, *, free: bool) -> ErasedSession:
        """Erase it."""
        body = {"dryRun": False, "by": by, "free": free}
        path = f"sessions/{quote(session, safe='')}/erase"
        return await self._call(ErasedSession, "POST", path, body, timeout_s=_LONG_TIMEOUT_S)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            reason = failure_reason(error, self._url)
            raise ConnectionFailed(f"the gateway at {self._url} cannot be reached: {reason}") from error

    async def _call(
        self,
        answer: type[T],
        method: str,
        path: str,
        body: object = None,
        *,
        params: Any = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> T:
        with self._reaching():
            response = await self._http.request(
                method, f"/v1/operator/{path}", json=body, params=params, timeout=timeout_s
            )
        if not response.is_success:
            raise error_of(response)
        try:
            return TypeAdapter(answer).validate_json(response.content)
        except ValidationError as error:
            raise ServiceError(f"{self._url} answers, but not as a gateway of this version") from error


def _place(sink: str) -> str:
    return "push" if sink == PUSH else f"webhooks/{quote(sink, safe='')}"
