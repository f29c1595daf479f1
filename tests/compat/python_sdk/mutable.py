"""Append, update, delete, versions: over the websocket and over REST."""

from __future__ import annotations

import asyncio

from ably.types.message import Message, MessageAction
from ably.types.operations import MessageOperation

from tests.compat.python_sdk.harness import Stage, case, heard, refused, unique, until


@case("mutable: append reaches readers chunk by chunk")
async def _(stage: Stage) -> None:
    name = unique()
    messages = await heard(stage.realtime(gateway=1).channels.get(name))
    channel = stage.realtime("ann").channels.get(name)
    (serial,) = (await channel.publish(Message("stream", "Once", extras={"headers": {"n": "1"}}))).serials
    words = [" upon", " a", " time"]
    results = [await channel.append_message(Message(data=word, serial=serial)) for word in words]
    await until("all", lambda: len(messages) == 4)
    appended = messages[1:]
    assert {message.action for message in appended} == {MessageAction.MESSAGE_APPEND}
    assert [message.data for message in appended] == words
    assert {message.name for message in appended} == {"stream"}
    assert {message.serial for message in appended} == {serial}
    assert [message.version.serial for message in appended] == [result.version_serial for result in results]


@case("mutable: pipelined appends keep their order")
async def _(stage: Stage) -> None:
    name = unique()
    channel = stage.realtime("ann").channels.get(name)
    (serial,) = (await channel.publish("stream", "")).serials
    words = [f"{number} " for number in range(30)]
    await asyncio.gather(*(channel.append_message(Message(data=word, serial=serial)) for word in words))
    rest = stage.rest(gateway=1).channels.get(name)
    assert (await rest.get_message(serial)).data == "".join(words)


@case("mutable: who attaches in mid-stream gets the whole text first")
async def _(stage: Stage) -> None:
    name = unique()
    channel = stage.realtime().channels.get(name)
    (serial,) = (await channel.publish("stream", "a")).serials
    await channel.append_message(Message(data="b", serial=serial))
    messages = await heard(stage.realtime(gateway=1).channels.get(name))
    await channel.append_message(Message(data="c", serial=serial))
    await until("the whole", lambda: messages)
    await channel.append_message(Message(data="d", serial=serial))
    await until("two", lambda: len(messages) == 2)
    whole, chunk = messages
    assert (whole.action, whole.name, whole.data) == (MessageAction.MESSAGE_UPDATE, "stream", "abc")
    assert (chunk.action, chunk.data) == (MessageAction.MESSAGE_APPEND, "d")


@case("mutable: update and delete with operation metadata")
async def _(stage: Stage) -> None:
    name = unique()
    messages = await heard(stage.realtime(gateway=1).channels.get(name))
    channel = stage.realtime("ann").channels.get(name)
    (serial,) = (await channel.publish("n", "old")).serials
    why = MessageOperation(description="second thoughts", metadata={"k": "v"})
    updated = await channel.update_message(Message(data="new", serial=serial), operation=why)
    deleted = await channel.delete_message(Message(serial=serial))
    await until("three", lambda: len(messages) == 3)
    _, update, delete = messages
    assert (update.action, update.name, update.data) == (MessageAction.MESSAGE_UPDATE, "n", "new")
    assert (update.version.description, update.version.metadata) == ("second thoughts", {"k": "v"})
    assert update.version.client_id == "ann"
    assert delete.action == MessageAction.MESSAGE_DELETE
    assert [update.version.serial, delete.version.serial] == [updated.version_serial, deleted.version_serial]


@case("mutable: get_message and versions")
async def _(stage: Stage) -> None:
    name = unique()
    # Over plain http the SDK refuses to send a key; the token it gets has a clientId only if it was asked for.
    channel = stage.realtime(
        "ann", use_token_auth=True, default_token_params={"client_id": "ann"}
    ).channels.get(name)
    (serial,) = (await channel.publish("n", "one")).serials
    await channel.update_message(Message(data="two", serial=serial))
    await channel.append_message(Message(data="+", serial=serial))
    await channel.delete_message(Message(serial=serial))
    latest = await channel.get_message(serial)
    assert (latest.serial, latest.data, latest.action) == (serial, "two+", MessageAction.MESSAGE_DELETE)
    versions = (await channel.get_message_versions(serial)).items
    assert [version.action for version in versions] == [
        MessageAction.MESSAGE_CREATE,
        MessageAction.MESSAGE_UPDATE,
        MessageAction.MESSAGE_DELETE,
    ]
    assert [version.data for version in versions[:2]] == ["one", "two"]


@case("mutable: the same operations over REST")
async def _(stage: Stage) -> None:
    name = unique()
    messages = await heard(stage.realtime(gateway=1).channels.get(name))
    channel = stage.rest("ann").channels.get(name)
    (serial,) = (await channel.publish("n", "one")).serials
    appended = await channel.append_message(Message(data="!", serial=serial))
    updated = await channel.update_message(Message(data="two", serial=serial))
    deleted = await channel.delete_message(Message(serial=serial))
    await until("all", lambda: len(messages) == 4)
    assert [message.version.serial for message in messages] == [
        serial,
        appended.version_serial,
        updated.version_serial,
        deleted.version_serial,
    ]
    assert (await channel.get_message(serial)).action == MessageAction.MESSAGE_DELETE


@case("mutable: an unknown message is refused (40400)")
async def _(stage: Stage) -> None:
    channel = stage.realtime().channels.get(unique())
    (serial,) = (await channel.publish("n", "one")).serials
    unknown = serial.replace("0", "1", 3)
    async with refused(40400):
        await channel.append_message(Message(data="x", serial=unknown))
    async with refused(40400):
        await stage.rest().channels.get(channel.name).get_message(unknown)


@case("annotations: published, summarised, taken back, listed")
async def _(stage: Stage) -> None:
    from ably.types.annotation import Annotation
    from ably.types.channelmode import ChannelMode
    from ably.types.channeloptions import ChannelOptions

    name, kind = unique(), "reaction:distinct.v1"
    options = ChannelOptions(
        modes=[
            ChannelMode.SUBSCRIBE,
            ChannelMode.PUBLISH,
            ChannelMode.ANNOTATION_PUBLISH,
            ChannelMode.ANNOTATION_SUBSCRIBE,
        ]
    )
    channel = stage.realtime("ann").channels.get(name, options)
    given: list[Annotation] = []
    await channel.annotations.subscribe(lambda annotation: given.append(annotation))
    messages = await heard(channel)
    (serial,) = (await channel.publish("n", "one")).serials
    await channel.annotations.publish(serial, Annotation(type=kind, name="up", data={"why": "good"}))
    await until("both", lambda: len(given) == 1 and len(messages) == 2)
    assert (given[0].client_id, given[0].message_serial, given[0].data) == ("ann", serial, {"why": "good"})
    assert (messages[1].action, messages[1].serial) == (MessageAction.MESSAGE_SUMMARY, serial)
    rest = stage.rest(gateway=1).channels.get(name)
    listed = await rest.annotations.get(serial)
    assert [(one.client_id, one.name) for one in listed.items] == [("ann", "up")]
    found = await rest.get_message(serial)
    assert found.annotations.summary == {kind: {"up": {"total": 1, "clientIds": ["ann"], "clipped": False}}}
    await channel.annotations.delete(serial, Annotation(type=kind, name="up"))
    await until("the other", lambda: len(given) == 2)
    assert (await rest.get_message(serial)).annotations.summary == {}
    async with refused(40400):
        await channel.annotations.publish(serial.replace("0", "1", 3), Annotation(type=kind, name="up"))
