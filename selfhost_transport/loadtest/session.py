"""One session under load: a sender, its viewers, and the turns they expect."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

from selfhost_transport.errors import TransportError
from selfhost_transport.loadtest.client import Client, Refused
from selfhost_transport.loadtest.clock import ClockOffset
from selfhost_transport.loadtest.incoming import READERS, IncomingResult
from selfhost_transport.loadtest.plan import Load, Target
from selfhost_transport.loadtest.recorder import Metric, Recorder, ViolationKind
from selfhost_transport.loadtest.verify import SessionCheck, Turn, TurnView, position_ms
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import inputs
from selfhost_transport.turns.context import turn_id_for
from selfhost_transport.turns.ui import TextPart
from selfhost_transport.wire.message import Message

CANCELLABLE: Final = frozenset({h.COMPLETE, h.CANCELLED})
CANCELLED: Final = frozenset({h.CANCELLED})
_LATER: Final = (429, 503)
"""Statuses of a refusal that asks to send again later."""


class Viewer:
    """One connection that watches the session; measures what arrives at it."""

    def __init__(
        self, session: Session, target: Target, load: Load, number: int, primary: bool, recorder: Recorder
    ) -> None:
        fmt = load.formats[number % len(load.formats)]
        self.check = SessionCheck(READERS[fmt], self)
        self.client = Client(target, number, session.name, fmt, session.client_id, self.check, recorder)
        self._session = session
        self._clock = session.clock
        # The first viewer is the sender: counts per turn are taken there.
        self._primary = primary
        self._recorder = recorder

    def tokens_arrived(self, view: TurnView, count: int, total: int, serial: str) -> None:
        """Called by the check."""
        now = time.time()
        turn, recorder = view.turn, self._recorder
        published = position_ms(serial) / 1e3 - self._clock.offset_s
        spacing = turn.spacing
        # A chunk is published after its last token was due, so each chunk bounds the schedule from above.
        since_first = (total - 1) * spacing
        due = published - since_first
        if turn.due is None or due < turn.due:
            turn.due = due
        if view.arrived:
            recorder.arrived(
                now, count, now - published, now - turn.due - since_first, spacing, now - view.arrived
            )
        else:
            recorder.record(Metric.FIRST_TOKEN, now - turn.scheduled)
            if self._primary:
                recorder.first_token(now, now - turn.scheduled)
            recorder.arrived(now, count, now - published, now - turn.due - since_first, spacing)
        view.arrived = now

    def turn_started(self, turn: Turn, serial: str) -> None:
        """Called by the check."""
        if self._primary and not turn.start_position:
            turn.start_position = serial
            record_wait(turn, self._recorder)

    def turn_ended(self, turn: Turn, reason: str) -> None:
        """Called by the check."""
        if self._primary:
            turn.outcome = reason
            self._recorder.outcomes[reason] += 1
            self._recorder.sends(time.time()).ended += 1
            called, view = turn.cancel_called, self.check.view(turn)
            if called is not None and reason == h.CANCELLED and view is not None:
                self._recorder.record(Metric.CANCEL_TERMINAL, time.time() - called)
                self._recorder.record(Metric.CANCEL_CONTENT, max(0.0, view.arrived - called))
        turn.waiting -= 1
        if not turn.waiting:
            self._session.ended(turn)

    def broken(self, kind: ViolationKind, turn: str, detail: str) -> None:
        """Called by the check."""
        self._recorder.violation(kind, self._session.name, turn, detail)


class Session:
    """A named session with `load.viewers` connections. `number` distinguishes the sessions of a run."""

    def __init__(
        self, target: Target, load: Load, run: str, number: int, recorder: Recorder, clock: ClockOffset
    ) -> None:
        self.name = f"{load.namespace}:{run}-{number}"
        self.client_id = f"user-{number}"
        self.clock = clock
        self._recorder = recorder
        self._load = load
        first = number * load.viewers
        self.viewers = [
            Viewer(self, target, load, first + index, index == 0, recorder) for index in range(load.viewers)
        ]
        self._ended: dict[Turn, asyncio.Event] = {}
        # What the next message is sent below, as clients do.
        self._newest: str | None = None

    @property
    def sender(self) -> Client:
        """The connection that sends and cancels."""
        return self.viewers[0].client

    async def open(self) -> None:
        """Connect and attach every viewer. Raises ConnectionFailed, Refused."""
        for viewer in self.viewers:
            await viewer.client.start()

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(viewer.client.close() for viewer in self.viewers))

    async def send(
        self,
        scheduled: float,
        *,
        script: str = "",
        tokens: int = 0,
        rate: float = 0.0,
        outcomes: frozenset[str] = frozenset({h.COMPLETE}),
        policy: str = "",
        may_be_shed: bool = False,
    ) -> Turn | None:
        """Send a text for the scripted model; None if it was refused, which is a violation unless it `may_be_shed`.

        `scheduled`: when it should have left, seconds since the epoch. `script`: further directives.
        """
        tokens, rate = tokens or self._load.tokens, rate or self._load.rate
        ids = inputs.InputIds()
        turn = Turn(turn_id_for(self.name, ids.codec_message_id), tokens, rate, scheduled, outcomes)
        self._ended[turn] = asyncio.Event()
        for viewer in self.viewers:
            viewer.check.expect(turn)
        text = f"script: tokens={tokens} rate={rate:g} {script}".rstrip()
        messages = inputs.user_message([TextPart(text)], ids, client_id=self.client_id, parent=self._newest)
        if policy:
            _set_header(messages[0], h.TURN_POLICY, policy)
        self._recorder.counters["turns_sent"] += 1
        self._recorder.sends(scheduled).offered += 1
        sent = time.time()
        result = await self._answer(messages, turn, may_be_shed=may_be_shed)
        if result is None:
            self.ended(turn)
            return None
        self._newest = ids.codec_message_id
        now = time.time()
        self._recorder.record(Metric.SEND_ACK, now - scheduled)
        turn.sent_position = next((serial for serial in result.serials if serial), "")
        if result.turn is not None:
            turn.interrupted = tuple(result.turn.interrupted)
        if turn.sent_position:
            self.clock.observe(sent, now, position_ms(turn.sent_position))
            record_wait(turn, self._recorder)
        return turn

    async def cancel(self, turn: Turn, *, timed: bool = True) -> None:
        """Cancel one turn and check that it is final (P2). `timed`: not when the socket was just cut."""
        called = time.time()
        turn.outcomes = turn.outcomes | CANCELLABLE
        turn.cancelling += 1
        if turn.cancel_called is None and timed:
            turn.cancel_called = called
        message = inputs.cancel(event_id=inputs.new_id(), run_id=turn.run_id)
        result = await self._answer([message], turn)
        if result is not None:
            if timed:
                self._recorder.record(Metric.CANCEL_ACK, time.time() - called)
            if result.cancel is not None and turn.run_id in result.cancel.matched:
                self._final(turn, result.cancel.position)
        turn.cancelling -= 1
        if turn not in self._ended:
            self._forget(turn)

    async def interrupt(self, turns: list[Turn], scheduled: float, *, tokens: int = 0) -> Turn | None:
        """Send with policy `interrupt`, which cancels the sender's own turns in the same step (INT-24)."""
        for turn in turns:
            turn.outcomes = turn.outcomes | CANCELLABLE
            turn.cancelling += 1
            turn.cancel_called = turn.cancel_called or time.time()
        sent = await self.send(scheduled, tokens=tokens, policy="interrupt", outcomes=CANCELLABLE)
        for turn in turns:
            # The cancel stands before the send that asked for it.
            if sent is not None and turn.run_id in sent.interrupted:
                self._final(turn, sent.sent_position)
            turn.cancelling -= 1
            if turn not in self._ended:
                self._forget(turn)
        return sent

    async def wait(self, turn: Turn) -> None:
        """Until every viewer has the terminal; a turn that is overdue is a violation."""
        left = max(0.0, turn.scheduled + self._due_s(turn) - time.time()) + self._load.patience_s
        ended = self._ended.get(turn)
        if ended is None:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), left)
        if not ended.is_set():
            for viewer in self.viewers:
                viewer.check.give_up(turn)
            self.ended(turn)

    def ended(self, turn: Turn) -> None:
        """Every viewer has seen the terminal, or none expects it any more."""
        self._forget(turn)
        ended = self._ended.pop(turn, None)
        if ended is not None:
            ended.set()

    def _forget(self, turn: Turn) -> None:
        if not turn.cancelling:
            for viewer in self.viewers:
                viewer.check.forget(turn)

    def _final(self, turn: Turn, position: str) -> None:
        """A cancel that matched was acknowledged at `position`: nothing may follow, and no other terminal."""
        turn.cancel_position = position
        turn.outcomes = CANCELLED
        if turn.outcome not in ("", h.CANCELLED):
            detail = f"a cancel matched, but the turn ended {turn.outcome}"
            self._recorder.violation(ViolationKind.WRONG_TERMINAL, self.name, turn.run_id, detail)
        for viewer in self.viewers:
            viewer.check.cancelled(turn, position)

    async def _answer(
        self, messages: list[Message], turn: Turn, *, may_be_shed: bool = False
    ) -> IncomingResult | None:
        try:
            async with asyncio.timeout(self._load.patience_s):
                return await self.sender.publish(messages)
        except (Refused, TransportError, TimeoutError) as error:
            if may_be_shed and isinstance(error, Refused) and error.info.status_code in _LATER:
                self._recorder.sends(time.time()).shed += 1
                self._recorder.counters["turns_shed"] += 1
                self._recorder.record(Metric.REFUSAL, time.time() - turn.scheduled)
                return None
            detail = str(error) or "no acknowledgement in time"
            self._recorder.violation(ViolationKind.REFUSED, self.name, turn.run_id, detail)
            return None

    def _due_s(self, turn: Turn) -> float:
        return turn.tokens / turn.rate if turn.rate else 0.0


def record_wait(turn: Turn, recorder: Recorder) -> None:
    """Once both ends are known, in whichever order they came: how long a send waited for a worker."""
    if turn.sent_position and turn.start_position:
        waited = position_ms(turn.start_position) - position_ms(turn.sent_position)
        recorder.record(Metric.QUEUE_WAIT, waited / 1e3)


def _set_header(message: Message, name: str, value: str) -> None:
    assert message.extras is not None
    message.extras["ai"]["transport"][name] = value
