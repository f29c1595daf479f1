"""Connecting, channels, publishing and receiving."""

from __future__ import annotations

import asyncio
import json

from ably.types.channelmode import ChannelMode
from ably.types.channeloptions import ChannelOptions
from ably.types.message import Message
from ably.vcdiff.defaultvcdiffdecoder import AblyVCDiffDecoder

from tests.compat.python_sdk.harness import Stage, case, connected, heard, refused, token, unique, until


@case("connection: connect, ping, close")
async def _(stage: Stage) -> None:
    client = await connected(stage.realtime("ann"))
    assert client.connection.connection_details.client_id == "ann"
    assert await client.connection.ping() >= 0
    await client.close()
    assert client.connection.state == "closed"


@case("connection: a wrong key fails for good")
async def _(stage: Stage) -> None:
    client = stage.realtime(key="app.key:wrong")
    await until("failed", lambda: client.connection.state == "failed")
    assert client.connection.error_reason.code == 40101


@case("channel: attach, detach, attach again")
async def _(stage: Stage) -> None:
    channel = (await connected(stage.realtime())).channels.get(unique())
    for _ in range(2):
        await channel.attach()
        assert channel.state == "attached"
        await channel.detach()
        assert channel.state == "detached"


@case("channel: modes are granted as asked")
async def _(stage: Stage) -> None:
    channel = stage.realtime().channels.get(unique(), ChannelOptions(modes=[ChannelMode.SUBSCRIBE]))
    await channel.attach()
    assert channel.modes == [ChannelMode.SUBSCRIBE]


@case("channel: a bad name fails that channel only")
async def _(stage: Stage) -> None:
    client = stage.realtime()
    async with refused(40010):
        await client.channels.get(":bad").attach()
    await client.channels.get(unique()).attach()
    assert client.connection.state == "connected"


@case("channel: rewind")
async def _(stage: Stage) -> None:
    name = unique()
    writer = stage.realtime().channels.get(name)
    for number in range(5):
        await writer.publish("n", str(number))
    messages = await heard(
        stage.realtime(gateway=1).channels.get(name, ChannelOptions(params={"rewind": "3"}))
    )
    await until("three", lambda: len(messages) == 3)
    assert [message.data for message in messages] == ["2", "3", "4"]


@case("publish: every kind of data arrives as it was sent")
async def _(stage: Stage) -> None:
    name = unique()
    messages = await heard(stage.realtime(gateway=1).channels.get(name))
    channel = stage.realtime("ann").channels.get(name)
    sent = ["text", "ünï ✓", {"a": [1, {"b": None}]}, [1, 2], bytearray(b"\x00\x01\xff"), "", None]
    for data in sent:
        await channel.publish("kind", data)
    await until("all", lambda: len(messages) == len(sent))
    assert [message.data for message in messages] == sent


@case("publish: name, clientId, extras, serials, times")
async def _(stage: Stage) -> None:
    name = unique()
    messages = await heard(stage.realtime(gateway=1).channels.get(name))
    publisher = stage.realtime("ann")
    result = await publisher.channels.get(name).publish(
        Message("hello", "x", extras={"headers": {"a": "1"}, "deep": {"er": [1]}})
    )
    (message,) = await until("one", lambda: messages[:])
    assert (message.name, message.client_id, message.extras) == (
        "hello",
        "ann",
        {"headers": {"a": "1"}, "deep": {"er": [1]}},
    )
    assert result.serials == [message.serial] == [message.version.serial]
    assert message.id and message.connection_id and message.timestamp == message.version.timestamp


@case("publish: an array is one delivery, in order")
async def _(stage: Stage) -> None:
    name = unique()
    channel = stage.realtime().channels.get(name)
    messages = await heard(channel)
    result = await channel.publish([Message(f"m{number}", str(number)) for number in range(4)])
    await until("all", lambda: len(messages) == 4)
    assert result.serials == [message.serial for message in messages] == sorted(result.serials)
    assert [message.name for message in messages] == ["m0", "m1", "m2", "m3"]


