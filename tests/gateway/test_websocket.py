"""The websocket as the wire has it: connecting, publishing, appending, resuming, refusals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect
from websockets.frames import Close, Frame, Opcode

from selfhost_transport.wire.codec import Format
from tests.gateway.raw import (
    ACK,
    ATTACHED,
    CONNECTED,
    DETACHED,
    DISCONNECTED,
    ERROR,
    MESSAGE,
    NACK,
    Map,
    RawClient,
    client,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
Names = Callable[[str], str]
BOTH = pytest.mark.parametrize("fmt", [Format.JSON, Format.MSGPACK])


async def joined(raw: RawClient, channel: str) -> Map:
    assert (await raw.next())["action"] == CONNECTED
    frame = await raw.attach(channel)
    assert frame["action"] == ATTACHED
    return frame


def user_message(message_id: str, text: str = "hi", **headers: str) -> Map:
    transport = {"role": "user", "codec-message-id": message_id, "event-id": f"e-{message_id}", **headers}
    codec = {"kind": "user-message", "messageId": message_id, "partType": "text"}
    return {"name": "ai-input", "data": text, "extras": {"ai": {"transport": transport, "codec": codec}}}


def cancel(**headers: str) -> Map:
    return {"name": "ai-cancel", "extras": {"ai": {"transport": headers}}}


@BOTH
async def test_publish_append_and_echo(url: str, unique: Names, fmt: Format) -> None:
    channel = unique("plain")
    async with client(url, fmt, clientId="alice") as raw:
        await joined(raw, channel)
        ack = await raw.publish(channel, {"name": "n", "data": "a", "extras": {"headers": {"x": 1}}})
        serial = ack["res"][0]["serials"][0]
        created = await raw.message()
        assert (created["serial"], created["clientId"], created["action"]) == (serial, "alice", 0)
        for text in ("b", "c"):
            await raw.submit(channel, {"action": 5, "serial": serial, "data": text})
        deltas = [await raw.message() for _ in range(2)]
        versions = [(await raw.answer())["res"][0]["serials"][0] for _ in range(2)]
        assert [delta["data"] for delta in deltas] == ["b", "c"]
        assert [delta["version"]["serial"] for delta in deltas] == versions
        assert {delta["name"] for delta in deltas} == {"n"}
        assert deltas[0]["extras"] == {"headers": {"x": 1}}
        assert serial < versions[0] < versions[1]


@BOTH
async def test_a_late_joiner_gets_the_whole_text_then_chunks(url: str, unique: Names, fmt: Format) -> None:
    channel = unique("plain")
    async with client(url, Format.JSON) as writer, client(url, fmt) as late:
        await joined(writer, channel)
        serial = (await writer.publish(channel, {"name": "n", "data": "a"}))["res"][0]["serials"][0]
        await writer.publish(channel, {"action": 5, "serial": serial, "data": "b"})
        # An ACK may be ahead of the delivery: what was not delivered yet would be the late one's first contact.
        assert [(await writer.message())["data"] for _ in range(2)] == ["a", "b"]
        await joined(late, channel)
        await writer.publish(channel, {"action": 5, "serial": serial, "data": "c", "extras": {"k": "v"}})
        first = await late.message()
        await writer.publish(channel, {"action": 5, "serial": serial, "data": "d"})
        second = await late.message()
        assert (first["action"], first["data"], first["name"], first["extras"]) == (1, "abc", "n", {"k": "v"})
        assert (second["action"], second["data"]) == (5, "d")


@BOTH
async def test_binary_crosses_formats(url: str, unique: Names, fmt: Format) -> None:
    channel = unique("plain")
    other = Format.MSGPACK if fmt is Format.JSON else Format.JSON
    async with client(url, fmt) as writer, client(url, other) as reader:
        await joined(writer, channel)
        await joined(reader, channel)
        as_json, as_msgpack = {"data": "AQID", "encoding": "base64"}, {"data": b"\x01\x02\x03"}
        await writer.publish(channel, as_json if fmt is Format.JSON else as_msgpack)
        message = await reader.message()
        expected = as_msgpack if fmt is Format.JSON else as_json
        assert {name: message.get(name) for name in expected} == expected


async def test_answers_keep_the_order_of_frames_refusals_included(url: str, unique: Names) -> None:
    channel = unique("plain")
    async with client(url) as raw:
        await raw.next()
        for number in range(60):
            await raw.submit(channel, *([] if number % 7 == 3 else [{"data": str(number)}]))
        answers = [await raw.answer() for _ in range(60)]
        assert [answer["msgSerial"] for answer in answers] == list(range(60))
        refused = [answer["msgSerial"] for answer in answers if answer["action"] == NACK]
        assert refused == [number for number in range(60) if number % 7 == 3]
        serials = [answer["res"][0]["serials"][0] for answer in answers if answer["action"] == ACK]
        assert serials == sorted(serials)


async def test_updates_between_appends_keep_their_place(url: str, unique: Names) -> None:
    channel = unique("plain")
    async with client(url) as raw:
        await joined(raw, channel)
        serial = (await raw.publish(channel, {"data": "a"}))["res"][0]["serials"][0]
        await raw.message()
        for change in ({"action": 5, "data": "b"}, {"action": 1, "data": "X"}, {"action": 5, "data": "c"}):
            await raw.submit(channel, {"serial": serial, **change})
        for _ in range(3):
            assert (await raw.answer())["action"] == ACK
        seen = [await raw.message() for _ in range(3)]
        assert [(message["action"], message["data"]) for message in seen] == [(5, "b"), (1, "X"), (5, "c")]


@BOTH
async def test_resume_replays_what_was_missed(url: str, second_url: str, unique: Names, fmt: Format) -> None:
    channel = unique("plain")
    async with client(second_url) as writer:
        await joined(writer, channel)
        async with client(url, fmt, clientId="alice") as raw:
            connected = await raw.next()
            await raw.attach(channel)
            serial = (await writer.publish(channel, {"data": "a"}))["res"][0]["serials"][0]
            position = (await raw.action(MESSAGE))["channelSerial"]
            await raw.drop()
        await writer.publish(channel, {"data": "b", "name": "missed"})
        await writer.publish(channel, {"action": 5, "serial": serial, "data": "+"})
        key = connected["connectionDetails"]["connectionKey"]
        async with client(second_url, fmt, clientId="alice", resume=key) as again:
            resumed = await again.next()
            assert resumed["connectionId"] == connected["connectionId"]
            assert "error" not in resumed
            assert resumed["connectionDetails"]["connectionKey"] != key
            attached = await again.attach(channel, channelSerial=position)
            assert attached["flags"] & 6 == 6
            missed, whole = await again.message(), await again.message()
            assert (missed["name"], missed["data"]) == ("missed", "b")
            assert (whole["action"], whole["data"]) == (1, "a+")


async def test_a_frame_sent_again_after_a_resume_is_stored_once(
    url: str, second_url: str, unique: Names
) -> None:
    channel = unique("plain")
    frame = {"action": MESSAGE, "channel": channel, "msgSerial": 3, "messages": [{"data": "once"}]}
    async with client(url) as raw:
        connected = await raw.next()
        await raw.send(frame)
        first = await raw.answer()
    async with client(second_url, resume=connected["connectionDetails"]["connectionKey"]) as again:
        await again.next()
        await again.send(frame)
        assert await again.answer() == first


async def test_a_forged_key_gives_a_new_connection(url: str) -> None:
    async with client(url, resume="aaaaaaaaaaaa!1-2") as raw:
        connected = await raw.next()
        assert (connected["action"], connected["error"]["code"]) == (CONNECTED, 80018)


async def test_an_unknown_position_is_reported(url: str, unique: Names) -> None:
    channel = unique("plain")
    async with client(url) as raw:
        await raw.next()
        await raw.publish(channel, {"data": "a"})
        frame = await raw.attach(channel, channelSerial="00000000000001-000@zzzzzzzzzz")
        assert (frame["action"], frame["error"]["code"], frame["flags"] & 4) == (ATTACHED, 90005, 0)


async def test_a_newer_socket_takes_over(url: str) -> None:
    async with client(url) as old:
        connected = await old.next()
        async with client(url, resume=connected["connectionDetails"]["connectionKey"]) as new:
            assert (await new.next())["connectionId"] == connected["connectionId"]
            frame = await old.next()
            assert (frame["action"], frame["error"]["code"], frame["error"]["statusCode"]) == (
                DISCONNECTED,
                80003,
                400,
            )
            await old.closed()


async def test_rewind(url: str, unique: Names) -> None:
    channel = unique("plain")
    async with client(url) as raw:
        await raw.next()
        for text in "abc":
            await raw.publish(channel, {"data": text})
        frame = await raw.attach(channel, params={"rewind": "2", "agent": "x"})
        assert (frame["params"], frame["flags"] & 2) == ({"rewind": "2"}, 2)
        assert [(await raw.message())["data"] for _ in range(2)] == ["b", "c"]


async def test_no_echo_when_not_wanted(url: str, unique: Names) -> None:
    channel = unique("plain")
    async with client(url, echo="false") as silent, client(url) as other:
        await joined(silent, channel)
        await joined(other, channel)
        await silent.publish(channel, {"data": "own"})
        await other.message()
        await other.publish(channel, {"data": "theirs"})
        assert (await silent.message())["data"] == "theirs"


async def test_nothing_follows_detached(url: str, unique: Names) -> None:
    channel = unique("plain")
    async with client(url) as raw, client(url) as writer:
        await joined(raw, channel)
        await writer.next()
        await raw.send({"action": 12, "channel": channel})
        assert (await raw.next())["action"] == DETACHED
        await writer.publish(channel, {"data": "x"})
        await raw.send({"action": 0, "id": "ping"})
        assert (await raw.next())["id"] == "ping"


async def test_json_may_come_as_a_binary_message(url: str, unique: Names) -> None:
    channel = unique("plain")
    async with client(url, Format.JSON) as raw:
        await joined(raw, channel)
        frame = {"action": MESSAGE, "channel": channel, "msgSerial": 0, "messages": [{"data": "x"}]}
        await raw.send_raw(json.dumps(frame).encode())
        assert (await raw.answer())["action"] == ACK
        assert (await raw.message())["data"] == "x"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"key": "app.key:wrong"}, 40101),
        ({"key": "app.no-one:x"}, 40101),
        ({"key": "nonsense"}, 40101),
        ({"key": ""}, 40101),
        ({"key": "", "access_token": "a.b.c"}, 40144),
        ({"v": "1"}, 40017),
    ],
)
async def test_refused_connections_are_reported_in_a_frame(
    url: str, query: dict[str, str], code: int
) -> None:
    async with client(url, Format.JSON, **query) as raw:
        frame = await raw.next()
        assert (frame["action"], frame["error"]["code"]) == (ERROR, code)
        assert "channel" not in frame
        await raw.closed()


async def test_garbage_gets_an_error_and_no_traceback(url: str) -> None:
    async with client(url) as raw:
        await raw.next()
        await raw.send_raw("{")
        frame = await raw.next()
        assert (frame["action"], frame["error"]["code"]) == (ERROR, 40001)
        await raw.closed()


async def test_a_malformed_publish_is_refused_and_the_connection_stays(url: str, unique: Names) -> None:
    channel = unique("plain")
    async with client(url) as raw:
        await raw.next()
        answer = await raw.publish(channel, {"data": {"not": "text"}})
        assert (answer["action"], answer["error"]["code"]) == (NACK, 40013)
        assert (await raw.publish(channel, {"data": "fine"}))["action"] == ACK


async def test_heartbeats_come_for_clients_that_cannot_see_pings(url: str) -> None:
    async with client(url, heartbeats="true") as raw:
        await raw.next()
        assert await raw.next() == {"action": 0}


async def test_a_send_becomes_a_turn_and_its_repeat_the_same(url: str, unique: Names) -> None:
    channel = unique("bound")
    async with client(url, clientId="alice") as raw:
        await joined(raw, channel)
        first = await raw.publish(channel, user_message("m1"))
        again = await raw.publish(channel, user_message("m1"))
        turn, repeat = first["res"][0]["turn"], again["res"][0]["turn"]
        assert (turn["id"], turn["repeated"], repeat["repeated"]) == (repeat["id"], False, True)
        assert first["res"][0]["serials"] == again["res"][0]["serials"]
        conflict = await raw.publish(channel, user_message("m1", "another text"))
        assert (conflict["action"], conflict["error"]["code"]) == (NACK, 40031)


async def test_a_cancel_is_answered_after_everything_before_it(url: str, unique: Names) -> None:
    channel = unique("bound")
    async with client(url, clientId="alice") as raw:
        await joined(raw, channel)
        turn = (await raw.publish(channel, user_message("m1")))["res"][0]["turn"]["id"]
        await raw.submit(channel, cancel(**{"cancel-own": "true"}))
        names = []
        while True:
            frame = await raw.action(MESSAGE, ACK)
            if frame["action"] == ACK:
                break
            names += [message["name"] for message in frame["messages"]]
        receipt = frame["res"][0]["cancel"]
        assert (receipt["matched"], receipt["alreadyEnded"]) == ([turn], [])
        assert names[:2] == ["ai-input", "ai-cancel"]
        again = (await raw.publish(channel, cancel(**{"run-id": turn})))["res"][0]["cancel"]
        assert (again["matched"], again["alreadyEnded"]) == ([], [turn])
        assert again["position"] == receipt["position"]


async def test_an_answer_to_an_ended_turn_is_refused(url: str, unique: Names) -> None:
    channel = unique("bound")
    async with client(url, clientId="alice") as raw:
        await raw.next()
        turn = (await raw.publish(channel, user_message("m1")))["res"][0]["turn"]["id"]
        await raw.publish(channel, cancel(**{"run-id": turn}))
        steer = user_message("m2", **{"run-id": turn})
        error = (await raw.publish(channel, steer))["error"]
        assert (error["code"], error["statusCode"]) == (40003, 409)


async def test_policy_reject_names_the_active_turn(url: str, unique: Names) -> None:
    channel = unique("single")
    async with client(url, clientId="alice") as raw:
        await raw.next()
        turn = (await raw.publish(channel, user_message("m1")))["res"][0]["turn"]["id"]
        error = (await raw.publish(channel, user_message("m2")))["error"]
        assert (error["code"], error["detail"]) == (40900, {"turns": [turn]})
        interrupt = user_message("m3", **{"turn-policy": "interrupt"})
        accepted = (await raw.publish(channel, interrupt))["res"][0]["turn"]
        assert accepted["interrupted"] == [turn]


async def test_two_gateways_show_one_order(url: str, second_url: str, unique: Names) -> None:
    channel = unique("plain")
    async with client(url) as one, client(second_url) as two:
        await joined(one, channel)
        await joined(two, channel)

        async def write(raw: RawClient) -> None:
            for number in range(40):
                await raw.submit(channel, {"data": str(number)})

        await asyncio.gather(write(one), write(two))
        orders = []
        for raw in (one, two):
            frames = [await raw.action(MESSAGE) for _ in range(80)]
            orders.append([frame["channelSerial"] for frame in frames])
            assert {(await raw.answer())["action"] for _ in range(40)} == {ACK}
        assert orders[0] == orders[1] == sorted(orders[0])


@BOTH
async def test_a_frame_that_is_too_large_is_refused_by_name(url: str, unique: Names, fmt: Format) -> None:
    channel = unique("plain")
    async with client(url, fmt) as raw:
        details = (await raw.next())["connectionDetails"]
        await raw.submit(channel, {"data": "x" * details["maxFrameSize"]})
        refused = await raw.action(ERROR)
        assert (refused["error"]["code"], refused["error"]["statusCode"]) == (40009, 400)
        assert "channel" not in refused
        await raw.closed()


async def test_clients_are_pinged_and_those_who_do_not_answer_are_dropped(url: str) -> None:
    silent = asyncio.create_task(silent_client(url))
    address = f"{url.replace('http', 'ws')}/?key=app.key:secret&heartbeats=false"
    async with asyncio.timeout(10), connect(address, ping_interval=None) as websocket:
        await (await websocket.ping())
        answer, _, frames = (await silent).partition(b"\r\n\r\n")
        assert b"101" in answer.splitlines()[0]
        assert b"\x89\x00" in frames
        assert frames.endswith(Frame(Opcode.CLOSE, Close(1011, "no pong").serialize()).serialize(mask=False))
        # This one, as old, answers by itself.
        await (await websocket.ping())
        await websocket.close(1001, "going away")
        assert websocket.close_code == 1001


async def silent_client(url: str) -> bytes:
    """Connect, say nothing more; all that was sent until the gateway closed the socket."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    lines = [
        "GET /?key=app.key:secret HTTP/1.1",
        f"Host: {parts.netloc}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    received = await reader.read()
    writer.close()
    return received
