"""Reading the past: at the attach, page by page, after a gap, and when the service refuses."""

from __future__ import annotations

import asyncio

import pytest

from selfhost_transport import ClientOptions, ClientTransport
from selfhost_transport.client import Discontinuity
from selfhost_transport.client.session import requests
from selfhost_transport.errors import (
    CapabilityError,
    ContinuityLost,
    ErrorInfo,
    InvalidArgument,
    LogRewound,
    TransportError,
)
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.seed import Seed
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.view import MessagesChanged, TreeView
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.frame import Frame
from selfhost_transport.wire.message import Message
from tests.client.agent import ScriptedAgent, echo, user_messages
from tests.client.loading import options
from tests.client.scripted import CHANNEL, ScriptedService, serial
from tests.processes import wait_until


def shown(client: ClientTransport) -> list[str]:
    return [message.message.text for message in client.view.messages]


def texts(first: int, last: int) -> list[str]:
    return [f"text {number}" for number in range(first, last)]


async def test_the_past_is_shown_when_the_transport_is_open() -> None:
    service = ScriptedService()
    service.history = user_messages(5)
    client, _ = await service.open(options=options())
    assert shown(client) == texts(0, 5) and not client.view.has_older
    (request,) = service.requests
    assert request.url.params["from_serial"] == serial(100)
    assert request.headers["authorization"].startswith("Basic ")
    await client.close()


async def test_deliveries_wait_until_the_past_is_read() -> None:
    """SES-11: in order, without gap or duplicate, whatever arrives first."""
    service = ScriptedService()
    service.history = user_messages(5)
    client = service.transport(options=options())
    opening = asyncio.create_task(client.open())
    socket = await service.accept()
    socket.connected()
    await socket.next(Action.ATTACH)
    socket.attached(100)
    fresh = user_messages(7)[5:]
    for number, message in enumerate(fresh):
        socket.messages(101 + number, *echo([message], 101 + number))
    await opening
    await wait_until(lambda: len(client.view.messages) == 7)
    assert shown(client) == texts(0, 7)
    await client.close()


async def test_older_pages_are_read_when_asked_for() -> None:
    """HIS-1, HIS-3, HIS-7."""
    service = ScriptedService()
    service.history = user_messages(25)
    client, _ = await service.open(options=options(history_limit=3, page_size=10))
    assert shown(client) == texts(22, 25) and len(service.requests) == 1
    page = await client.view.load_older(4)
    assert [m.message.text for m in page] == texts(18, 22) and len(service.requests) == 1
    pages = await asyncio.gather(client.view.load_older(10), client.view.load_older(10))
    assert [[m.message.text for m in page] for page in pages] == [texts(8, 18), texts(0, 8)]
    assert shown(client) == texts(0, 25) and not client.view.has_older
    assert await client.view.load_older(10) == []
    with pytest.raises(InvalidArgument):
        await client.view.load_older(0)
    await client.close()


async def test_nothing_is_read_unless_asked_for() -> None:
    service = ScriptedService()
    service.history = user_messages(4)
    client, _ = await service.open(options=options(history_limit=0))
    assert service.requests == [] and client.view.has_older
    assert [m.message.text for m in await client.view.load_older(9)] == texts(0, 4)
    assert not client.view.has_older
    await client.close()


async def test_after_a_gap_everything_since_is_read_also_by_a_live_client() -> None:
    """P7: no silent hole, though this client had read no history."""
    service = ScriptedService()
    past = user_messages(3)
    service.history = past
    client, socket = await service.open(options=options(history_limit=0))
    gaps: list[Discontinuity] = []
    client.on("discontinuity", gaps.append)
    missed = user_messages(40, at=200)[3:]
    service.history = [*past, *missed]
    socket.deliver(Frame(Action.ATTACHED, channel=CHANNEL, channel_serial=serial(500), flags=0))
    await wait_until(lambda: gaps)
    assert shown(client)[-37:] == texts(3, 40)
    await client.close()


async def test_a_stream_goes_on_over_a_gap() -> None:
    service = ScriptedService()
    client, socket = await service.open(options=options())
    turn = client.view.start("hello")
    frame = await socket.next(Action.MESSAGE)
    messages = echo(frame.messages or [], 105)
    socket.messages(105, *messages)
    socket.ack(frame)
    agent = ScriptedAgent(socket, messages[0])
    agent.begin()
    agent.say("one ")
    await wait_until(lambda: turn.text == "one ")
    stream = turn.stream
    # Two more chunks are written while the client hears nothing; the history has the text as it then is.
    service.history = [*messages, *agent.written()]
    agent.deaf = True
    agent.say("two ", "three ")
    service.history = [*messages, *agent.written()]
    agent.deaf = False
    socket.deliver(Frame(Action.ATTACHED, channel=CHANNEL, channel_serial=serial(agent.at), flags=0))
    agent.at += 1
    agent.say("four")
    agent.complete()
    await turn.ended
    said = "".join([getattr(part, "delta", "") async for part in stream])
    assert said == turn.text == "one two three four"
    await client.close()


