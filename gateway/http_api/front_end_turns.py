"""What the front ends that ask for turns of one session have in common: its tree, and what a stop means."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from gateway.auth.authenticator import Credential
from gateway.http_api.models import CancelIn
from gateway.http_api.reader import SessionReader
from gateway.http_api.turn_calls import TurnCalls
from gateway.services import Services
from selfhost_transport.turns.tree import SessionTree

Enough: TypeAlias = Callable[[SessionTree], bool]
"""Whether so much of the past of a session was read as a request needs."""


class FrontEndTurns:
    """What one caller asks of one session."""

    def __init__(self, services: Services, credential: Credential, session: str) -> None:
        self._services = services
        self._credential = credential
        self._session = session
        self._calls = TurnCalls(services, credential, session)
        self._client_id = credential.identity.stamp(None)

    def _reader(self, enough: Enough) -> SessionReader:
        return SessionReader(self._services, self._credential, self._session, enough)

    def _running(self) -> CancelIn:
        """A stop that names no turn: the caller's own; an anonymous caller's are all."""
        return CancelIn(own=True) if self._client_id is not None else CancelIn(all=True)

    async def _stop_sent(self, message_id: str | None) -> list[str]:
        """Stop pressed right after Send: the turn of a message that may not have arrived yet."""
        if message_id is None:
            return []
        return (await self._calls.cancel(CancelIn(input_id=message_id))).matched
