"""Continuations of suspended turns."""

from __future__ import annotations

from dataclasses import replace

from selfhost_transport.store.turn_inputs import Continuation
from selfhost_transport.wire.message import Message
from tests.store.turns import request


def continuation(name: str = "resume", turn: str = "t1") -> Continuation:
    closing = replace(request(turn).closing, run_start=Message(name=name))
    return Continuation(closing, b"ctx2")
