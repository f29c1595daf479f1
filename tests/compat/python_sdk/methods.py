"""Public methods of the package that the other cases do not call."""

from __future__ import annotations

from ably.types.channelsubscription import PushChannelSubscription

from tests.compat.python_sdk.harness import KEY, Stage, case, heard, refused, unique, until

NOT_FOUND = 40400


# `set_options` of an attached channel is left out: in this version it waits for an event that the SDK never emits.
@case("channel: unsubscribed, detached, released")
async def _(stage: Stage) -> None:
    name = unique()
    client = stage.realtime("ann")
    channel = client.channels.get(name, params={"rewind": "1"})
    got = await heard(channel)
    await channel.publish("n", "heard")
    await until("the echo", lambda: got)
    channel.unsubscribe()
    await channel.publish("n", "no one listens")
    await channel.detach()
    client.channels.release(name)
    assert client.channels.get(name) is not channel
    assert [message.data for message in got] == ["heard"]


@case("presence: one connection for several clients")
async def _(stage: Stage) -> None:
    name = unique()
    watching = stage.realtime("eve", gateway=1).channels.get(name)
    reported: list[tuple[str, object]] = []
    await watching.presence.subscribe(lambda member: reported.append((member.client_id, member.data)))
    presence = stage.realtime(client_id="*").channels.get(name).presence
    await presence.enter_client("ann", "1")
    await presence.update_client("ann", "2")
    await presence.enter_client("bob", None)
    await presence.leave_client("ann", "3")
    await until("four events", lambda: len(reported) == 4)
    assert reported == [("ann", "1"), ("ann", "2"), ("bob", None), ("ann", "3")]
    watching.presence.unsubscribe()


@case("auth: request_token, and a token request for another")
async def _(stage: Stage) -> None:
    issuer = stage.rest()
    details = await issuer.auth.request_token({"client_id": "ann", "capability": '{"plain:*":["publish"]}'})
    assert details.client_id == "ann"
    name = unique()
    client = stage.rest(token_details=details)
    await client.channels.get(name).publish("n", "x")
    async with refused(40160):
        await client.channels.get(name).history()
    key_name, key_secret = KEY.split(":")
    request = await issuer.auth.create_token_request(
        {"client_id": "bob"}, key_name=key_name, key_secret=key_secret
    )

    async def callback(params: object) -> object:
        return request

    assert (await stage.rest(auth_callback=callback).auth.authorize()).client_id == "bob"


@case("REST: first, next and last pages")
async def _(stage: Stage) -> None:
    channel = stage.rest().channels.get(unique())
    for number in range(5):
        await channel.publish("n", str(number))
    page = await channel.history(limit=2, direction="forwards")
    seen = [message.data for message in page.items]
    assert page.has_first() and page.has_next() and not page.is_last()
    first = await page.first()
    assert [message.data for message in first.items] == seen
    while page.has_next():
        page = await page.next()
        seen += [message.data for message in page.items]
    assert page.is_last() and seen == ["0", "1", "2", "3", "4"]


@case("every method of push", reason="there is no push service behind the gateway")
async def _(stage: Stage) -> None:
    admin = stage.rest().push.admin
    device = {
        "id": "d",
        "platform": "ios",
        "formFactor": "phone",
        "push": {"recipient": {"transportType": "apns", "deviceToken": "t"}},
    }
    subscription = PushChannelSubscription("c", client_id="x")  # type: ignore[no-untyped-call,unused-ignore]
    for call in (
        lambda: admin.device_registrations.save(device),
        lambda: admin.device_registrations.get("d"),
        lambda: admin.device_registrations.list(),
        lambda: admin.device_registrations.remove("d"),
        lambda: admin.device_registrations.remove_where(clientId="x"),
        lambda: admin.channel_subscriptions.save(subscription),
        lambda: admin.channel_subscriptions.list(channel="c"),
        lambda: admin.channel_subscriptions.list_channels(),
        lambda: admin.channel_subscriptions.remove(subscription),
        lambda: admin.channel_subscriptions.remove_where(channel="c"),
    ):
        async with refused(NOT_FOUND):
            await call()  # type: ignore[no-untyped-call,unused-ignore]
