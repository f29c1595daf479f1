"""One session under load: a sender, its viewers, and the turns they expect."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

from selfhost_transport.errors import ConnectionFailed, TransportError
from selfhost_transport.loadtest.any_text import SUSPENDED, AnyTextCheck, usage_by_turn
from selfhost_transport.loadtest.client import Client, Refused
from selfhost_transport.loadtest.clock import ClockOffset
from selfhost_transport.loadtest.history import HistoryClient
from selfhost_transport.loadtest.incoming import READERS, IncomingResult
from selfhost_transport.loadtest.plan import Load, Scenario, Target
from selfhost_transport.loadtest.recorder import Metric, Recorder, ViolationKind
from selfhost_transport.loadtest.verify import AskedTurn, SessionCheck, TurnView, position_ms
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import inputs
from selfhost_transport.turns.context import turn_id_for
from selfhost_transport.turns.ui import TextPart
from selfhost_transport.wire.message import Message

CANCELLABLE: Final = frozenset({h.COMPLETE, h.CANCELLED})
CANCELLED: Final = frozenset({h.CANCELLED})
ANY_OUTCOME: Final = frozenset({h.COMPLETE, h.ERROR, SUSPENDED})
"""Of a turn of one's own agent: it may fail, which is counted, and wait for people."""
ANY_TEXT: Final = -1
"""Tokens of an answer that may say anything."""
_LATER: Final = (429, 503)
"""Statuses of a refusal that asks to send again later."""


class Viewer:
    """One connection that watches the session; measures what arrives at it."""

    def __init__(
        self, session: LoadSession, target: Target, load: Load, number: int, primary: bool, recorder: Recorder
    ) -> None:
        fmt = load.formats[number % len(load.formats)]
        check = AnyTextCheck if load.any_text else SessionCheck
        self.check = check(READERS[fmt], self)
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
        if turn.any_text:
            self._words_arrived(view, count, now, now - published)
            return
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

    def _words_arrived(self, view: TurnView, count: int, now: float, delivery: float) -> None:
        """When a model should have said something is not known: the time counts from its publication."""
        turn, recorder = view.turn, self._recorder
        if not view.arrived:
            recorder.record(Metric.FIRST_TOKEN, now - turn.scheduled)
            if self._primary:
                recorder.first_token(now, now - turn.scheduled)
        recorder.arrived(now, count, delivery, delivery, 0.0, now - view.arrived if view.arrived else None)
        view.arrived = now
        if self._primary:
            turn.first_at = turn.first_at or now
            turn.last_at, turn.words = now, turn.words + count

    def turn_started(self, turn: AskedTurn, serial: str) -> None:
        """Called by the check."""
        if self._primary and not turn.start_position:
            turn.start_position = serial
            record_wait(turn, self._recorder)

    def turn_ended(self, turn: AskedTurn, reason: str) -> None:
        """Called by the check."""
        if self._primary:
            turn.outcome = reason
            self._recorder.outcomes[reason] += 1
            self._recorder.sends(time.time()).ended += 1
            turn.measured = self._recorder.active
            if reason == h.COMPLETE:
                self._recorder.record(Metric.TOTAL, time.time() - turn.scheduled)
            if reason == h.ERROR and isinstance(self.check, AnyTextCheck):
                self._recorder.errors[self.check.errors.get(turn.run_id, "error")] += 1
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


