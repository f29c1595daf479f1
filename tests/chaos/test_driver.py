"""What the driver itself must not take for a breach."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection

from selfhost_transport import ClientTransport
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.frame import Frame
from tests.chaos import sockets
from tests.chaos.driver import run
from tests.chaos.faults import Faults
from tests.chaos.people import Conversation
from tests.chaos.sockets import Refused, next_frame
from tests.chaos.verdict import BREACHES


async def _break_nothing(_: Faults, seconds: float) -> None:
    await asyncio.sleep(seconds)


async def _freeze_nothing(_: Faults, stop: asyncio.Event) -> None:
    await stop.wait()


async def _say_nothing(_: Conversation, talker: ClientTransport, number: int, chance: random.Random) -> None:
    """Only the last words are said."""


async def _lose_acknowledgements(socket: ClientConnection, wanted: Action) -> Frame:
    frame = await next_frame(socket, wanted)
    if wanted is Action.ACK:
        raise Refused
    return frame


async def test_readers_stay_until_turns_that_no_one_cancelled_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopper that is cut off leaves a turn behind, which it may not know of and which writes on after all others."""
    monkeypatch.setattr(Faults, "go_on", _break_nothing)
    monkeypatch.setattr(Faults, "freeze_beside", _freeze_nothing)
    monkeypatch.setattr(Conversation, "_say", _say_nothing)
    monkeypatch.setattr(sockets, "next_frame", _lose_acknowledgements)
    monkeypatch.setattr(sockets, "ASKED", "script: tokens=1000 rate=200")
    found = await run(tmp_path, 0.5, sessions=1, seed=7)
    assert found["episodes cut short"] > 0
    assert not {name: found[name] for name in BREACHES if found[name]}, found
