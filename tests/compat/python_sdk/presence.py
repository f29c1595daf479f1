"""Presence over the websocket and over REST."""

from __future__ import annotations

from typing import Any

from tests.compat.python_sdk.harness import Stage, case, connected, cut, unique, until


async def _watch(channel: Any) -> list[tuple[str, str, Any]]:
    events: list[tuple[str, str, Any]] = []
    await channel.presence.subscribe(
        lambda member: events.append(
            (str(member.action).rpartition(".")[2].lower(), member.client_id, member.data)
        )
    )
    return events


async def _members(channel: Any) -> dict[str, Any]:
    return {member.client_id: member.data for member in await channel.presence.get()}


@case("presence: enter, update, leave")
async def _(stage: Stage) -> None:
    name = unique()
    watching = stage.realtime("bob", gateway=1).channels.get(name)
    events = await _watch(watching)
    member = stage.realtime("ann").channels.get(name)
    await member.presence.enter("hi")
    await member.presence.update({"typing": True})
    await until("two events", lambda: len(events) == 2)
    assert await _members(watching) == {"ann": {"typing": True}}
    await member.presence.leave()
    await until("three events", lambda: len(events) == 3)
    assert [(client, data) for _, client, data in events[:2]] == [("ann", "hi"), ("ann", {"typing": True})]
    assert await _members(watching) == {}


@case("presence: members are sent on attach")
async def _(stage: Stage) -> None:
    name = unique()
    client = stage.realtime(client_id="*")
    channel = client.channels.get(name)
    for number in range(5):
        await channel.presence.enter_client(f"member-{number}", str(number))
    late = stage.realtime("late", gateway=1).channels.get(name)
    await late.attach()
    assert await _members(late) == {f"member-{number}": str(number) for number in range(5)}


@case("presence: members survive a dropped connection of theirs and of the reader")
async def _(stage: Stage) -> None:
    name = unique()
    watcher, member = stage.realtime("bob", gateway=1), stage.realtime("ann")
    channel = watcher.channels.get(name)
    await member.channels.get(name).presence.enter("here")
    await channel.attach()
    for client in (watcher, member):
        await cut(client)
        await connected(client)
    await until("attached", lambda: channel.state == "attached")
    assert await _members(channel) == {"ann": "here"}
    assert await _members(member.channels.get(name)) == {"ann": "here"}


@case("presence: over REST, with history")
async def _(stage: Stage) -> None:
    name = unique()
    channel = stage.realtime("ann").channels.get(name)
    await channel.presence.enter("a")
    await channel.presence.update("b")
    rest = stage.rest(gateway=1).channels.get(name)
    assert [(member.client_id, member.data) for member in (await rest.presence.get()).items] == [("ann", "b")]
    past = (await rest.presence.history(direction="forwards")).items
    assert [member.data for member in past] == ["a", "b"]
