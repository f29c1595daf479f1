"""Inputs that request a turn, and turns that have not started yet (TRN-3; waiting by policy: DBL-2, DBL-8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from selfhost_transport.turns import headers as h
from selfhost_transport.turns.context import turn_id_for
from selfhost_transport.turns.events import TurnChanged
from selfhost_transport.turns.record import Record
from selfhost_transport.turns.runs import RunInfo
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.wire.message import Message


@dataclass(slots=True, frozen=True)
class Trigger:
    """A run-less input that asks for a turn. `turn_id` is None when the tree does not know its session."""

    codec_message_id: str
    event_id: str | None
    client_id: str | None
    parent: str | None
    regenerates: str | None
    turn_id: str | None


class Triggers:
    """The triggers of a session; those without a run are pending turns."""

    def __init__(self, session: str | None) -> None:
        self._session = session
        self._triggers: dict[str, Trigger] = {}
        self._pending: dict[str, Trigger] = {}
        # Turns that were said to wait by policy, by the serial of that.
        self._queued: dict[str, str] = {}

    def trigger(self, codec_message_id: str) -> Trigger | None:
        """The input of this id that asked for a turn."""
        return self._triggers.get(codec_message_id)

    def pending(self) -> Iterator[RunInfo]:
        """Turns that are known by their request only, in the order of their sends."""
        for trigger in self._pending.values():
            if trigger.turn_id is not None:
                yield self._info(trigger)

    def asked_by(self, event_id: str) -> list[Trigger]:
        """A requested turn that has not started."""
        return [trigger for trigger in self._pending.values() if trigger.event_id == event_id]

    def note(
        self, record: Record, message: Message, is_begun: Callable[[Trigger], bool]
    ) -> list[TurnChanged]:
        """Take note of a trigger; `is_begun` says whether a run answers it already."""
        key, headers = record.codec_message_id, record.headers
        is_new = key not in self._triggers
        turn_id = turn_id_for(self._session, key) if self._session is not None else None
        # An unconfirmed send is not verified yet, but it is our own.
        author = message.client_id if record.serial is not None else headers.get(h.RUN_CLIENT_ID)
        trigger = Trigger(
            key, headers.event_id, author, headers.parent, headers.get(h.MSG_REGENERATE), turn_id
        )
        self._triggers[key] = trigger
        if not is_new or is_begun(trigger):
            return []
        self._pending[key] = trigger
        return [TurnChanged(self._info(trigger))] if turn_id is not None else []

    def begun(self, codec_message_id: str) -> list[TurnChanged]:
        """A run answers this trigger; those that wait behind it move up."""
        started = self._pending.pop(codec_message_id, None)
        return self._moved() if started is not None and started.turn_id in self._queued else []

    def withdraw(self, trigger: Trigger) -> None:
        """A send that was never accepted asked for nothing."""
        self._pending.pop(trigger.codec_message_id, None)
        self._triggers.pop(trigger.codec_message_id, None)

    def forget(self, but: str) -> None:
        """Forget all triggers but one."""
        self._triggers = {key: trigger for key, trigger in self._triggers.items() if key == but}
        self._pending = {key: trigger for key, trigger in self._pending.items() if key == but}

    def queue(self, turn_id: str, serial: str) -> list[TurnChanged]:
        """A turn was said to wait by policy."""
        self._queued.setdefault(turn_id, serial)
        return self._moved()

    def _info(self, trigger: Trigger) -> RunInfo:
        waiting = [waiting.turn_id for waiting in self._waiting()]
        is_queued = trigger.turn_id in waiting
        return RunInfo(
            run_id=trigger.turn_id or "",
            status=TurnStatus.PENDING,
            client_id=trigger.client_id or "",
            input_codec_message_id=trigger.codec_message_id,
            queue_position=waiting.index(trigger.turn_id) + 1 if is_queued else None,
        )

    def _waiting(self) -> list[Trigger]:
        """Pending turns that were said to wait, in the order in which they will start."""
        if not self._queued:
            return []
        order = self._queued
        return sorted(
            (trigger for trigger in self._pending.values() if trigger.turn_id in order),
            key=lambda trigger: order[trigger.turn_id or ""],
        )

    def _moved(self) -> list[TurnChanged]:
        return [TurnChanged(self._info(trigger)) for trigger in self._waiting()]