async def test_a_refused_history_leaves_a_live_session() -> None:
    """DEV-7, HIS-8, REC-17: live only, and a typed error to who asks for more."""
    service = ScriptedService()
    service.failures = [ErrorInfo(40160, 401, "history is not permitted")]
    client, socket = await service.open(options=options())
    (message,) = user_messages(1, at=101)
    socket.messages(101, message)
    await wait_until(lambda: shown(client) == ["text 0"])
    with pytest.raises(CapabilityError, match="history is not permitted"):
        await client.view.load_older()
    await client.close()


async def test_an_unreachable_history_is_tried_again() -> None:
    service = ScriptedService()
    service.history = user_messages(2)
    service.failures = [ErrorInfo(50003, 503, "redis is away")] * 2
    client, _ = await service.open(options=options())
    assert shown(client) == texts(0, 2) and len(service.requests) == 3
    await client.close()


async def test_a_page_that_cannot_be_read_is_an_error_in_the_end() -> None:
    service = ScriptedService()
    service.history = user_messages(2)
    client, _ = await service.open(options=options(history_limit=0))
    service.failures = [ErrorInfo(50003, 503, "redis is away")] * 4
    with pytest.raises(TransportError) as failed:
        await client.view.load_older()
    assert failed.value.info.code == 104011
    assert [m.message.text for m in await client.view.load_older()] == texts(0, 2)
    await client.close()


async def test_an_expired_token_is_renewed_for_a_request() -> None:
    service = ScriptedService()
    tokens = iter(["t1", "t2"])
    service.failures = [ErrorInfo(40142, 401, "expired")]
    service.history = user_messages(1)
    client, _ = await service.open(options=options(), auth_callback=lambda: next(tokens))
    used = [request.headers["authorization"] for request in service.requests]
    assert used == ["Bearer dDE=", "Bearer dDI="] and shown(client) == texts(0, 1)
    await client.close()


async def test_turns_of_a_deleted_session_are_given_up() -> None:
    service = ScriptedService()
    client, socket = await service.open()
    turn = client.view.start("hello")
    frame = await socket.next(Action.MESSAGE)
    socket.ack(frame)
    await turn.accepted
    again = serial(600, "zzzzzzzzzz")
    socket.deliver(Frame(Action.ATTACHED, channel=CHANNEL, channel_serial=again, flags=0))
    with pytest.raises(ContinuityLost):
        await turn.ended
    await client.close()


async def test_the_same_id_with_another_text_is_a_conflict() -> None:
    """OPT-5: the caller gets the error, and what was accepted stays."""
    service = ScriptedService()
    client, socket = await service.open()
    first = client.view.start("hello", id="mine")
    frame = await socket.next(Action.MESSAGE)
    socket.messages(101, *echo(frame.messages or [], 101))
    socket.ack(frame)
    await first.accepted
    sending = asyncio.create_task(client.view.send("something else", id="mine"))
    frame = await socket.next(Action.MESSAGE)
    headers = h.read_headers((frame.messages or [])[0])
    assert headers is not None and headers.codec_message_id == "mine"
    socket.nack(frame, ErrorInfo(40031, 409, "the id was used for another message"))
    with pytest.raises(TransportError) as refusal:
        await sending
    assert refusal.value.info.code == 40031
    assert shown(client) == ["hello"] and client.turn_for("mine") is first
    await client.close()


async def test_a_refused_send_may_be_made_again_under_its_id() -> None:
    service = ScriptedService()
    client, socket = await service.open()
    refused = client.view.start("hello", id="mine")
    socket.nack(await socket.next(Action.MESSAGE), ErrorInfo(40900, 409, "busy"))
    with pytest.raises(TransportError):
        await refused.accepted
    sending = asyncio.create_task(client.view.send("hello", id="mine"))
    socket.ack(await socket.next(Action.MESSAGE))
    assert (await sending) is not refused
    await client.close()


