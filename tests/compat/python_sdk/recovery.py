"""Dropped sockets: resume, replay, publishes that were on their way, another gateway."""

from __future__ import annotations

import asyncio
from typing import Any

from ably.types.message import Message

from tests.compat.python_sdk.harness import Stage, case, connected, cut, heard, unique, until


async def _count(messages: list[Any], count: int) -> None:
    await until(f"{count} messages", lambda: len(messages) == count)


@case("recovery: a dropped socket resumes and misses nothing")
async def _(stage: Stage) -> None:
    name = unique()
    reader = await connected(stage.realtime("ann"))
    channel = reader.channels.get(name)
    messages = await heard(channel)
    writer = stage.realtime("bob", gateway=1).channels.get(name)
    await writer.publish("n", "0")
    await until("the first", lambda: len(messages) == 1)
    connection = reader.connection.connection_manager.connection_id
    for number in range(1, 4):
        await cut(reader)
        await writer.publish("n", str(number))
        await _count(messages, number + 1)
        await connected(reader)
    assert [message.data for message in messages] == ["0", "1", "2", "3"]
    assert reader.connection.connection_manager.connection_id == connection


@case("recovery: publishes on their way are delivered once")
async def _(stage: Stage) -> None:
    name = unique()
    messages = await heard(stage.realtime(gateway=1).channels.get(name))
    client = await connected(stage.realtime("ann"))
    channel = client.channels.get(name)
    await channel.publish("n", "0")
    sending = asyncio.gather(*(channel.publish("n", str(number)) for number in range(1, 11)))
    await asyncio.sleep(0)
    await cut(client)
    await asyncio.wait_for(sending, 8)
    await channel.publish("n", "11")
    await until("the last", lambda: messages and messages[-1].data == "11")
    assert sorted(int(message.data) for message in messages) == list(range(12))


@case("recovery: appends missed while away come as the whole text")
async def _(stage: Stage) -> None:
    name = unique()
    reader = await connected(stage.realtime("ann"))
    messages = await heard(reader.channels.get(name))
    writer = stage.realtime(gateway=1).channels.get(name)
    (serial,) = (await writer.publish("stream", "a")).serials
    await until("the first", lambda: messages)
    await cut(reader)
    await writer.append_message(Message(data="b", serial=serial))
    await until("caught up", lambda: messages[-1].data == "ab")
    await writer.append_message(Message(data="c", serial=serial))
    await until("live again", lambda: messages[-1].data == "c")
