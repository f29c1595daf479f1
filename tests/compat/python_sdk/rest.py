"""REST: publish, history and its pages, status, time, batches."""

from __future__ import annotations

from ably.types.message import Message

from tests.compat.python_sdk.harness import Stage, case, heard, refused, unique, until


@case("REST: time")
async def _(stage: Stage) -> None:
    assert await stage.rest().time() > 1_500_000_000_000


@case("REST: publish is delivered and kept")
async def _(stage: Stage) -> None:
    name = unique("plain") + " a/b+c%"
    messages = await heard(stage.realtime(gateway=1).channels.get(name))
    channel = stage.rest("ann").channels.get(name)
    sent = ["text", {"a": 1}, bytearray(b"\x00\xff"), [1]]
    results = [await channel.publish("n", data) for data in sent]
    await until("all", lambda: len(messages) == len(sent))
    assert [message.data for message in messages] == sent
    assert {message.client_id for message in messages} == {"ann"}
    history = (await channel.history(direction="forwards")).items
    assert [message.data for message in history] == sent
    assert [message.serial for message in history] == [result.serials[0] for result in results]


@case("REST: an array, and ids that make a retry harmless")
async def _(stage: Stage) -> None:
    channel = stage.rest(idempotent_rest_publishing=True).channels.get(unique())
    batch = [Message("a", "1", id="base:0"), Message("b", "2", id="base:1")]
    first, second = await channel.publish(batch), await channel.publish(batch)
    assert first.serials == second.serials and len(first.serials) == 2
    assert [message.name for message in (await channel.history()).items] == ["b", "a"]


@case("REST: history in pages, both directions")
async def _(stage: Stage) -> None:
    name = unique()
    writer = stage.realtime().channels.get(name)
    for number in range(7):
        await writer.publish("n", str(number))
    channel = stage.rest(gateway=1).channels.get(name)
    for direction in ("forwards", "backwards"):
        page, data, sizes = await channel.history(direction=direction, limit=3), [], []
        while page is not None:
            data += [message.data for message in page.items]
            sizes.append(len(page.items))
            page = await page.next() if page.has_next() else None
        assert sizes == [3, 3, 1]
        expected = [str(number) for number in range(7)]
        assert data == (expected if direction == "forwards" else expected[::-1])


@case("REST: history from a realtime channel")
async def _(stage: Stage) -> None:
    channel = stage.realtime(
        "ann", use_token_auth=True, default_token_params={"client_id": "ann"}
    ).channels.get(unique())
    await channel.attach()
    await channel.publish("n", "one")
    assert [message.data for message in (await channel.history()).items] == ["one"]
    await until("attached again", lambda: channel.state == "attached")


@case("REST: channel status")
async def _(stage: Stage) -> None:
    name = unique()
    await stage.realtime().channels.get(name).attach()
    details = await stage.rest().channels.get(name).status()
    assert details.channel_id == name
    assert details.status.is_active
    assert details.status.occupancy.metrics.subscribers == 1


@case("REST: raw request, and errors with their codes")
async def _(stage: Stage) -> None:
    rest = stage.rest()
    answer = await rest.request("GET", "/time", version="3")
    assert answer.success and answer.status_code == 200
    missing = await rest.request("GET", "/nothing/here", version="3")
    assert (missing.status_code, missing.error_code) == (404, "40400")


@case("REST: batch publish (raw request)")
async def _(stage: Stage) -> None:
    one, two = unique(), unique()
    rest = stage.rest()
    body = [{"channels": [one, two], "messages": [{"name": "n", "data": "x"}]}]
    answer = await rest.request("POST", "/messages", version="3", body=body)
    assert answer.success
    assert answer.items[0]["successCount"] == 2
    for name in (one, two):
        assert [message.data for message in (await rest.channels.get(name).history()).items] == ["x"]


@case("REST: statistics", reason="no statistics are kept: the list is empty; /metrics has the counters")
async def _(stage: Stage) -> None:
    assert (await stage.rest().stats()).items == []


@case("push notifications", reason="there is no push service behind the gateway")
async def _(stage: Stage) -> None:
    async with refused(40400):
        await stage.rest().push.admin.publish({"clientId": "x"}, {"notification": {"title": "t"}})
