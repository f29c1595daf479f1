"""One attempt at a turn as spans of the turn's trace: the wait, the attempt, a suspension, a cancel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfhost_transport import tracing
from selfhost_transport.store.turn_records import Lease
from selfhost_transport.turns.context import TurnContext

if TYPE_CHECKING:
    from opentelemetry.trace import Span


@dataclass(frozen=True, slots=True)
class CancelOrigin:
    """When Redis had a cancel, in ms; whose it was; the trace it was made in."""

    time_ms: float
    client_id: str | None
    traceparent: str | None


class TurnTrace:
    """The spans of one attempt. All methods do nothing where the process does not trace."""

    def __init__(self, lease: Lease, context: TurnContext, agent: str) -> None:
        self._lease = lease
        self._context = context
        self._agent = agent
        self._attempt: Span | None = None

    @property
    def exemplar(self) -> dict[str, str] | None:
        """Leads from a histogram to this trace."""
        return tracing.exemplar_of(self._attempt)

    @property
    def is_recorded(self) -> bool:
        """Whether the attempt's spans go anywhere."""
        return tracing.is_recorded(self._attempt)

    async def begin(self, suspended_ms: Callable[[], Awaitable[float | None]]) -> None:
        """The attempt starts. `suspended_ms` reads when the turn was suspended, for one that resumes."""
        if not tracing.is_tracing():
            return
        parent, lease = self._context.traceparent, self._lease
        self._attempt = tracing.start_span(
            "turn attempt", parent,
            {
                "sht.session": lease.session, "sht.turn": lease.turn_id, "sht.agent": self._agent,
                "sht.attempt": lease.attempt, "sht.invocation": self._context.invocation,
            },
            kind="CONSUMER",
        )  # fmt: skip
        if not self.is_recorded:
            return
        if self._context.invocation:
            since = await suspended_ms()
            name = "turn suspended"
        else:
            since = lease.input_position.ms if lease.fence == 1 else None
            name = "queue wait"
        if since is not None:
            waited = tracing.start_span(name, parent, {"sht.turn": lease.turn_id}, start_ms=since)
            tracing.end_span(waited)

    @contextmanager
    def current(self) -> Iterator[None]:
        """The attempt's span is the current one, for what the agent starts."""
        with tracing.under(self._attempt):
            yield

    def first_output(self) -> None:
        """The agent wrote something for the first time."""
        if self._attempt is not None:
            self._attempt.add_event("first output")

    async def cancelled(self, origin: Callable[[], Awaitable[CancelOrigin | None]]) -> None:
        """The turn was cancelled and the agent has been stopped: from the cancel in Redis to this moment."""
        if not self.is_recorded or (found := await origin()) is None:
            return
        span = tracing.start_span(
            "turn cancel", tracing.traceparent_of(self._attempt),
            {"sht.turn": self._lease.turn_id, "sht.cancelled_by": found.client_id},
            start_ms=found.time_ms, links=(found.traceparent,) if found.traceparent else (),
        )  # fmt: skip
        tracing.end_span(span)

    def end(self, outcome: str) -> None:
        """The attempt has ended."""
        tracing.end_span(self._attempt, {"sht.outcome": outcome})
