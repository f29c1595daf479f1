"""A client that waits says for what, and shows what it is when it is printed."""

from __future__ import annotations

import asyncio
import logging

import pytest

import selfhost_transport
from selfhost_transport import ClientTransport, Waiting
from selfhost_transport.client.session import long_waits
from selfhost_transport.errors import ConnectionFailed, ErrorInfo, InvalidArgument, NotFound
from selfhost_transport.wire.actions import Action
from tests.client.agent import ScriptedAgent, echo
from tests.client.loading import options
from tests.client.scripted import CHANNEL, KEY, ScriptedService
from tests.processes import wait_until


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long begins early."""
    monkeypatch.setattr(long_waits, "REPORT_AFTER_S", 0.05)


async def test_an_attach_that_never_comes_names_what_it_waits_for() -> None:
    service = ScriptedService()
    service.unreachable.add("one")
    with pytest.raises(ConnectionFailed, match=r"within 0.05 s: not connected to one: refused"):
        await service.transport().open(0.05)
    service = ScriptedService()
    opening = asyncio.create_task(service.transport().open(0.1))
    (await service.accept()).connected()
    with pytest.raises(ConnectionFailed, match="one has not answered"):
        await opening
    service = ScriptedService()
    service.failures = [ErrorInfo(50003, 503, "Redis is away")] * 100
    opening = asyncio.create_task(service.transport(options=options()).open(0.2))
    socket = await service.accept()
    socket.connected()
    await socket.next(Action.ATTACH)
    socket.attached(100)
    with pytest.raises(ConnectionFailed, match="reading the history from one: Redis is away") as failed:
        await opening
    assert failed.value.info.cause is not None and failed.value.info.cause.code == 50003


@pytest.mark.usefixtures("soon")
async def test_a_wait_that_takes_long_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    service = ScriptedService()
    transport, socket = await service.open()
    waits: list[Waiting] = []
    transport.on("waiting", waits.append)
    turn = transport.view.start("hello")
    frame = await socket.next(Action.MESSAGE)
    await wait_until(lambda: waits)
    assert (waits[0].what, waits[0].reason) == ("a publish to be acknowledged", "one has not answered")
    messages = echo(frame.messages or [], 105)
    socket.messages(105, *messages)
    socket.ack(frame)
    await turn.accepted
    await wait_until(lambda: len(waits) == 2)
    assert waits[1].turn_id == turn.turn_id
    assert "does one serve the agent 'assistant'" in waits[1].reason
    reported = [
        record
        for record in caplog.records
        if record.levelno == logging.WARNING and "waiting" in record.message
    ]
    assert len(reported) == 2
    ScriptedAgent(socket, messages[0]).begin()
    await turn.started
    await transport.close()


@pytest.mark.usefixtures("soon")
async def test_a_turn_that_no_agent_is_bound_to_says_so() -> None:
    service = ScriptedService()
    transport, socket = await service.open(agent=None)
    waits: list[Waiting] = []
    transport.on("waiting", waits.append)
    turn = transport.view.start("hello")
    frame = await socket.next(Action.MESSAGE)
    socket.messages(105, *echo(frame.messages or [], 105))
    socket.ack(frame)
    await turn.accepted
    await wait_until(lambda: waits)
    assert "bound to no agent ([[namespaces]]" in waits[0].reason
    await transport.close()


@pytest.mark.usefixtures("soon")
async def test_what_comes_in_time_is_not_reported() -> None:
    service = ScriptedService()
    transport, socket = await service.open()
    waits: list[Waiting] = []
    transport.on("waiting", waits.append)
    turn = transport.view.start("hello")
    frame = await socket.next(Action.MESSAGE)
    messages = echo(frame.messages or [], 105)
    socket.messages(105, *messages)
    socket.ack(frame)
    agent = ScriptedAgent(socket, messages[0])
    agent.begin()
    await turn.started
    await asyncio.sleep(0.1)
    assert waits == []
    await transport.close()


async def test_objects_say_what_they_are() -> None:
    service = ScriptedService()
    connecting = ClientTransport.connect("ws://one", channel=CHANNEL, key=KEY, client_id="user-1")
    assert repr(connecting) == f"<Connecting to {CHANNEL!r}: await it, or use it with `async with`>"
    with pytest.raises(AttributeError, match="'Connecting' object has no attribute 'view'; await it first"):
        _ = connecting.view
    transport, socket = await service.open()
    assert repr(transport) == f"<ClientTransport {CHANNEL!r} as user-1 at one: connected>"
    turn = transport.view.start("hello")
    frame = await socket.next(Action.MESSAGE)
    messages = echo(frame.messages or [], 105)
    socket.messages(105, *messages)
    socket.ack(frame)
    await turn.accepted
    assert repr(turn.ended) == "<SharedFuture: pending; await it>"
    agent = ScriptedAgent(socket, messages[0])
    agent.begin()
    agent.say("x" * 100)
    agent.complete()
    await turn.ended
    assert repr(turn) == f"<Turn {turn.turn_id} completed text='{'x' * 60}'…>"
    assert repr(transport.view) == f"<View of {CHANNEL!r}: 2 messages, has_older=True>"
    assert "text()" in repr(turn.stream)
    assert [chunk async for chunk in turn.stream.text()] == ["x" * 100]
    await transport.close()


async def test_what_is_not_there_is_an_error_that_says_so() -> None:
    service = ScriptedService()
    transport, _ = await service.open()
    with pytest.raises(NotFound, match="message 'nope' has not been loaded from this session"):
        transport.view.select("nope", 0)
    with pytest.raises(NotFound, match="nope"):
        await transport.view.select_for_all("nope", 0)
    with pytest.raises(InvalidArgument, match="unknown event 'nope'; known are turn, message,"):
        transport.on("nope", print)  # type: ignore[call-overload]
    await transport.close()


def test_names_are_completed_before_they_are_loaded() -> None:
    assert set(selfhost_transport.__all__) <= set(dir(selfhost_transport))