async def test_closing_with_a_cancel_needs_a_connection() -> None:
    service = ScriptedService()
    quick = ClientOptions(history_limit=0, retry_initial=0.001, retry_max=0.01, connect_timeout=0.05)
    client, socket = await service.open(options=quick)
    service.unreachable = {"one"}
    socket.cut()
    await wait_until(lambda: not client.connected)
    with pytest.raises(TransportError, match="not connected"):
        await client.close(cancel="own")
    assert client.state == "closed"


def fork(key: str, parent: str, fork_of: str, at: int) -> list[Message]:
    """An edit by another device."""
    sent = requests.user_message(
        f"text {key}", requests.ids_for(key), client_id="user-2", parent=parent, fork_of=fork_of
    )
    return echo(sent, at)


async def test_pages_count_messages_of_the_conversation() -> None:
    """P14: hundreds of the application's messages between them change nothing of what is shown."""
    service = ScriptedService()
    said = user_messages(12)
    notes = [Message(name="note", data="x") for _ in range(150)]
    service.history = [*said[:6], *echo(notes, 16), *echo(said[6:], 20), *echo(notes, 30)]
    client, _ = await service.open(options=options(history_limit=8, page_size=20))
    assert shown(client) == texts(4, 12)
    assert [item.message.text for item in await client.view.load_older(3)] == texts(1, 4)
    await client.close()


async def test_edits_and_sends_do_not_depend_on_what_was_read() -> None:
    """P14: the first message of a page has one before it; one that was not read is read for its edit."""
    service = ScriptedService()
    service.history = user_messages(30)
    client, socket = await service.open(options=options(history_limit=3, page_size=3))
    for edited, parent in (("m27", "m26"), ("m9", "m8"), ("m0", None)):
        sending = asyncio.create_task(client.view.edit(edited, "instead"))
        frame = await socket.next(Action.MESSAGE)
        headers = h.read_headers((frame.messages or [])[0])
        assert headers is not None and (headers.parent, headers.get(h.FORK_OF)) == (parent, edited)
        socket.ack(frame)
        await sending
    await client.close()


async def test_a_send_without_history_follows_the_newest_message_where_no_agent_is_bound() -> None:
    service = ScriptedService()
    service.history = user_messages(30)
    client, socket = await service.open(agent=None, options=options(history_limit=0))
    sending = asyncio.create_task(client.view.send("and then?"))
    frame = await socket.next(Action.MESSAGE)
    headers = h.read_headers((frame.messages or [])[0])
    assert headers is not None and headers.parent == "m29"
    socket.ack(frame)
    await sending
    assert shown(client) == ["and then?"]
    await client.close()


async def test_an_edit_of_what_was_not_read_shows_its_branch_alone() -> None:
    """P14: another device edits an old message; the page that was read belongs to the branch it replaces."""
    service = ScriptedService()
    service.history = user_messages(30)
    client, socket = await service.open(options=options(history_limit=3, page_size=3))
    socket.messages(101, *fork("m2-again", "m1", "m2", 101))
    await wait_until(lambda: shown(client) == ["text m2-again"])
    assert [item.message.text for item in await client.view.load_older(9)] == texts(0, 2)
    await client.close()
    service.history += fork("m2-again", "m1", "m2", 50)
    late, _ = await service.open(options=options(history_limit=2, page_size=3))
    assert shown(late) == ["text 1", "text m2-again"]
    await late.close()


async def test_a_session_that_went_back_is_shown_again() -> None:
    service = ScriptedService()
    service.history = user_messages(20)
    client, socket = await service.open(options=options(history_limit=5, page_size=3))
    assert shown(client) == texts(15, 20)
    seen: list[object] = []
    client.view.subscribe(seen.append)
    service.history = user_messages(18)
    lost = LogRewound("lost").info
    socket.deliver(Frame(Action.ATTACHED, channel=CHANNEL, channel_serial=serial(90), flags=0, error=lost))
    await wait_until(lambda: shown(client) == texts(13, 18))
    assert MessagesChanged() in seen
    await client.close()


async def test_an_edit_of_a_stored_message_that_the_session_no_longer_has_keeps_its_place() -> None:
    service = ScriptedService()
    said = user_messages(6)
    tree = SessionTree()
    for message in said:
        tree.apply(message)
    seed = Seed(tuple(TreeView(tree).messages()), allow_gap=True)
    client, socket = await service.open(seed=seed)
    assert shown(client) == texts(0, 6)
    sending = asyncio.create_task(client.view.edit("m3", "instead"))
    frame = await socket.next(Action.MESSAGE)
    headers = h.read_headers((frame.messages or [])[0])
    assert headers is not None and (headers.parent, headers.get(h.FORK_OF)) == ("m2", "m3")
    socket.ack(frame)
    await sending
    await client.close()