class LoadSession:
    """A named session with `load.viewers` connections. `number` distinguishes the sessions of a run."""

    def __init__(
        self,
        target: Target,
        load: Load,
        run: str,
        number: int,
        recorder: Recorder,
        clock: ClockOffset,
        history: HistoryClient | None = None,
        sibling: int = 0,
    ) -> None:
        namespace = load.namespaces[number % len(load.namespaces)]
        self.name = f"{namespace}:{run}-{number}" + (f"-{sibling}" if sibling else "")
        self.client_id = f"user-{number}"
        self.number = number
        self.clock = clock
        self._target = target
        self._run = run
        self._history = history
        self._sibling = sibling
        # Turns of one's own agent that have ended.
        self._done: list[AskedTurn] = []
        self._recorder = recorder
        self._load = load
        first = number * load.viewers
        self.viewers = [
            Viewer(self, target, load, first + index, index == 0, recorder) for index in range(load.viewers)
        ]
        self._ended: dict[AskedTurn, asyncio.Event] = {}
        # What the next message is sent below, as clients do.
        self._newest: str | None = None

    @property
    def sender(self) -> Client:
        """The connection that sends and cancels."""
        return self.viewers[0].client

    def another(self, count: int = 1) -> LoadSession:
        """The session of the same person's next conversation, or of one `count` further on; not opened."""
        return LoadSession(
            self._target, self._load, self._run, self.number, self._recorder, self.clock, self._history,
            self._sibling + count,
        )  # fmt: skip

    async def open(self) -> None:
        """Connect and attach every viewer. Raises ConnectionFailed, Refused."""
        for viewer in self.viewers:
            await viewer.client.start()

    def failed_to_open(self, reason: str) -> None:
        """A person could not get in, which counts as an error of the run."""
        self._recorder.counters["turns_sent"] += 1
        self._recorder.errors[f"not attached: {reason}"] += 1

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(viewer.client.close() for viewer in self.viewers))

    async def send(
        self,
        scheduled: float,
        *,
        text: str | None = None,
        script: str = "",
        tokens: int = 0,
        rate: float = 0.0,
        outcomes: frozenset[str] = frozenset({h.COMPLETE}),
        policy: str = "",
        may_be_shed: bool = False,
    ) -> AskedTurn | None:
        """Send a text, or a script; None if it was refused, which is a violation unless it `may_be_shed`.

        `scheduled`: when it should have left, seconds since the epoch. `script`: further directives.
        """
        tokens, rate = tokens or self._load.tokens, rate or self._load.rate
        if text is not None:
            tokens, rate, may_be_shed = ANY_TEXT, 0.0, True
        ids = inputs.InputIds()
        turn = AskedTurn(turn_id_for(self.name, ids.codec_message_id), tokens, rate, scheduled, outcomes)
        self._ended[turn] = asyncio.Event()
        for viewer in self.viewers:
            viewer.check.expect(turn)
        said = f"script: tokens={tokens} rate={rate:g} {script}".rstrip() if text is None else text
        messages = inputs.user_message([TextPart(said)], ids, client_id=self.client_id, parent=self._newest)
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
        self._acknowledged(turn, result, scheduled, sent)
        return turn

    def _acknowledged(self, turn: AskedTurn, result: IncomingResult, scheduled: float, sent: float) -> None:
        now = time.time()
        self._recorder.record(Metric.SEND_ACK, now - scheduled)
        turn.sent_position = next((serial for serial in result.serials if serial), "")
        if result.turn is not None:
            turn.interrupted = tuple(result.turn.interrupted)
        if turn.sent_position:
            self.clock.observe(sent, now, position_ms(turn.sent_position))
            record_wait(turn, self._recorder)

    async def cancel(self, turn: AskedTurn, *, timed: bool = True) -> None:
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

    async def interrupt(
        self, turns: list[AskedTurn], scheduled: float, *, text: str | None = None, tokens: int = 0
    ) -> AskedTurn | None:
        """Send with policy `interrupt`, which cancels the sender's own turns in the same step (INT-24)."""
        for turn in turns:
            turn.outcomes = turn.outcomes | CANCELLABLE
            turn.cancelling += 1
            turn.cancel_called = turn.cancel_called or time.time()
        outcomes = CANCELLABLE if text is None else ANY_OUTCOME
        sent = await self.send(scheduled, text=text, tokens=tokens, policy="interrupt", outcomes=outcomes)
        for turn in turns:
            # The cancel stands before the send that asked for it.
            if sent is not None and turn.run_id in sent.interrupted:
                self._final(turn, sent.sent_position)
            turn.cancelling -= 1
            if turn not in self._ended:
                self._forget(turn)
        return sent

    async def wait(self, turn: AskedTurn) -> None:
        """Until every viewer has the terminal; a turn that is overdue is a violation."""
        ended = self._ended.get(turn)
        if ended is None:
            return
        while not ended.is_set() and (left := self._left_s(turn)) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), left)
        if ended.is_set():
            return
        if not turn.start_position and self._load.scenario is Scenario.OVERLOAD:
            # It waits for a worker behind the others, as it has to: its place in the queue is not lost.
            self._recorder.counters["turns_still_queued"] += 1
        else:
            for viewer in self.viewers:
                viewer.check.give_up(turn)
        self.ended(turn)

    async def reload(self) -> None:
        """Lose the connection, read the conversation, resume: what a page does that is loaded again."""
        began = time.time()
        self.sender.drop()
        if self._history is not None:
            with contextlib.suppress(ConnectionFailed):  # counted when the session is compared
                await self._history.read(self.name, self.number)
                self._recorder.record(Metric.RELOAD, time.time() - began)

    async def compare(self) -> None:
        """Check what was delivered against the history, and count what the agent says that it used."""
        if self._history is None or not self._done:
            return
        try:
            rows = await self._history.read(self.name, self.number)
        except ConnectionFailed as error:
            self._recorder.violation(ViolationKind.GENERATOR, self.name, "", str(error))
            return
        for viewer in self.viewers:
            if isinstance(viewer.check, AnyTextCheck):
                for kind, turn, detail in viewer.check.differences(rows):
                    viewer.broken(kind, turn, detail)
        self._recorder.counters["sessions_compared"] += 1
        self._count_usage(usage_by_turn(rows))

    def _count_usage(self, usage: dict[str, tuple[int, int]]) -> None:
        for turn in self._done:
            reported = usage.get(turn.run_id)
            if reported is not None:
                self._recorder.usage.update({"turns": 1, "input": reported[0], "output": reported[1]})
            tokens = reported[1] if reported is not None and turn.outcome == h.COMPLETE else turn.words
            if turn.measured and tokens > 1 and turn.last_at > turn.first_at:
                per_token = (turn.last_at - turn.first_at) / (tokens - 1)
                self._recorder.record_later(Metric.TIME_PER_TOKEN, per_token)

    def ended(self, turn: AskedTurn) -> None:
        """Every viewer has seen the terminal, or none expects it any more."""
        self._forget(turn)
        ended = self._ended.pop(turn, None)
        if ended is not None:
            if turn.any_text:
                self._done.append(turn)
            ended.set()

    def _forget(self, turn: AskedTurn) -> None:
        if not turn.cancelling:
            for viewer in self.viewers:
                viewer.check.forget(turn)

    def _final(self, turn: AskedTurn, position: str) -> None:
        """A cancel that matched was acknowledged at `position`: nothing may follow, and no other terminal."""
        turn.cancel_position = position
        turn.outcomes = CANCELLED
        if turn.outcome not in ("", h.CANCELLED):
            detail = f"a cancel matched, but the turn ended {turn.outcome}"
            self._recorder.violation(ViolationKind.WRONG_TERMINAL, self.name, turn.run_id, detail)
        for viewer in self.viewers:
            viewer.check.cancelled(turn, position)

    async def _answer(
        self, messages: list[Message], turn: AskedTurn, *, may_be_shed: bool = False
    ) -> IncomingResult | None:
        try:
            async with asyncio.timeout(self._load.patience_s):
                return await self.sender.publish(messages)
        except (Refused, TransportError, TimeoutError) as error:
            if may_be_shed and isinstance(error, Refused) and error.info.status_code in _LATER:
                if turn.any_text:
                    self._recorder.errors[f"{error.info.code} {error}"] += 1
                self._recorder.sends(time.time()).shed += 1
                self._recorder.counters["turns_shed"] += 1
                self._recorder.record(Metric.REFUSAL, time.time() - turn.scheduled)
                return None
            if turn.any_text and isinstance(error, Refused):
                self._recorder.errors[f"{error.info.code} {error}"] += 1
                return None
            detail = str(error) or "no acknowledgement in time"
            self._recorder.violation(ViolationKind.REFUSED, self.name, turn.run_id, detail)
            return None

    def _left_s(self, turn: AskedTurn) -> float:
        """Seconds that a terminal may still take; an answer of any text is given its patience from its newest word on."""
        due = turn.scheduled + (turn.tokens / turn.rate if turn.rate else 0.0)
        return max(due, turn.last_at) + self._load.patience_s - time.time()


def record_wait(turn: AskedTurn, recorder: Recorder) -> None:
    """Once both ends are known, in whichever order they came: how long a send waited for a worker."""
    if turn.sent_position and turn.start_position:
        waited = position_ms(turn.start_position) - position_ms(turn.sent_position)
        recorder.record(Metric.QUEUE_WAIT, waited / 1e3)


def _set_header(message: Message, name: str, value: str) -> None:
    assert message.extras is not None
    message.extras["ai"]["transport"][name] = value
