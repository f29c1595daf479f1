"""A connection's core under made-up frames: it answers each in a way that can be sent, and keeps nothing of the ended."""

from __future__ import annotations

import gc
import os
from collections import Counter
from random import Random

import psutil
import pytest

from gateway.fanout.subscription import AttachResult
from gateway.realtime.connection import Connection
from gateway.realtime.effects import (
    Adjust,
    Attach,
    Authenticate,
    CloseSocket,
    Command,
    Effect,
    SendFrame,
)
from selfhost_transport.errors import BadRequest, Overloaded, Unauthorized
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.frame import decode_frame, encode_frame
from tests.gateway.cores import SERIAL, credential, done, opened
from tests.gateway.hostile_frames import HostileFrames

FRAMES = 500_000 if os.environ.get("SELFHOST_TRANSPORT_LONG") == "1" else 6_000
"""In each format."""
GROWTH_BYTES = 16 * 2**20
LONGEST = 200
"""Frames of one connection: then it is left."""
RIGHTS = ('{"*":["*"]}', '{"*":["subscribe"]}', '{"*":["publish","turn-start"]}', '{"chat:*":["history"]}')


class Shell:
    """Carries out what the core wants, well or badly, without I/O."""

    def __init__(self, fmt: Format, seed: int) -> None:
        self._fmt = fmt
        self._random = Random(seed)
        self.counts: Counter[str] = Counter()
        self._core = self._connect()
        self._age = 0

    def take(self, raw: str | bytes) -> None:
        """One frame of the client."""
        self._age += 1
        if self._age > LONGEST:
            self._core = self._connect()
        self.counts["frames"] += 1
        try:
            frame = decode_frame(raw, self._fmt)
        except BadRequest as error:
            self.counts["unreadable"] += 1
            self._carry_out(self._core.receive_malformed(error))
            return
        self._carry_out(self._core.receive(frame))

    def _connect(self) -> Connection:
        self._age = 0
        self.counts["connections"] += 1
        return opened(credential(self._random.choice(("alice", None)), self._random.choice(RIGHTS)))

    def _carry_out(self, effects: list[Effect]) -> None:
        waiting = list(effects)
        while waiting:
            waiting += self._one(waiting.pop(0))

    def _one(self, effect: Effect) -> list[Effect]:
        core, fails = self._core, self._random.random() < 0.1
        match effect:
            case SendFrame(frame):
                self.counts[Action(frame.action).name] += 1
                encode_frame(frame, self._fmt)
            case CloseSocket():
                self._core = self._connect()
            case Attach(channel=channel):
                if fails:
                    return core.attach_failed(channel.full, Overloaded("no").info)
                return core.attach_ready(channel.full, AttachResult(SERIAL))
            case Adjust(channel=full, answer=True):
                return core.adjusted(full, AttachResult(SERIAL))
            case Authenticate():
                if fails:
                    return core.reauthenticated(credential(), "key")
                return core.authentication_failed(Unauthorized("no"))
            case Command(ticket=ticket, others=others):
                tickets = (ticket, *others)
                if fails:
                    return [item for one in tickets for item in core.refused(one, Overloaded("no").info)]
                return core.committed(ticket, done(*("serial" for _ in tickets)))
        return []


@pytest.mark.parametrize("fmt", [Format.JSON, Format.MSGPACK])
def test_every_frame_has_an_answer_that_can_be_sent_and_nothing_grows(fmt: Format) -> None:
    shell, frames = Shell(fmt, 7), HostileFrames(fmt, 11)
    process = psutil.Process()
    for _ in range(FRAMES // 4):
        shell.take(next(frames))
    gc.collect()
    warm = process.memory_info().rss
    for _ in range(FRAMES - FRAMES // 4):
        shell.take(next(frames))
    gc.collect()
    assert process.memory_info().rss - warm < GROWTH_BYTES
    # The frames reach all of it: answers of every kind, and not mostly what cannot be read.
    counts = shell.counts
    assert counts["unreadable"] < counts["frames"] * 0.6, counts
    for kind in ("ACK", "NACK", "ATTACHED", "DETACHED", "ERROR", "HEARTBEAT"):
        assert counts[kind] > 0, counts
