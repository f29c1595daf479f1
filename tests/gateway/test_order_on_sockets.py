"""Frames that a client sends without waiting take effect in the order in which they were sent."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from selfhost_transport.wire.codec import Format
from tests.gateway.raw import (
    ACK,
    ATTACHED,
    CONNECTED,
    DETACHED,
    MESSAGE,
    NACK,
    Map,
    RawClient,
    client,
    message,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
Names = Callable[[str], str]
PRESENCE, ANNOTATION, ATTACH, DETACH = 14, 21, 10, 12
ENTER, LEAVE = 2, 3
ROUNDS = 20


async def until_answered(raw: RawClient, number: int) -> list[Map]:
    """All frames up to the answer to a frame, heartbeats left out."""
    frames: list[Map] = []
    while not frames or frames[-1].get("msgSerial") != number:
        frame = await raw.next()
        frames += [frame] if frame["action"] else []
    return frames


def presence(channel: str, number: int, action: int) -> Map:
    return {"action": PRESENCE, "channel": channel, "msgSerial": number, "presence": [{"action": action}]}


async def test_attach_then_publish_is_heard_and_publish_then_attach_is_not(url: str, unique: Names) -> None:
    async with client(url, clientId="a") as raw, client(url, clientId="b") as other:
        assert (await raw.next())["action"] == CONNECTED
        for number in range(0, 2 * ROUNDS, 2):
            channel = unique("plain")
            # The gateway follows the channel already.
            await other.attach(channel)
            await raw.send(message(channel, number, "before"))
            await raw.send({"action": ATTACH, "channel": channel})
            await raw.send(message(channel, number + 1, "after"))
            assert (await raw.message())["data"] == "after"


async def test_everything_of_a_channel_is_in_order_and_so_are_the_answers(url: str, unique: Names) -> None:
    async with client(url, clientId="a") as raw, client(url, Format.MSGPACK, clientId="b") as other:
        assert (await raw.next())["action"] == CONNECTED
        channel, elsewhere = unique("plain"), unique("plain")
        await other.attach(channel)
        await raw.send({"action": ATTACH, "channel": channel})
        await raw.send(presence(channel, 0, ENTER))
        await raw.send(message(channel, 1, "one"))
        await raw.send(message(elsewhere, 2, "elsewhere"))
        await raw.send({**message(channel, 3, "refused"), "params": {"_forceNack": "true"}})
        await raw.send(presence(channel, 4, LEAVE))
        await raw.send(message(channel, 5, "two"))
        await raw.send({"action": DETACH, "channel": channel})
        await raw.send({"action": ATTACH, "channel": channel})
        await raw.send(message(channel, 6, "three"))
        answers = await until_answered(raw, 6)
        assert [
            (frame["action"], frame["msgSerial"]) for frame in answers if frame["action"] in (ACK, NACK)
        ] == [(NACK if number == 3 else ACK, number) for number in range(7)]
        order = [frame["action"] for frame in answers if frame["action"] in (ATTACHED, DETACHED)]
        assert order == [ATTACHED, DETACHED, ATTACHED]
        heard: list[object] = []
        while heard[-1:] != ["three"]:
            frame = await other.action(MESSAGE, PRESENCE)
            heard += [one.get("data", one["action"]) for one in frame.get("messages") or frame["presence"]]
        assert heard == [ENTER, "one", LEAVE, "two", "three"]


async def test_close_right_after_publishing_on_a_fresh_channel_loses_nothing(url: str, unique: Names) -> None:
    channel = unique("plain")
    async with client(url, clientId="b") as other:
        assert (await other.attach(channel))["action"] == ATTACHED
        async with client(url, clientId="a") as raw:
            await raw.send({"action": ATTACH, "channel": channel})
            await raw.send(message(channel, 0, "last"))
            await raw.send({"action": 7})
            assert (await other.message())["data"] == "last"
