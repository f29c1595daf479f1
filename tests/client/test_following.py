"""Following turns: streams, late readers, endings, cancels, and what a lost connection does to them."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from urllib.parse import unquote

import pytest

from selfhost_transport import StreamReset, TurnStatus
from selfhost_transport.client import Discontinuity, TurnStream
from selfhost_transport.client.session import requests
from selfhost_transport.client.session.events import Entry
from selfhost_transport.errors import ErrorInfo, InvalidArgument, TransportError
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.chunks import TextDelta
from selfhost_transport.turns.lifecycle import RunReason
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.frame import Frame
from selfhost_transport.wire.receipts import CancelReceipt
from tests.client.agent import ScriptedAgent, echo
from tests.client.asked import asked
from tests.client.scripted import CHANNEL, EPOCH, KEY, ScriptedService, serial
from tests.processes import wait_until


async def collect(stream: TurnStream) -> list[str]:
    """The text of a stream, in chunks; a reset begins again."""
    chunks: list[str] = []
    async for part in stream:
        if isinstance(part, StreamReset):
            chunks = []
        elif isinstance(part, TextDelta):
            chunks.append(part.delta)
    return chunks


async def test_a_stream_gives_each_chunk_and_ends_with_the_turn() -> None:
    transport, _, turn, agent = await asked(ScriptedService())
    reading = asyncio.create_task(collect(turn.stream))
    agent.begin()
    agent.say("one ", "two ", "three")
    agent.complete()
    assert await reading == ["one ", "two ", "three"]
    assert (await turn.ended).status is TurnStatus.COMPLETED
    assert turn.text == "one two three" and turn.agent == "assistant" and turn.error is None
    assert [m.message.role for m in turn.messages] == ["user", "assistant"]
    assert transport.active_turns == {}
    assert await collect(turn.stream) == ["one two three"]
    await transport.close()


async def test_a_late_reader_gets_what_was_said_first() -> None:
    """REC-3, within one client."""
    transport, _, turn, agent = await asked(ScriptedService())
    agent.begin()
    agent.say("one ", "two ")
    await wait_until(lambda: turn.text == "one two ")
    reading = asyncio.create_task(collect(turn.stream))
    agent.say("three")
    agent.complete()
    assert await reading == ["one two ", "three"]
    await transport.close()


async def test_several_readers_of_one_turn() -> None:
    transport, _, turn, agent = await asked(ScriptedService())
    readers = [asyncio.create_task(collect(turn.stream)) for _ in range(3)]
    agent.begin()
    agent.say("x", "y")
    agent.complete()
    assert await asyncio.gather(*readers) == [["x", "y"]] * 3
    await transport.close()


async def test_an_attempt_that_replaces_another_resets_the_stream() -> None:
    """TRN-9: nothing of the first attempt is left."""
    transport, _, turn, agent = await asked(ScriptedService())
    reading = asyncio.create_task(collect(turn.stream))
    agent.begin("first")
    agent.say("wrong")
    agent.attempt("second")
    agent.say("right")
    agent.complete()
    assert await reading == ["right"]
    assert turn.text == "right"
    await transport.close()


async def test_a_slow_reader_gets_joined_chunks_and_all_text() -> None:
    transport, _, turn, agent = await asked(ScriptedService())
    stream = turn.stream
    agent.begin()
    agent.say(*(f"{n} " for n in range(1000)))
    agent.complete()
    await turn.ended
    chunks = await collect(stream)
    assert "".join(chunks) == "".join(f"{n} " for n in range(1000))
    assert len(chunks) < 300
    await transport.close()


@pytest.mark.parametrize(
    "reason, status",
    [
        (RunReason.COMPLETE, TurnStatus.COMPLETED),
        (RunReason.CANCELLED, TurnStatus.CANCELLED),
        (RunReason.ERROR, TurnStatus.FAILED),
    ],
)
async def test_every_ending_is_reported_explicitly(reason: RunReason, status: TurnStatus) -> None:
    """TRN-6, CAN-22: a cancel is no error."""
    transport, _, turn, agent = await asked(ScriptedService())
    errors: list[TransportError] = []
    statuses: list[TurnStatus] = []
    transport.on("error", errors.append)
    transport.on("turn", lambda info: statuses.append(info.status))
    agent.begin()
    assert (await turn.started) is turn
    agent.end(reason, ErrorInfo(50000, 500, "it broke") if reason is RunReason.ERROR else None)
    await turn.ended
    assert turn.status is status and statuses[-1] is status and errors == []
    assert (turn.error is not None) == (reason is RunReason.ERROR)
    await transport.close()


async def test_waiting_for_turns_by_filter() -> None:
    """TRN-18."""
    transport, socket, turn, agent = await asked(ScriptedService())
    foreign = requests.user_message("hi", requests.ids_for("foreign"), client_id="user-2", parent=None)
    other = echo(foreign, 107)
    socket.messages(107, *other)
    agent.begin()
    await wait_until(lambda: len(transport.active_turns.get("user-2", set())) == 1)
    await transport.wait_for_turn(client_id="no-one")
    own = asyncio.create_task(transport.wait_for_turn())
    everyone = asyncio.create_task(transport.wait_for_turn(all=True))
    agent.complete()
    await own
    assert turn.status is TurnStatus.COMPLETED and not everyone.done()
    second = ScriptedAgent(socket, other[0], at=300)
    second.begin("answer-2")
    second.complete()
    await everyone
    await transport.wait_for_turn(all=True)
    await transport.close()


async def test_active_turns_are_found_by_owner_and_by_agent() -> None:
    """INT-7, INT-8."""
    transport, _, turn, agent = await asked(ScriptedService())
    assert transport.active_turns == {"user-1": {turn.turn_id}}
    agent.begin()
    await turn.started
    assert transport.active_turns == {"user-1": {turn.turn_id}, "assistant": {turn.turn_id}}
    assert transport.turn_of("answer-1") == turn.turn_id
    assert transport.turn_of(turn.input_codec_message_id or "") == turn.turn_id
    agent.complete()
    await turn.ended
    assert transport.active_turns == {}
    await transport.close()


# Cancelling


def headers_of(frame: Frame) -> dict[str, str]:
    assert frame.messages is not None and frame.messages[0].extras is not None
    found: dict[str, str] = dict(frame.messages[0].extras["ai"]["transport"])
    assert found.pop(h.EVENT_ID)
    return found


async def test_what_a_cancel_names_and_what_it_returns() -> None:
    """CAN-2, CAN-3."""
    transport, socket, turn, agent = await asked(ScriptedService())
    agent.begin()
    await turn.started
    scopes: list[tuple[dict[str, object], dict[str, str]]] = [
        ({}, {h.CANCEL_OWN: "true"}),
        ({"turn_id": "t9"}, {h.RUN_ID: "t9"}),
        ({"client_id": "u9"}, {h.CANCEL_CLIENT_ID: "u9"}),
        ({"all": True}, {h.CANCEL_ALL: "true"}),
    ]
    for arguments, expected in scopes:
        cancelling = asyncio.create_task(transport.cancel(**arguments))  # type: ignore[arg-type]
        frame = await socket.next(Action.MESSAGE)
        assert headers_of(frame) == expected
        socket.ack(frame, cancel=CancelReceipt(serial(200), ("a",), ("b",)))
        result = await cancelling
        assert (result.position, result.matched, result.already_ended) == (serial(200), ("a",), ("b",))
    with pytest.raises(InvalidArgument):
        await transport.cancel("t", all=True)
    await transport.close()


async def test_send_and_cancel_in_one_tick() -> None:
    """CAN-4: the cancel follows the send and names the message, whose turn has no other name yet."""
    service = ScriptedService()
    transport, socket = await service.open()
    turn = transport.view.start("hello")
    cancelling = asyncio.create_task(turn.cancel())
    sent, cancel = await socket.next(Action.MESSAGE), await socket.next(Action.MESSAGE)
    assert (sent.msg_serial, cancel.msg_serial) == (0, 1)
    assert headers_of(cancel) == {h.INPUT_CODEC_MESSAGE_ID: turn.input_codec_message_id}
    socket.ack(sent)
    socket.ack(cancel, cancel=CancelReceipt(serial(200), (turn.turn_id or "",)))
    assert (await cancelling).matched == (turn.turn_id,)
    await transport.close()


async def test_interrupt_is_one_publish() -> None:
    """INT-24."""
    transport, socket, _, _ = await asked(ScriptedService())
    interrupting = asyncio.create_task(transport.interrupt("stop, this instead"))
    frame = await socket.next(Action.MESSAGE)
    found = headers_of(frame)
    assert (found[h.TURN_POLICY], found[h.CANCEL_OWN]) == ("interrupt", "true")
    socket.ack(frame)
    await interrupting
    assert socket.frames.empty()
    await transport.close()


async def test_closing_cancels_nothing_unless_asked() -> None:
    """CAN-12."""
    transport, socket, _, _ = await asked(ScriptedService())
    closing = asyncio.create_task(transport.close(cancel="own"))
    frame = await socket.next(Action.MESSAGE)
    assert headers_of(frame) == {h.CANCEL_OWN: "true"}
    socket.ack(frame, cancel=CancelReceipt(serial(200)))
    await closing
    await socket.next(Action.CLOSE)
    transport, socket, _, _ = await asked(ScriptedService())
    await transport.close()
    await socket.next(Action.CLOSE)


async def test_an_anonymous_client_has_no_own_turns() -> None:
    service = ScriptedService()
    transport, _ = await service.open(client_id=None)
    with pytest.raises(InvalidArgument):
        await transport.cancel()
    await transport.close()


# Where no agent is bound to the namespace


async def test_unbound_turns_get_their_id_from_the_agent() -> None:
    transport, socket, turn, agent = await asked(ScriptedService(), agent=None)
    assert turn.turn_id is None and transport.agent is None and transport.active_turns == {}
    early = asyncio.create_task(turn.cancel())
    frame = await socket.next(Action.MESSAGE)
    assert headers_of(frame) == {h.INPUT_CODEC_MESSAGE_ID: turn.input_codec_message_id}
    socket.ack(frame, serials=[serial(106) + ":000"])
    assert (await early).position == serial(106) + ":000"
    agent.begin()
    await turn.started
    assert turn.turn_id == agent.context.turn_id
    cancelling = asyncio.create_task(transport.cancel())
    frame = await socket.next(Action.MESSAGE)
    assert headers_of(frame) == {h.RUN_ID: turn.turn_id}
    socket.ack(frame, serials=[serial(300) + ":000"])
    result = await cancelling
    assert result.matched == (turn.turn_id,)
    agent.end(RunReason.CANCELLED)
    await turn.ended
    assert (await transport.cancel(turn.turn_id)).already_ended == (turn.turn_id,)
    assert (await transport.cancel("nope")).matched == ()
    await transport.close()


# Losing the connection


async def test_a_resumed_stream_has_no_gap_and_no_duplicate() -> None:
    service = ScriptedService()
    transport, socket, turn, agent = await asked(service)
    gaps: list[Discontinuity] = []
    transport.on("discontinuity", gaps.append)
    reading = asyncio.create_task(collect(turn.stream))
    agent.begin()
    agent.say("one ", "two ")
    await wait_until(lambda: turn.text == "one two ")
    position = transport.position
    socket.cut()
    agent.socket = again = await service.accept()
    assert again.query["resume"] == "conn!key"
    again.connected()
    attach = await again.next(Action.ATTACH)
    assert attach.channel_serial == position
    again.attached(100, resumed=True)
    agent.say("three ")
    agent.complete()
    assert await reading == ["one ", "two ", "three "]
    assert gaps == [] and transport.connection_id == "conn"
    await transport.close()


async def test_err_4_a_gap_is_announced_and_the_session_goes_on() -> None:
    """SES-12, ERR-4: one event, after which deliveries continue."""
    service = ScriptedService()
    transport, socket, turn, agent = await asked(service)
    gaps: list[Discontinuity] = []
    transport.on("discontinuity", gaps.append)
    agent.begin()
    await turn.started
    reason = ErrorInfo(90003, 404, "too old")
    socket.deliver(Frame(Action.ATTACHED, channel=CHANNEL, channel_serial=serial(500), flags=0, error=reason))
    agent.at = 501
    agent.say("after")
    agent.complete()
    await turn.ended
    assert [(gap.reason, gap.position) for gap in gaps] == [(reason, serial(500))]
    assert turn.text == "after"
    await transport.close()


async def test_a_session_that_was_made_again_starts_empty() -> None:
    service = ScriptedService()
    transport, socket, _, _ = await asked(service)
    assert len(transport.view.messages) == 1
    again = serial(600, "zzzzzzzzzz")
    assert EPOCH not in again
    socket.deliver(Frame(Action.ATTACHED, channel=CHANNEL, channel_serial=again, flags=0))
    await wait_until(lambda: transport.view.messages == [])
    await transport.close()


async def test_the_next_endpoint_is_tried() -> None:
    service = ScriptedService()
    service.unreachable = {"one"}
    transport = service.transport(endpoints=["ws://two"])
    opening = asyncio.create_task(transport.open())
    socket = await service.accept()
    assert "//two/" in socket.url
    socket.connected()
    await socket.next(Action.ATTACH)
    socket.attached(1)
    await opening
    await transport.close()


async def test_giving_up_to_connect_says_why(caplog: pytest.LogCaptureFixture) -> None:
    service = ScriptedService()
    service.unreachable = {"one"}
    with pytest.raises(TransportError, match="refused"):
        await service.transport().open(within=0.05)
    [reported] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "refused" in reported  # at the first dial, not only when the time is up


async def test_a_refused_key_is_a_typed_error() -> None:
    service = ScriptedService()
    opening = asyncio.create_task(service.transport().open())
    socket = await service.accept()
    socket.deliver(Frame(Action.ERROR, error=ErrorInfo(40101, 401, "wrong key")))
    with pytest.raises(TransportError) as refusal:
        await opening
    assert refusal.value.info.code == 40101


async def test_an_expired_token_is_renewed_and_the_connection_resumed() -> None:
    service = ScriptedService()
    tokens = iter(["t1", "t2", "t3"])
    transport, socket = await service.open(auth_callback=lambda: next(tokens))
    assert socket.authorization == bearer("t1")
    socket.deliver(Frame(Action.AUTH))
    assert (await socket.next(Action.AUTH)).access_token == "t2"
    socket.connected()
    socket.deliver(Frame(Action.DISCONNECTED, error=ErrorInfo(40142, 401, "expired")))
    again = await service.accept()
    assert (again.authorization, again.query["resume"]) == (bearer("t3"), "conn!key")
    await transport.close()


def bearer(token: str) -> str:
    return f"Bearer {b64encode(token.encode()).decode()}"


@pytest.mark.parametrize("given", [{"key": KEY}, {"token": "secret-token"}])
async def test_what_proves_who_one_is_stands_in_no_address(given: dict[str, str]) -> None:
    service = ScriptedService()
    transport, socket = await service.open(**given)
    socket.cut()
    await service.accept()
    await transport.view.load_older()
    addresses = [*service.urls, *(str(request.url) for request in service.requests)]
    assert len(service.urls) == 2
    for secret in ("secret", KEY.partition(":")[2]):
        assert not [address for address in addresses if secret in unquote(address)]
    await transport.close()


async def test_entries_are_given_as_they_come() -> None:
    service = ScriptedService()
    transport, _, turn, agent = await asked(service)
    entries: list[Entry] = []
    transport.on("entry", entries.append)
    agent.begin()
    agent.say("a", "b")
    agent.complete()
    await turn.ended
    positions = [entry.position for entry in entries]
    assert positions == sorted(positions) and len(positions) == agent.at - 110
    await transport.close()
