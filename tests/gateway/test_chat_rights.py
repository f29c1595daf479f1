"""Strangers at the doors of plain `useChat` pages: what their rights do not cover has no effect, and reveals nothing."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.http_api.event_stream import EventStream
from tests.front_ends import PEOPLE, namespace
from tests.processes import Proc, Stack, wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")
Names = Callable[[str], str]

LIMITS = """
[gateway]
max_chat_size = 40000
max_frame_size = 30000

[limits]
connections_per_client = 20

"""
CONFIG = LIMITS + PEOPLE + namespace("bound", "assistant") + namespace("lined", "assistant", policy="queue")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(site: Stack) -> Proc:
    return await site.gateway(config=CONFIG)


@pytest_asyncio.fixture(loop_scope="module")
async def people(gateway: Proc) -> AsyncIterator[Callable[..., httpx.AsyncClient]]:
    """Clients by the name of their key, and their own."""
    async with contextlib.AsyncExitStack() as stack:
        made: dict[tuple[str, str], httpx.AsyncClient] = {}

        async def enter(client: httpx.AsyncClient) -> httpx.AsyncClient:
            return await stack.enter_async_context(client)

        def person(key: str, client_id: str = "") -> httpx.AsyncClient:
            if (key, client_id) not in made:
                made[key, client_id] = httpx.AsyncClient(
                    base_url=gateway.url,
                    auth=(f"app.{key}", "secret"),
                    params={"clientId": client_id} if client_id else {},
                    timeout=20.0,
                )
            return made[key, client_id]

        yield person
        for client in made.values():
            await client.aclose()


def asked(text: str, **fields: Any) -> dict[str, Any]:
    message = {"id": fields.pop("id", text), "role": "user", "parts": [{"type": "text", "text": text}]}
    return {"messages": [message], **fields}


async def started(client: httpx.AsyncClient, session: str, text: str = "hello") -> str:
    """A turn of this client that no one works on; its id."""
    sent = await client.post(f"/v1/sessions/{session}/turns", json={"text": text})
    assert sent.status_code == 202, sent.text
    turn: str = sent.json()["turnId"]
    return turn


async def open_turns(client: httpx.AsyncClient, session: str) -> list[str]:
    listed = (await client.get(f"/v1/sessions/{session}/turns")).json()
    return [turn["turnId"] for turn in listed["turns"]]


async def test_a_stream_that_could_not_be_read_starts_no_turn(people: Any, unique: Names) -> None:
    session = unique("lined")
    for path, body in (
        (f"/v1/ui/{session}", asked("hi")),
        (f"/v1/workflow/{session}", asked("hi")),
        ("/api/chat", asked("hi", id="m1") | {"id": session}),
    ):
        refused = await people("writer", "eve").post(path, json=body)
        assert refused.status_code in (401, 403), refused.text
    assert await open_turns(people("key"), session) == []


async def test_whether_an_answer_is_being_written_is_for_subscribers(people: Any, unique: Names) -> None:
    session = unique("bound")
    before = await people("other").get(f"/v1/ui/{session}/stream")
    await started(people("key", "alice"), session)
    after = await people("other").get(f"/v1/ui/{session}/stream")
    assert (before.status_code, before.text) == (after.status_code, after.text)
    assert before.status_code in (401, 403)


async def test_messages_need_the_right_to_history(people: Any, unique: Names) -> None:
    session = unique("bound")
    await started(people("key", "alice"), session)
    assert (await people("listener").get(f"/v1/ui/{session}/messages")).status_code in (401, 403)
    assert (await people("other").get(f"/api/chat/{session}/messages")).status_code in (401, 403)
    assert len((await people("reader").get(f"/v1/ui/{session}/messages")).json()) == 1


@pytest.mark.parametrize("key", ["reader", "talker", "listener", "other"])
async def test_anothers_turn_is_not_stopped_without_the_right(key: str, people: Any, unique: Names) -> None:
    session = unique("bound")
    turn = await started(people("key", "alice"), session)
    eve = people(key, "eve")
    answers = [
        await eve.post(f"/v1/ui/{session}/stop", json=body)
        for body in ({"turnId": turn}, {}, {"messageId": "hello"}, {"messageId": turn})
    ]
    answers.append(await eve.post(f"/v1/ui/{session}/stop"))
    answers.append(await people(key).post(f"/v1/ui/{session}/stop"))
    assert await open_turns(people("key"), session) == [turn], [answer.text for answer in answers]
    # Its owner may, and that is final.
    stopped = await people("key", "alice").post(f"/v1/ui/{session}/stop", json={})
    assert stopped.json()["matched"] == [turn]


@pytest.mark.parametrize("namespace", ["bound", "lined"])
async def test_a_talker_neither_interrupts_nor_replaces_anothers_turn(
    namespace: str, people: Any, unique: Names
) -> None:
    session = unique(namespace)
    turn = await started(people("key", "alice"), session, "the question")
    eve = people("talker", "eve")
    question = (await people("reader").get(f"/v1/ui/{session}/messages")).json()[0]["id"]
    bodies = [
        asked("mine"),
        asked("forged", messageId=question),
        asked("again", id=question, trigger="regenerate-message"),
        asked("other words", id=question),
        {"message": {"id": question, "role": "assistant", "parts": [{"type": "text", "text": "forged"}]}},
    ]
    for body in bodies:
        async with asyncio.timeout(10):
            async with eve.stream("POST", f"/v1/ui/{session}", json=body) as answer:
                assert answer.status_code < 500
    assert turn in await open_turns(people("key"), session)
    stored = (await people("key").get(f"/v1/sessions/{session}/messages")).json()["messages"]
    assert not [one for one in stored if one["message"]["role"] == "assistant"]


async def test_the_size_of_a_request_is_bounded_before_it_is_known_whose_it_is(
    people: Any, gateway: Proc, unique: Names
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b'{"text": "'
        for _ in range(1000):
            yield b"x" * 100_000

    for path in (
        f"/v1/ui/{unique('bound')}",
        "/api/chat",
        "/v1/sessions/bound:a/turns",
        "/v1/sessions/bound:a/cancel",
    ):
        async with httpx.AsyncClient(base_url=gateway.url) as absent:
            try:
                refused = await absent.post(
                    path, content=endless(), headers={"content-type": "application/json"}
                )
            except httpx.WriteError:
                continue
        assert refused.status_code in (400, 413), refused.text
        assert "exceeds" in refused.text


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_0,
        b'{"messages": [' + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"]}",
        b'{"messages": [{"id": "a\\u0000b\\nc", "role": "user", "parts": [{"type": "text", "text": "x"}]}]}',
        b'{"messages": [{"id": "\\ud800", "role": "user", "parts": [{"type": "text", "text": "x"}]}]}',
        b'{"messages": [{"id": "n", "role": "user", "parts": [{"type": "text", "text": "\\udfff"}]}]}',
        b'{"messages": [{"id": "'
        + b"i" * 20_000
        + b'", "role": "user", "parts": [{"type": "text", "text": "x"}]}]}',
        b'{"messages": [{"id": 1e400, "role": "user", "parts": [{"type": "text", "text": "x"}]}]}',
        b'{"messages": [{"id": "d", "role": "user", "parts": [{"type": "data-x", "data": '
        + b"[" * 400
        + b"]" * 400
        + b"}]}]}",
        b'{"messages": [{"id": "e", "role": "user", "parts": [{"type": "data-x", "data": 1'
        + b"0" * 400
        + b"}]}]}",
        b'{"messages": [{"id": "f", "role": "user", "parts": [{"type": "data-x", "data": NaN}]}]}',
        b'{"messages": [{"id": "g", "role": "user", "parts": [{"type": "file", "url": {}, "mediaType": []}]}]}',
        b'{"message": {"id": "h", "role": "user", "parts": {"a": 1}}}',
        b'{"message": {"id": "h", "role": "system", "parts": []}}',
        b'{"message": {"id": "h", "role": "assistant", "parts": [{"type": "tool-x", "toolCallId": 7, "state": []}]}}',
        b'{"trigger": "regenerate-message", "messageId": "\\u0000", "messages": [{"id": "a", "role": "user", "parts": []}]}',
        b'{"sessionName": "\\u0000", "inputEventId": "\\ud800"}',
    ],
    ids=range(16),
)
async def test_hostile_bodies_are_refused_or_taken_never_an_error_of_ours(
    body: bytes, people: Any, gateway: Proc, unique: Names
) -> None:
    session = unique("bound")
    headers = {"content-type": "application/json"}
    for path in (f"/v1/ui/{session}", "/api/chat", f"/v1/ui/{session}/stop", f"/v1/workflow/{session}"):
        sent = body if path != "/api/chat" else b'{"id": "%s", ' % session.encode() + body[1:]
        async with people("key", "eve").stream("POST", path, content=sent, headers=headers) as answer:
            assert answer.status_code < 500
    assert not [line for line in gateway.lines if "Traceback" in line or "ERROR" in line], gateway.log


async def test_requests_that_browsers_send_without_asking_are_refused(people: Any, unique: Names) -> None:
    session = unique("bound")
    turn = await started(people("key", "alice"), session)
    for kind in (
        "text/plain",
        "text/plain; x=msgpack",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ):
        for path in (f"/v1/ui/{session}", "/api/chat", f"/v1/ui/{session}/stop"):
            answer = await people("key", "alice").post(
                path,
                content=b"\x80" if "msgpack" in kind else b'{"id": "bound:x", "messages": []}',
                headers={"content-type": kind},
            )
            assert answer.status_code in (400, 415), (path, kind, answer.text)
    assert await open_turns(people("key"), session) == [turn]


async def test_one_client_has_a_limited_number_of_streams(people: Any, gateway: Proc, unique: Names) -> None:
    session = unique("bound")
    await started(people("key", "alice"), session)
    async with contextlib.AsyncExitStack() as held:
        eve = people("reader", "eve")
        seen = []
        for number in range(24):
            path = f"/v1/ui/{session}/stream" if number % 2 else f"/v1/sessions/{session}/events"
            answer = await held.enter_async_context(eve.stream("GET", path))
            seen.append(answer.status_code)
        assert seen == [200] * 20 + [429] * 4
        async with people("reader", "bob").stream("GET", f"/v1/ui/{session}/stream") as others:
            assert others.status_code == 200

    async def freed() -> bool:
        async with eve.stream("GET", f"/v1/ui/{session}/stream") as answer:
            return bool(answer.status_code == 200)

    await wait_until(freed, 10.0, "streams that ended count no more")


async def test_a_client_that_left_before_its_stream_began_holds_nothing() -> None:
    released = asyncio.Event()

    async def release() -> None:
        released.set()

    async def never() -> AsyncIterator[bytes]:
        yield b"unread"

    async def gone() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        await asyncio.sleep(0)

    scope = {"type": "http", "asgi": {"spec_version": "2.3"}, "method": "GET", "headers": []}
    await EventStream(never(), release, {})(scope, gone, send)
    assert released.is_set()


async def test_readers_that_leave_at_once_hold_no_session(people: Any, gateway: Proc, unique: Names) -> None:
    session = unique("bound")
    await started(people("key", "alice"), session)
    where = httpx.URL(gateway.url)
    credentials = base64.b64encode(b"app.reader:secret").decode()
    for number in range(40):
        path = f"/v1/ui/{session}/stream" if number % 2 else f"/v1/sessions/{session}/events"
        _, writer = await asyncio.open_connection(where.host, where.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {credentials}\r\n\r\n".encode())
        await writer.drain()
        await asyncio.sleep(number * 0.001)
        writer.transport.abort()

    async def is_let_go() -> bool:
        reported = (await people("key").get("/metrics")).text
        return "sht_gateway_sessions 0.0" in reported

    await wait_until(is_let_go, 20.0, "the sessions are let go")


async def test_a_stop_that_overtakes_its_send_ends_that_turn(people: Any, unique: Names) -> None:
    """The page names its newest message, which the gateway does not know yet."""
    session, alice = unique("bound"), people("key", "alice")
    early = await alice.post(f"/v1/ui/{session}/stop", json={"sentMessageId": "on-its-way"})
    assert early.json()["matched"] == []
    sent = await alice.post(f"/v1/ui/{session}", json=asked("hello", id="on-its-way"))
    assert '"type":"abort"' in sent.text, sent.text
    assert await open_turns(alice, session) == []
    early = await alice.post("/v1/agui/stop", json={"threadId": session, "sentMessageId": "second"})
    assert early.json()["stopped"] is False
    said = {"id": "second", "role": "user", "content": "hi"}
    sent = await alice.post("/v1/agui", json={"threadId": session, "runId": "r", "messages": [said]})
    assert "RUN_FINISHED" in sent.text or "RUN_ERROR" in sent.text, sent.text
    assert await open_turns(alice, session) == []
    # The caller's running turns are stopped as ever.
    turn = await started(alice, session)
    for matched in ([turn], []):
        stopped = await alice.post(f"/v1/ui/{session}/stop", json={"sentMessageId": "on-its-way"})
        assert stopped.json()["matched"] == matched


@pytest.mark.parametrize("text", ["", "  \n"])
async def test_a_message_that_says_nothing_is_refused(people: Any, unique: Names, text: str) -> None:
    session, alice = unique("bound"), people("key", "alice")
    parts = [{"type": "text", "text": text}] * 2
    said = {"id": "m", "role": "user", "content": text}
    for path, body in (
        (f"/v1/ui/{session}", {"messages": [{"id": "m", "role": "user", "parts": parts}]}),
        (f"/v1/sessions/{session}/turns", {"text": text}),
        (f"/v1/sessions/{session}/turns", {"parts": parts}),
        (f"/v1/sessions/{session}/turns/t/inputs", {"text": text}),
        ("/v1/agui", {"threadId": session, "runId": "r", "messages": [said]}),
        ("/v1/responses", {"conversation": session, "input": text, "background": True}),
    ):
        refused = await alice.post(path, json=body)
        assert (refused.status_code, "is empty" in refused.text) == (400, True), (path, refused.text)
    assert await open_turns(alice, session) == []
    file = {"type": "file", "url": "https://a.example/b.png", "mediaType": "image/png"}
    sent = await alice.post(f"/v1/sessions/{session}/turns", json={"parts": [*parts, file]})
    assert sent.status_code == 202, sent.text


async def test_refusals_name_fields_and_no_classes(people: Any, unique: Names) -> None:
    alice = people("key", "alice")
    missing = await alice.post("/v1/agui", json={})
    assert missing.status_code == 400 and "threadId: Field required" in missing.text
    faults = [{"parts": [{"type": "text"}, {"type": "file"}]}, {"parts": [1]}]
    answers = [await alice.post(f"/v1/sessions/{unique('bound')}/turns", json=body) for body in faults]
    answers += [missing, await alice.post("/api/chat", json=[])]
    for answer in answers:
        assert answer.status_code == 400
        assert not {"RouteIn", "RunIn", "WakeIn", "ChatIn", "TextPartIn", "FilePartIn"} & set(
            re.findall(r"\w+", answer.text)
        ), answer.text
    for path in ("/v1/agui", "/v1/sessions/bound:t/turns"):
        twice = "application/json, application/json"
        doubled = await alice.post(path, content=b'{"text": "hi"}', headers={"content-type": twice})
        assert doubled.status_code == 400 and twice in doubled.text, doubled.text
