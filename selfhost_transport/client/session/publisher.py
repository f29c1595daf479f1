"""What a client asks of its session: publishes, repeated until the service has stored them, and cancels."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Final, Protocol

from selfhost_transport.client.cancel_result import CancelResult
from selfhost_transport.client.connection.driver import Connection
from selfhost_transport.client.rest import RestClient
from selfhost_transport.client.session import requests
from selfhost_transport.client.session.requests import TurnFilter
from selfhost_transport.errors import InvalidArgument, ServiceError
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.runs import RunInfo
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.wire.frame import AckResult
from selfhost_transport.wire.message import Message

_log = logging.getLogger(__name__)

# Repeats of a publish that the service could not store; its id makes them harmless (ERR-2, P5).
_PUBLISH_ATTEMPTS: Final = 4
_PUBLISH_RETRY_S: Final = 0.1


class PublishingSession(Protocol):
    """What is needed of a session to publish to it."""

    # ruff: noqa: D102
    name: str
    agent: str | None
    tree: SessionTree

    @property
    def client_id(self) -> str | None: ...
    def open_turns(self, chosen: TurnFilter) -> list[RunInfo]: ...
    def reporting(self, what: str) -> AbstractContextManager[None]: ...


class Publisher:
    """Publishes to one session. The caller has made sure that it is attached."""

    def __init__(self, session: PublishingSession, connection: Connection, rest: RestClient) -> None:
        self._session = session
        self._connection = connection
        self._rest = rest

    def publish(self, messages: list[Message]) -> asyncio.Future[AckResult]:
        """Publish at once; the frame leaves in this call."""
        return self._connection.publish(messages)

    def withdraw(self, answer: asyncio.Future[AckResult]) -> bool:
        """Take back a publish that has not left yet; False when it has."""
        return self._connection.withdraw(answer)

    async def until_stored(self, messages: list[Message], answer: asyncio.Future[AckResult]) -> AckResult:
        """The answer to a publish, repeated while the service fails to store it."""
        with self._session.reporting("a publish to be acknowledged"):
            for attempt in range(1, _PUBLISH_ATTEMPTS):
                try:
                    return await answer
                except ServiceError as error:
                    if not error.retryable:
                        raise
                    await asyncio.sleep(_PUBLISH_RETRY_S * 2**attempt)
                    answer = self.publish(messages)
            return await answer

    async def cancel(self, chosen: TurnFilter) -> CancelResult:
        """Cancel what a filter names; never behind a queue of sends (CAN-19).

        Raises InvalidArgument for own turns of an anonymous client.
        """
        session = self._session
        if chosen.is_own and session.client_id is None:
            raise InvalidArgument("an anonymous client has no turns of its own; name a turn, or cancel all")
        if session.agent is None:
            return await self._cancel_each(chosen)
        if self._connection.is_backpressured and not chosen.connection:
            try:
                body = chosen.cancel_body(session.client_id)
                return await self._rest.cancel(self._connection.endpoint, body)
            except ServiceError as error:
                _log.warning("cancel.not_past_the_queue session=%s error=%s", session.name, error)
        return await self.publish_cancel(chosen.cancel_headers())

    async def publish_cancel(self, headers: Mapping[str, str]) -> CancelResult:
        """Publish a cancel of what the headers name."""
        messages = requests.cancel(headers, self._session.client_id)
        result = await self.until_stored(messages, self.publish(messages))
        if result.cancel is not None:
            receipt = result.cancel
            return CancelResult(
                receipt.position,
                receipt.matched,
                receipt.already_ended,
                receipt.denied,
                receipt.hook_failed,
                receipt.undecided,
            )
        return CancelResult(next((serial for serial in result.serials if serial), ""))

    async def _cancel_each(self, chosen: TurnFilter) -> CancelResult:
        """Without a bound agent the wire knows no wider cancels: one per turn (protocol section 1.1)."""
        matched = [turn.run_id for turn in self._session.open_turns(chosen)]
        results = await asyncio.gather(*(self.publish_cancel({h.RUN_ID: turn}) for turn in matched))
        known = chosen.turn_id is not None and self._session.tree.turn(chosen.turn_id) is not None
        ended = (chosen.turn_id,) if known and not matched and chosen.turn_id is not None else ()
        position = max((result.position for result in results), default="")
        return CancelResult(position, tuple(matched), ended)
