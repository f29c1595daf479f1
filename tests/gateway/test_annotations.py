"""Annotations on the wire: who receives what, rights, repeats, resume (protocol section 14.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from selfhost_transport.wire.codec import Format
from tests.gateway.raw import ACK, KEY, MESSAGE, NACK, Map, RawClient, client, joined

pytestmark = pytest.mark.asyncio(loop_scope="module")
Names = Callable[[str], str]
ANNOTATION = 21
SUBSCRIBE, ANNOTATION_PUBLISH, ANNOTATION_SUBSCRIBE = 1 << 18, 1 << 21, 1 << 22
FLAG = "seen:flag.v1"
DEFAULT_MODES = 3080192


async def annotate(raw: RawClient, channel: str, number: int, **annotation: object) -> Map:
    await raw.send(
        {
            "action": ANNOTATION,
            "channel": channel,
            "msgSerial": number,
            "annotations": [{"action": 0, **annotation}],
        }
    )
    return await raw.next(lambda frame: frame["action"] in (ACK, NACK) and frame["msgSerial"] == number)


@pytest.mark.parametrize("fmt", [Format.JSON, Format.MSGPACK])
async def test_summaries_go_to_all_and_annotations_to_those_who_asked(
    url: str, unique: Names, fmt: Format
) -> None:
    channel = unique("plain")
    async with client(url, fmt, clientId="alice") as alice, client(url, fmt) as listener:
        attached = await joined(alice, channel)
        assert attached["flags"] & DEFAULT_MODES == DEFAULT_MODES
        await joined(listener, channel, flags=SUBSCRIBE | ANNOTATION_SUBSCRIBE)
        serial = (await alice.publish(channel, {"name": "n", "data": "a"}))["res"][0]["serials"][0]
        ack = await annotate(
            alice, channel, 1, messageSerial=serial, type=FLAG, data=b"\x01" if fmt is Format.MSGPACK else "x"
        )
        given = ack["res"][0]["serials"][0]
        assert serial < given
        await alice.message()
        summary = await alice.message()
        shown = {"summary": {FLAG: {"total": 1, "clientIds": ["alice"], "clipped": False}}}
        assert (summary["action"], summary["serial"], summary["annotations"]) == (4, serial, shown)
        assert "data" not in summary and "id" not in summary
        assert summary["name"] == "n"
        frame = await listener.action(ANNOTATION)
        (annotation,) = frame["annotations"]
        assert (annotation["serial"], annotation["messageSerial"], annotation["clientId"]) == (
            given,
            serial,
            "alice",
        )
        assert (annotation["action"], annotation["type"]) == (0, FLAG)
        assert given.startswith(frame["channelSerial"])
        # It was sent before the annotation, and alice has not heard of that.
        assert (await listener.message())["serial"] == (await listener.message())["serial"] == serial
        after = await alice.publish(channel, {"name": "n", "data": "b"})
        assert after["action"] == ACK
        assert (await alice.message())["data"] == "b"


async def test_a_repeated_frame_counts_once_and_an_update_keeps_the_summary(url: str, unique: Names) -> None:
    channel = unique("plain")
    async with client(url, clientId="alice") as raw:
        await joined(raw, channel)
        serial = (await raw.publish(channel, {"name": "n", "data": "a"}))["res"][0]["serials"][0]
        first, again = [
            await annotate(raw, channel, 7, messageSerial=serial, type="views:total.v1") for _ in range(2)
        ]
        assert first == again
        await raw.publish(channel, {"action": 1, "serial": serial, "data": "new"})
        updated = await raw.next(
            lambda frame: frame["action"] == MESSAGE and frame["messages"][0]["action"] == 1
        )
        assert updated["messages"][0]["annotations"] == {"summary": {"views:total.v1": {"total": 1}}}


async def test_a_summary_has_the_name_that_its_message_has_by_now(url: str, unique: Names) -> None:
    channel = unique("plain")
    async with client(url, clientId="alice") as raw:
        await joined(raw, channel)
        messages: list[Map] = [
            {"data": "a"},
            {"name": "two\nlines", "data": "b", "extras": {"x": [1.5, None]}},
        ]
        first, second = (await raw.publish(channel, *messages))["res"][0]["serials"]

        async def name_in_summary(number: int, serial: str) -> Any:
            await annotate(raw, channel, number, messageSerial=serial, type="views:total.v1")
            summary = await raw.next(lambda frame: "annotations" in (frame.get("messages") or [{}])[0])
            return summary["messages"][0].get("name")

        assert await name_in_summary(1, first) is None
        assert await name_in_summary(2, second) == "two\nlines"
        await raw.publish(channel, {"action": 5, "serial": first, "data": "c", "name": "appended"})
        assert await name_in_summary(4, first) == "appended"
        await raw.publish(channel, {"action": 1, "serial": second, "name": "updated"})
        await raw.message()
        assert await name_in_summary(6, second) == "updated"


async def test_a_resume_brings_the_summary_that_was_missed(url: str, unique: Names) -> None:
    channel = unique("plain")
    async with client(url, clientId="alice") as writer, client(url) as reader:
        await joined(writer, channel)
        attached = await joined(reader, channel, flags=SUBSCRIBE | ANNOTATION_SUBSCRIBE)
        serial = (await writer.publish(channel, {"name": "n", "data": "a"}))["res"][0]["serials"][0]
        here = (await reader.action(MESSAGE))["channelSerial"]
        assert attached["channelSerial"] < here
        await reader.drop()
        await annotate(writer, channel, 1, messageSerial=serial, type=FLAG)
        async with client(url) as again:
            await joined(again, channel, channelSerial=here, flags=SUBSCRIBE | ANNOTATION_SUBSCRIBE)
            assert (await again.message())["annotations"]["summary"][FLAG]["total"] == 1
            # An append to the message it has not seen on this socket comes whole, summary or not.
            await writer.submit(channel, {"action": 5, "serial": serial, "data": "b"})
            whole = await again.message()
            assert (whole["action"], whole["data"], whole["annotations"]["summary"][FLAG]["total"]) == (
                1,
                "ab",
                1,
            )


@pytest.mark.parametrize(
    ("annotation", "code"),
    [
        ({"type": FLAG}, 40000),
        ({"messageSerial": "…", "type": "no-method"}, 40000),
        ({"messageSerial": "…"}, 40000),
        ({"messageSerial": "…", "type": "r:distinct.v1"}, 40000),
        ({"messageSerial": "…", "type": "r:multiple.v1", "name": "n", "count": 0}, 40000),
        ({"messageSerial": "…", "type": FLAG, "clientId": "bob"}, 40012),
        ({"messageSerial": "01700000000000-000@abcdefghij:000", "type": FLAG}, 40400),
        ({"messageSerial": "nonsense", "type": FLAG}, 40400),
    ],
)
async def test_refusals(url: str, unique: Names, annotation: Map, code: int) -> None:
    channel = unique("plain")
    async with client(url, clientId="alice") as raw:
        await joined(raw, channel)
        serial = (await raw.publish(channel, {"name": "n", "data": "a"}))["res"][0]["serials"][0]
        if annotation.get("messageSerial") == "…":
            annotation = {**annotation, "messageSerial": serial}
        nack = await annotate(raw, channel, 1, **annotation)
        assert (nack["action"], nack["error"]["code"]) == (NACK, code)


async def test_rights_and_modes(url: str, unique: Names) -> None:
    channel = unique("plain")
    async with client(url) as raw, client(url, key="app.reader:reader") as reader:
        await joined(raw, channel, flags=SUBSCRIBE)
        serial = (await raw.publish(unique("plain"), {"name": "n", "data": "a"}))["res"][0]["serials"][0]
        refused = await annotate(raw, channel, 1, messageSerial=serial, type="views:total.v1")
        assert refused["error"]["code"] == 40160
        attached = await joined(reader, channel, flags=SUBSCRIBE | ANNOTATION_PUBLISH | ANNOTATION_SUBSCRIBE)
        assert not attached["flags"] & (ANNOTATION_PUBLISH | ANNOTATION_SUBSCRIBE)
        elsewhere = await annotate(reader, unique("plain"), 0, messageSerial=serial, type="views:total.v1")
        assert elsewhere["error"]["code"] == 40160
        anonymous = await annotate(raw, unique("plain"), 2, messageSerial=serial, type=FLAG)
        assert anonymous["error"]["code"] == 40012


async def test_by_plain_requests(url: str, unique: Names) -> None:
    channel = unique("plain")
    name, _, secret = KEY.partition(":")
    async with httpx.AsyncClient(base_url=url, auth=(name, secret)) as http:
        serial = (await http.post(f"/channels/{channel}/messages", json={"data": "a"})).json()["serials"][0]
        path = f"/channels/{channel}/messages/{serial}/annotations"
        for client_id in ("alice", "bob", "carol"):
            added = await http.post(path, json=[{"type": FLAG, "action": 0, "clientId": client_id}])
            assert added.status_code == 201
        first = await http.get(f"{path}?limit=2")
        assert [one["clientId"] for one in first.json()] == ["alice", "bob"]
        url_of_next = first.links["next"]["url"]
        assert url_of_next.startswith("./annotations?")
        second = await http.get(f"{path}?{url_of_next.partition('?')[2]}")
        assert [one["clientId"] for one in second.json()] == ["carol"]
        assert "next" not in second.links
        message = (await http.get(f"/channels/{channel}/messages/{serial}")).json()
        assert message["annotations"]["summary"][FLAG]["total"] == 3
        assert (
            await http.get(f"/channels/{channel}/messages/01700000000000-000%40abcdefghij:000/annotations")
        ).json() == []
