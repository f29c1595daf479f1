"""Sends: shown at once, confirmed by their echo, repeated safely, taken back when refused."""

from __future__ import annotations

import asyncio

import pytest

from selfhost_transport import ClientTransport, TurnStatus
from selfhost_transport.errors import (
    Busy,
    CapabilityError,
    Discarded,
    ErrorInfo,
    InvalidArgument,
    SessionClosed,
    StoreUnavailable,
    TransportError,
)
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.context import turn_id_for
from selfhost_transport.turns.events import Promoted
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.receipts import TurnReceipt
from tests.client.agent import echo
from tests.client.scripted import CHANNEL, ScriptedService
from tests.processes import wait_until


async def test_a_send_is_visible_before_the_service_confirms_it() -> None:
    """OPT-1, OPT-2: at once without a position, then one message, promoted once."""
    service = ScriptedService()
    transport, socket = await service.open()
    promoted: list[Promoted] = []
    transport.on("promoted", promoted.append)
    turn = transport.view.start("hello")
    assert [m.message.text for m in transport.view.messages] == ["hello"]
    assert turn.status is TurnStatus.PENDING and turn.own
    assert transport.active_turns == {"user-1": {turn.turn_id}}
    frame = await socket.next(Action.MESSAGE)
    assert not turn.accepted.done
    assert frame.messages is not None
    socket.messages(101, *echo(frame.messages, 101))
    socket.ack(frame, turn=TurnReceipt(turn.turn_id or "", "pending"))
    receipt = await turn.accepted
    assert receipt.id == turn.turn_id == turn_id_for(CHANNEL, turn.input_codec_message_id or "")
    await wait_until(lambda: promoted)
    assert len(promoted) == 1
    assert [m.message.text for m in transport.view.messages] == ["hello"]
    await transport.close()


async def test_the_echo_may_come_before_the_answer() -> None:
    """OPT-3."""
    service = ScriptedService()
    transport, socket = await service.open()
    sending = asyncio.create_task(transport.view.send("hello"))
    frame = await socket.next(Action.MESSAGE)
    socket.messages(101, *echo(frame.messages or [], 101))
    await wait_until(lambda: transport.tree.nodes() and transport.tree.nodes()[0].serial)
    assert not sending.done()
    socket.ack(frame)
    assert (await sending).status is TurnStatus.PENDING
    assert len(transport.view.messages) == 1
    await transport.close()


async def test_a_refused_send_is_taken_back() -> None:
    """OPT-4: the message goes, the caller and the error event get the reason."""
    service = ScriptedService()
    transport, socket = await service.open()
    errors: list[TransportError] = []
    transport.on("error", errors.append)
    sending = asyncio.create_task(transport.view.send("hello"))
    frame = await socket.next(Action.MESSAGE)
    assert len(transport.view.messages) == 1
    socket.nack(frame, ErrorInfo(40160, 401, "not permitted"))
    with pytest.raises(CapabilityError):
        await sending
    assert transport.view.messages == [] and transport.active_turns == {}
    assert [error.info.code for error in errors] == [40160]
    await transport.close()


async def test_busy_names_the_active_turn() -> None:
    service = ScriptedService()
    transport, socket = await service.open()
    sending = asyncio.create_task(transport.view.send("hello", policy="reject"))
    frame = await socket.next(Action.MESSAGE)
    assert frame.messages is not None and frame.messages[0].extras is not None
    assert frame.messages[0].extras["ai"]["transport"][h.TURN_POLICY] == "reject"
    socket.nack(frame, ErrorInfo(40900, 409, "busy", detail={"turns": ["t1"]}))
    with pytest.raises(Busy) as refusal:
        await sending
    assert refusal.value.info.detail == {"turns": ["t1"]}
    await transport.close()


async def test_another_policy_than_those_of_the_service_is_refused() -> None:
    service = ScriptedService()
    transport, _ = await service.open()
    with pytest.raises(InvalidArgument, match="policy is one of"):
        transport.view.start("hello", policy="whenever")
    assert transport.view.messages == []
    await transport.close()


async def test_a_send_is_repeated_while_the_service_cannot_store_it() -> None:
    """ERR-2: no error to the caller, the same bytes again."""
    service = ScriptedService()
    transport, socket = await service.open()
    sending = asyncio.create_task(transport.view.send("hello"))
    first = await socket.next(Action.MESSAGE)
    socket.nack(first, ErrorInfo(50003, 503, "redis is away"))
    second = await socket.next(Action.MESSAGE)
    assert second.messages == first.messages and second.msg_serial == 1
    socket.ack(second)
    await sending
    assert len(transport.view.messages) == 1
    await transport.close()


async def test_repeats_end_with_the_services_error() -> None:
    service = ScriptedService()
    transport, socket = await service.open()
    sending = asyncio.create_task(transport.view.send("hello"))
    for _ in range(4):
        socket.nack(await socket.next(Action.MESSAGE), ErrorInfo(50003, 503, "redis is away"))
    with pytest.raises(StoreUnavailable):
        await sending
    await transport.close()


async def test_the_same_id_is_the_same_send() -> None:
    """TRN-14: the second one is byte for byte the first, and gives the same turn."""
    service = ScriptedService()
    transport, socket = await service.open()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await transport.view.send("hello", id="mine")
    first = await socket.next(Action.MESSAGE)
    socket.messages(101, *echo(first.messages or [], 101))
    socket.ack(first, turn=TurnReceipt(turn_id_for(CHANNEL, "mine"), "pending"))
    await wait_until(lambda: transport.tree.nodes()[0].serial)
    sending = asyncio.create_task(transport.view.send("hello", id="mine"))
    second = await socket.next(Action.MESSAGE)
    assert second.messages == first.messages
    socket.ack(second, turn=TurnReceipt(turn_id_for(CHANNEL, "mine"), "pending", repeated=True))
    turn = await sending
    assert turn.turn_id == turn_id_for(CHANNEL, "mine")
    assert len(transport.view.messages) == 1
    await transport.close()


