"""Frames of one session as a gateway sends them, for the checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from selfhost_transport.loadtest.incoming import READERS, Incoming
from selfhost_transport.loadtest.recorder import ViolationKind
from selfhost_transport.loadtest.verify import AskedTurn, SessionCheck, TurnView
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.actions import Action, MessageAction
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.frame import Frame, encode_frame
from selfhost_transport.wire.message import Message, Version
from selfhost_transport.wire.serial import Position, format_item, format_position

EPOCH = "abcdefghij"


def serial_at(ms: int) -> str:
    return format_item(Position(ms, 0), EPOCH, 0)


@dataclass
class Seen:
    """An observer that keeps everything."""

    tokens: int = 0
    started: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    broken_promises: list[ViolationKind] = field(default_factory=list)

    def tokens_arrived(self, view: TurnView, count: int, total: int, serial: str) -> None:
        self.tokens += count

    def turn_started(self, turn: AskedTurn, serial: str) -> None:
        self.started.append(turn.run_id)

    def turn_ended(self, turn: AskedTurn, reason: str) -> None:
        self.ended.append(reason)

    def broken(self, kind: ViolationKind, turn: str, detail: str) -> None:
        self.broken_promises.append(kind)


class Stream:
    """A session whose frames go to a check; each entry takes the next millisecond."""

    def __init__(self, fmt: Format = Format.JSON) -> None:
        self.seen = Seen()
        self.check = SessionCheck(READERS[fmt], self.seen)
        self.now = 1_000
        self._fmt = fmt

    def expect(self, tokens: int = 6, **changes: Any) -> AskedTurn:
        turn = AskedTurn("run-1", tokens, 50.0, 0.0, **changes)
        self.check.expect(turn)
        return turn

    def start(self, run: str = "run-1") -> None:
        self.create(h.AI_RUN_START, {h.RUN_ID: run})

    def open(self, run: str = "run-1") -> str:
        """The create of a stream of tokens; returns its serial."""
        return self.create(h.AI_OUTPUT, {h.RUN_ID: run, h.STREAM: "true"}, data="")

    def append(self, text: str, data: str, at: int | None = None) -> None:
        self._send(text, MessageAction.APPEND, h.AI_OUTPUT, {}, data, at)

    def aggregate(self, text: str, data: str, run: str = "run-1") -> None:
        self._send(text, MessageAction.UPDATE, h.AI_OUTPUT, {h.RUN_ID: run, h.STREAM: "true"}, data, None)

    def end(self, reason: str = h.COMPLETE, run: str = "run-1") -> None:
        self.create(h.AI_RUN_END, {h.RUN_ID: run, h.RUN_REASON: reason})

    def create(self, name: str, headers: dict[str, str], data: str | None = None) -> str:
        serial = serial_at(self.now + 1)
        self._send(serial, MessageAction.CREATE, name, headers, data, None)
        return serial

    def _send(
        self,
        serial: str,
        action: MessageAction,
        name: str,
        headers: dict[str, str],
        data: str | None,
        at: int | None,
    ) -> None:
        self.now = self.now + 1 if at is None else at
        position = Position(self.now, 0)
        message = Message(
            serial=serial,
            action=action,
            name=name,
            data=data,
            extras=h.make_extras(headers),
            version=Version(format_item(position, EPOCH, 0), self.now),
        )
        frame = Frame(
            Action.MESSAGE,
            channel="loadtest:1",
            channel_serial=format_position(position, EPOCH),
            messages=[message],
        )
        self.check.deliver(self.decoded(frame))

    def decoded(self, frame: Frame) -> Incoming:
        return READERS[self._fmt].frame(encode_frame(frame, self._fmt))
