"""Continuations of suspended turns."""

from __future__ import annotations

from dataclasses import replace

from selfhost_transport.store.turn_inputs import Continuation
from selfhost_transport.store.turn_records import ClosingMessages
from selfhost_transport.wire.message import Message
from tests.store.turns import request


def continuation(name: str = "resume", turn: str = "t1") -> Continuation:
    closing = request(turn).closing
    assert isinstance(closing, ClosingMessages)
    return Continuation(replace(closing, run_start=Message(name=name)), b"ctx2")