@case("publish: many at once are answered and delivered in order")
async def _(stage: Stage) -> None:
    name = unique()
    messages = await heard(stage.realtime(gateway=1).channels.get(name))
    channel = (await connected(stage.realtime())).channels.get(name)
    results = await asyncio.gather(*(channel.publish("n", str(number)) for number in range(50)))
    await until("all", lambda: len(messages) == 50)
    assert [message.data for message in messages] == [str(number) for number in range(50)]
    assert [message.serial for message in messages] == [
        serial for result in results for serial in result.serials
    ]


@case("publish: one id is one message")
async def _(stage: Stage) -> None:
    name = unique()
    channel = stage.realtime().channels.get(name)
    messages = await heard(channel)
    first = await channel.publish(Message("a", "1", id="once"))
    second = await channel.publish(Message("a", "1", id="once"))
    await channel.publish("after", "")
    await until("the later one", lambda: messages and messages[-1].name == "after")
    assert first.serials == second.serials
    assert [message.name for message in messages] == ["a", "after"]


@case("publish: echo off")
async def _(stage: Stage) -> None:
    name = unique()
    client = stage.realtime("ann", transport_params={"echo": "false"})
    messages = await heard(client.channels.get(name))
    await client.channels.get(name).publish("mine", "")
    await stage.realtime("bob").channels.get(name).publish("other", "")
    await until("the other's", lambda: messages)
    assert [message.name for message in messages] == ["other"]


@case("publish: refused without the right (40160)")
async def _(stage: Stage) -> None:
    rights = {"x-ably-capability": json.dumps({"plain:*": ["subscribe", "history"]})}
    client = stage.realtime(token=token(**rights))
    channel = client.channels.get(unique())
    await channel.attach()
    async with refused(40160):
        await stage.rest(token=token(**rights)).channels.get(channel.name).publish("a", "b")
    try:
        await channel.publish("a", "b")
    except Exception as error:
        assert getattr(error, "code", None) in (40160, 40165), error
    else:
        raise AssertionError("published without the right")
    assert client.connection.state == "connected"


@case("publish: attach refused where the token has no right (40160)")
async def _(stage: Stage) -> None:
    rights = {"x-ably-capability": json.dumps({"elsewhere:*": ["*"]})}
    async with refused(40160):
        await stage.realtime(token=token(**rights)).channels.get(unique()).attach()


@case("publish: another's clientId is refused (40012)")
async def _(stage: Stage) -> None:
    channel = stage.realtime(token=token(**{"x-ably-clientId": "ann"})).channels.get(unique())
    async with refused(40012):
        await channel.publish(Message("a", "b", client_id="bob"))


@case("publish: too large is refused (40009)")
async def _(stage: Stage) -> None:
    client = await connected(stage.realtime())
    async with refused(40009):
        await client.channels.get(unique()).publish("a", "x" * 70_000)
    rest = stage.rest().channels.get(unique())
    async with refused(40009):
        await rest.publish("a", "x" * 70_000)


@case("deltas: messages come as what changed since the one before")
async def _(stage: Stage) -> None:
    name = unique()
    sizes: list[int] = []

    class Decoder(AblyVCDiffDecoder):  # type: ignore[misc]
        def decode(self, delta: bytes, base: bytes) -> bytes:
            sizes.append(len(delta))
            if len(sizes) == 3:
                raise ValueError("spoilt: the channel attaches again")
            found: bytes = super().decode(delta, base)
            return found

    reader = stage.realtime("bob", vcdiff_decoder=Decoder(), gateway=1)
    channel = reader.channels.get(name, ChannelOptions(params={"delta": "vcdiff"}))
    messages = await heard(channel)
    writer = (await connected(stage.realtime("alice"))).channels.get(name)
    versions = [{"foo": "bar" * 20, "count": count} for count in range(6)]
    for data in versions:
        await writer.publish("n", data)
    await until("all", lambda: len(messages) == 6)
    assert [message.data for message in messages] == versions
    # The first is whole, and so is the one that was sent again.
    assert len(sizes) in (4, 5) and max(sizes) < 40