async def test_a_send_hangs_below_the_last_visible_message() -> None:
    service = ScriptedService()
    transport, socket = await service.open()
    first = transport.view.start("one")
    second = transport.view.start("two")
    await socket.next(Action.MESSAGE)
    frame = await socket.next(Action.MESSAGE)
    headers = h.read_headers((frame.messages or [])[0])
    assert headers is not None and headers.parent == first.input_codec_message_id
    third = transport.view.start("three", parent="elsewhere")
    headers = h.read_headers(((await socket.next(Action.MESSAGE)).messages or [])[0])
    assert headers is not None and headers.parent == "elsewhere"
    assert {second.own, third.own} == {True}
    await transport.close()


async def test_sends_made_while_offline_wait_and_leave_once() -> None:
    """REC-10."""
    service = ScriptedService()
    transport, socket = await service.open()
    socket.cut()
    await wait_until(lambda: not transport.connected)
    turns = [transport.view.start(text) for text in ("one", "two")]
    again = await service.accept()
    again.connected()
    frames = [await again.next(Action.MESSAGE) for _ in turns]
    assert [frame.msg_serial for frame in frames] == [0, 1]
    await again.next(Action.ATTACH)
    again.attached(100, resumed=True)
    for frame in frames:
        again.ack(frame)
    for turn in turns:
        await turn.accepted
    assert again.frames.empty()
    await transport.close()


async def test_opt_12_a_send_that_has_not_left_can_be_taken_back() -> None:
    service = ScriptedService()
    transport, socket = await service.open()
    errors: list[TransportError] = []
    transport.on("error", errors.append)
    left = transport.view.start("left already")
    await socket.next(Action.MESSAGE)
    assert not left.discard()
    socket.cut()
    await wait_until(lambda: not transport.connected)
    kept, dropped = (transport.view.start(text) for text in ("kept", "dropped"))
    assert dropped.discard() and not dropped.discard()
    with pytest.raises(Discarded):
        await dropped.accepted
    with pytest.raises(Discarded):
        await dropped.ended
    assert [m.message.text for m in transport.view.messages] == ["left already", "kept"]
    again = await service.accept()
    again.connected()
    frames = [await again.next(Action.MESSAGE) for _ in (left, kept)]
    assert [(frame.messages or [])[0].data for frame in frames] == ["left already", "kept"]
    await again.next(Action.ATTACH)
    again.attached(100, resumed=True)
    for frame in frames:
        again.ack(frame)
    await kept.accepted
    assert again.frames.empty() and errors == []
    await transport.close()


async def test_before_and_after() -> None:
    """SES-9: clear errors before connecting and after closing; connecting twice is connecting once."""
    service = ScriptedService()
    transport = service.transport()
    with pytest.raises(InvalidArgument):
        await transport.cancel()
    with pytest.raises(InvalidArgument):
        _ = transport.view
    opening = [asyncio.create_task(transport.open()) for _ in range(2)]
    socket = await service.accept()
    socket.connected()
    await socket.next(Action.ATTACH)
    socket.attached(1)
    await asyncio.gather(*opening)
    await transport.open()
    assert len(service.sockets) == 1
    await transport.close()
    await transport.close()
    with pytest.raises(SessionClosed) as closed:
        await transport.view.send("x")
    assert closed.value.info.code == 104004
    with pytest.raises(SessionClosed):
        await transport.open()


async def test_closing_fails_what_is_awaited() -> None:
    service = ScriptedService()
    transport, socket = await service.open()
    turn = transport.view.start("hello")
    waiting = asyncio.create_task(transport.wait_for_turn())
    reading = asyncio.create_task(anext(turn.stream))
    await socket.next(Action.MESSAGE)
    await transport.close()
    for task in (waiting, reading, asyncio.ensure_future(_ended(turn.ended))):
        with pytest.raises(SessionClosed):
            await task


async def _ended(moment: object) -> object:
    return await moment  # type: ignore[misc]


async def test_a_subscriber_that_raises_harms_no_one_else() -> None:
    """SES-13."""
    service = ScriptedService()
    transport, _ = await service.open()
    seen: list[str] = []
    errors: list[int] = []

    def broken(_: object) -> None:
        raise ValueError("mine")

    transport.on("message", broken)
    transport.on("message", lambda event: seen.append(event.codec_message_id))
    transport.on("error", broken)
    transport.on("error", lambda error: errors.append(error.info.code))
    transport.view.start("hello", id="m1")
    assert seen == ["m1"] and errors == [104001]
    await transport.close()


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": "ftp://x", "key": "a.b:c"},
        {"url": None, "key": "a.b:c"},
        {"url": "ws://x", "key": None},
        {"url": "ws://x", "key": "a.b:c", "token": "t"},
        {"url": "ws://x", "key": "a.b:c", "client_id": "*"},
        {"url": "ws://x", "key": "a.b:c", "channel": "[?rewind=1]x"},
        {"url": "ws://x", "key": "a.b:c", "unknown": 1},
        {"url": "ws://x", "key": "a.b:c", "retry_max": 0},
    ],
)
async def test_unusable_arguments_are_refused_at_once(arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        ClientTransport.connect(**{"channel": "c", **arguments})  # type: ignore[arg-type]
