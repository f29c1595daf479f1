"""Signed webhooks: what happens to turns, to an address of the application's, at least once and in order per session.

Standard Webhooks (https://www.standardwebhooks.com) say what the signature is. The queue in Redis is that of exporters: one
gateway delivers at a time, and another goes on when it dies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import httpx
import orjson

from selfhost_transport.errors import InvalidArgument, TransportError
from selfhost_transport.exporter import TurnExporter
from selfhost_transport.settings import Settings, WebhookRule
from selfhost_transport.store.ended_turns import Ended, EndedTurns
from selfhost_transport.store.history import HistoryReader
from selfhost_transport.wire.serial import format_position

if TYPE_CHECKING:
    from standardwebhooks import Webhook

logger = logging.getLogger(__name__)

_LEASE_S: Final = 30.0
_LIMIT: Final = 10_000
_AGAIN_S: Final = 2.0
_TYPES: Final = {
    "ended": "turn.ended",
    "suspended": "turn.suspended",
    "escalated": "turn.escalated",
    "dead": "turn.dead_letter",
}


class Undeliverable(Exception):
    """The address did not accept an event; it is tried again."""


class WebhookSender(TurnExporter):
    """Delivers to one address. Raises InvalidArgument without the package of the extra `webhooks`, or for its secret."""

    def __init__(self, settings: Settings, rule: WebhookRule) -> None:
        super().__init__(settings, name=queue_name(rule), lease_s=_LEASE_S, limit=_LIMIT)
        self._rule = rule
        self._signer = _signer(rule)
        self._queue: EndedTurns | None = None

    async def deliver_all(self) -> None:
        """Until cancelled; Redis being away is survived."""
        async with httpx.AsyncClient(timeout=self._rule.timeout_ms / 1000, follow_redirects=False) as http:

            async def deliver(ended: Ended) -> None:
                await self._deliver(http, ended)

            while True:
                try:
                    await self.run(deliver)  # type: ignore[arg-type]
                except TransportError as error:
                    logger.warning("webhook.store_failed webhook=%s error=%s", self._rule.name, error)
                await asyncio.sleep(_AGAIN_S)  # paces trying while Redis is away

    async def _prepared(self, history: HistoryReader, ended: Ended) -> Ended:
        return ended

    async def _export(self, queue: EndedTurns, ended: Ended, turn: Any, export: Callable[[Any], Any]) -> None:
        self._queue = queue
        await super()._export(queue, ended, turn, export)

    async def _deliver(self, http: httpx.AsyncClient, ended: Ended) -> None:
        kind = _TYPES[ended.event]
        if kind not in self._rule.events:
            return
        try:
            await self._post(http, ended, kind)
        except (Undeliverable, httpx.HTTPError) as error:
            if ended.delivery < self._rule.max_attempts or self._queue is None:
                raise
            reason = _reason(error)
            await self._queue.bury(ended, reason)
            logger.error(
                "webhook.given_up webhook=%s session=%s turn=%s type=%s error=%s", self._rule.name,
                ended.session, ended.turn_id, kind, reason,
            )  # fmt: skip

    def _log_failed(self, ended: Ended, error: Exception) -> None:
        """In one line: an address that does not answer is no fault of this program."""
        if not isinstance(error, Undeliverable | httpx.HTTPError):
            super()._log_failed(ended, error)
            return
        logger.warning(
            "webhook.retried webhook=%s session=%s turn=%s delivery=%d error=%s", self._rule.name,
            ended.session, ended.turn_id, ended.delivery, _reason(error),
        )  # fmt: skip

    async def _post(self, http: httpx.AsyncClient, ended: Ended, kind: str) -> None:
        body = orjson.dumps({"type": kind, "timestamp": _time(ended), "data": event_data(ended)})
        now = datetime.now(UTC)
        # The same for every attempt, so that a receiver recognises a repeat.
        event_id = ended.event_id
        headers = {
            "content-type": "application/json",
            "webhook-id": event_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(event_id, now, body.decode()),
        }
        response = await http.post(self._rule.url, content=body, headers=headers)
        if not response.is_success:
            raise Undeliverable(f"status {response.status_code}")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def queue_name(rule: WebhookRule) -> str:
    """The exporter that an address' events wait for."""
    return f"webhook.{rule.name}"


def event_data(ended: Ended) -> dict[str, str | None]:
    """What an event says. `position`: of the entry that it is about."""
    return {
        "session": ended.session,
        "turnId": ended.turn_id,
        "status": ended.status.value,
        "agent": ended.agent,
        "owner": ended.owner or None,
        "position": format_position(ended.last, ended.epoch),
    }


def _time(ended: Ended) -> str:
    return datetime.fromtimestamp(ended.last.ms / 1000, UTC).isoformat(timespec="milliseconds")


def _signer(rule: WebhookRule) -> Webhook:
    try:
        from standardwebhooks import Webhook
    except ModuleNotFoundError as error:
        raise InvalidArgument("[[webhooks]] need a package: install selfhost-transport[webhooks]") from error
    try:
        return Webhook(rule.secret.get_secret_value())
    except ValueError as error:
        raise InvalidArgument(
            f"the secret of the webhook {rule.name!r} is `whsec_` and base64, such as `openssl rand -base64 32` gives"
        ) from error
