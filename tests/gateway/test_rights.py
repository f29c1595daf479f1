"""What callers may do: patterns and operations, turn rights, tenants, identities (AUT-3, 4, 6, 8, 9, 13, 14; DEV-5, DEV-9)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.gateway.raw import ACK, ATTACHED, CONNECTED, DISCONNECTED, ERROR, MESSAGE, NACK, RawClient, client
from tests.gateway.tokens import token

pytestmark = pytest.mark.asyncio(loop_scope="module")
Names = Callable[[str], str]
Map = dict[str, Any]


def user_message(message_id: str) -> Map:
    headers = {"event-id": f"e-{message_id}", "codec-message-id": message_id, "role": "user"}
    codec = {"kind": "user-message", "type": "text"}
    return {"name": "ai-input", "data": "hi", "extras": {"ai": {"transport": headers, "codec": codec}}}


def cancel(**headers: str) -> Map:
    return {
        "name": "ai-cancel",
        "extras": {"ai": {"transport": {key.replace("_", "-"): value for key, value in headers.items()}}},
    }


def having(url: str, rights: str, client_id: str | None = "ann") -> Any:
    """A connection with a token of these rights."""
    return client(url, key="", access_token=token(rights=rights, client_id=client_id))


MATRIX = [
    ('{"*":["*"]}', "a:b", "publish", True),
    ('{"*":["subscribe"]}', "a:b", "publish", False),
    ('{"a:*":["publish"]}', "a:b:c", "publish", True),
    ('{"a:*":["publish"]}', "a", "publish", True),
    ('{"a:*":["publish"]}', "ab:c", "publish", False),
    ('{"a:*":["publish"]}', "A:b", "publish", False),
    ('{"a*":["publish"]}', "ab", "publish", False),
    ('{"a*":["publish"]}', "a*", "publish", True),
    ('{"a:*:c":["publish"]}', "a:b:c", "publish", True),
    ('{"a:*:c":["publish"]}', "a:b:d", "publish", False),
    ('{"a:b":["subscribe"],"a:*":["publish"]}', "a:b", "publish", True),
    ('{"a:b":["history"]}', "a:b", "history", True),
]


@pytest.mark.parametrize(("rights", "channel", "operation", "allowed"), MATRIX)
async def test_aut_3_patterns_by_operations(
    url: str, rights: str, channel: str, operation: str, allowed: bool
) -> None:
    headers = {"Authorization": f"Bearer {token(rights=rights)}"}
    async with httpx.AsyncClient(base_url=url, headers=headers) as http:
        path = f"/channels/{channel.replace('*', '%2A')}/messages"
        answer = await http.get(path) if operation == "history" else await http.post(path, json={"data": "x"})
        assert (answer.status_code < 300) is allowed
        if not allowed:
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, 40160)


async def test_aut_4_rights_are_known_on_connecting_and_a_missing_one_fails_where_it_is_used(
    url: str, unique: Names
) -> None:
    channel = unique("plain")
    rights = json.dumps({channel: ["subscribe", "stats"]})
    async with having(url, rights) as raw:
        connected = await raw.action(CONNECTED)
        assert json.loads(connected["connectionDetails"]["capability"]) == {channel: ["stats", "subscribe"]}
        assert (await raw.attach(channel))["action"] == ATTACHED
        refused = await raw.publish(channel, {"data": "x"})
        assert (refused["action"], refused["error"]["code"]) == (NACK, 40160)
    async with httpx.AsyncClient(
        base_url=url, params={"access_token": token(rights=rights, client_id="ann")}
    ) as http:
        me = (await http.get("/v1/me", params={"session": channel})).json()
        assert (me["clientId"], me["application"], me["operations"]) == ("ann", "app", ["stats", "subscribe"])
        assert me["capability"] == {channel: ["stats", "subscribe"]}
        assert me["expires"] > 0
        assert (await http.get(f"/channels/{channel}/messages")).json()["error"]["code"] == 40160


async def test_me_of_a_key_and_of_no_one(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as http:
        me = (await http.get("/v1/me", auth=("app.key", "secret"))).json()
        assert me == {"clientId": "*", "application": "app", "capability": {"*": ["*"]}}
        assert (await http.get("/v1/me")).json()["error"]["code"] == 40101


async def test_aut_9_starting_and_cancelling_turns_are_rights_of_their_own(url: str, unique: Names) -> None:
    channel = unique("bound")
    async with (
        having(url, '{"*":["subscribe","turn-cancel"]}', "boss") as boss,
        having(url, '{"*":["subscribe","publish","turn-start"]}') as sender,
        having(url, '{"*":["subscribe","publish","turn-none"]}', "guest") as guest,
    ):
        attached = await boss.attach(channel)
        assert not attached["flags"] & 1 << 17, "no PUBLISH mode"
        # Only the one who may start turns can.
        for raw in (boss, guest):
            assert (await raw.publish(channel, user_message("m0")))["error"]["code"] == 40160
        started = await sender.publish(channel, user_message("m1"))
        turn = started["res"][0]["turn"]["id"]
        # Publishing something else needs nothing of turns, but the right to publish.
        assert (await guest.publish(channel, {"name": "note", "data": "x"}))["action"] == ACK
        assert (await boss.publish(channel, {"name": "note", "data": "x"}))["error"]["code"] == 40160
        # Only the one who may cancel them can, whatever their owner.
        for raw in (sender, guest):
            assert (await raw.publish(channel, cancel(run_id=turn)))["error"]["code"] == 40160
        done = await boss.publish(channel, cancel(run_id=turn))
        assert (done["action"], done["res"][0]["cancel"]["matched"]) == (ACK, [turn])


async def test_aut_8_dev_5_an_identity_cannot_be_asserted(url: str, unique: Names) -> None:
    channel = unique("plain")
    async with having(url, '{"*":["*"]}') as raw:
        refused = await raw.publish(channel, {"data": "x", "clientId": "bob"})
        assert (refused["action"], refused["error"]["code"]) == (NACK, 40012)
        await raw.attach(channel)
        assert (await raw.publish(channel, {"data": "x"}))["action"] == ACK
        assert (await raw.message())["clientId"] == "ann"
    async with client(url, key="", access_token=token(client_id="ann"), clientId="bob") as raw:
        assert (await raw.action(ERROR))["error"]["code"] == 40102


async def test_dev_9_strangers_are_refused(url: str, unique: Names) -> None:
    mine, theirs = unique("plain"), unique("plain")
    async with having(url, json.dumps({mine: ["*"]})) as raw:
        assert (await raw.attach(mine))["action"] == ATTACHED
        assert (await raw.attach(theirs))["error"]["code"] == 40160


async def test_aut_14_anonymous_and_wildcard_identities(url: str, unique: Names) -> None:
    channel = unique("bound")
    async with having(url, '{"*":["*"]}', None) as raw:
        assert "clientId" not in (await raw.action(CONNECTED))["connectionDetails"]
        await raw.attach(channel)
        assert (await raw.publish(channel, {"data": "x"}))["action"] == ACK
        assert "clientId" not in await raw.message()
        own = await raw.publish(channel, cancel(cancel_own="true"))
        assert (own["action"], own["error"]["code"]) == (NACK, 40012)
    async with having(url, '{"*":["*"]}', "*") as raw:
        assert (await raw.action(CONNECTED))["connectionDetails"]["clientId"] == "*"
        await raw.attach(channel)
        assert (await raw.publish(channel, {"data": "x", "clientId": "chosen"}))["action"] == ACK
        assert (await raw.message())["clientId"] == "chosen"


async def test_aut_6_a_downgrade_counts_for_the_very_next_frame(url: str, unique: Names) -> None:
    channel, lost = unique("plain"), unique("plain")
    async with having(url, '{"*":["*"]}') as raw:
        before = await raw.action(CONNECTED)
        for name in (channel, lost):
            assert (await raw.attach(name))["action"] == ATTACHED
        narrow = token(rights=json.dumps({channel: ["subscribe"]}), client_id="ann")
        await raw.send({"action": 17, "auth": {"accessToken": narrow}})
        await raw.submit(channel, {"data": "x"})
        assert (await raw.answer())["error"]["code"] in (40160, 40165)
        failed = await raw.action(ERROR)
        assert (failed["channel"], failed["error"]["code"]) == (lost, 40160)
        after = await raw.action(CONNECTED)
        assert after["connectionId"] == before["connectionId"]
        # What is still permitted goes on without a new attach.
        async with client(url) as other:
            assert (await other.publish(channel, {"data": "still here"}))["action"] == ACK
        assert (await raw.message())["data"] == "still here"


async def test_a_token_of_seconds_is_renewed_before_it_ends_where_a_session_is_watched(
    url: str, unique: Names
) -> None:
    async with client(url, key="", access_token=token(client_id="ann", life_ms=3000)) as raw:
        await raw.attach(unique("plain"))
        await raw.action(17)
        await raw.send({"action": 17, "auth": {"accessToken": token(client_id="ann", life_ms=3000)}})
        await raw.action(CONNECTED)
        # The second CONNECTED is the answer to the new token.
        await raw.action(CONNECTED)
    async with client(url, key="", access_token=token(client_id="ann", life_ms=1500)) as idle:
        await idle.action(CONNECTED)
        ended = await idle.action(DISCONNECTED, 17)
        assert (ended["action"], ended["error"]["code"]) == (DISCONNECTED, 40142)


async def test_aut_13_a_tenants_token_reads_no_byte_of_another(url: str, unique: Names) -> None:
    secret = "the secret of tenant b"
    theirs = unique("plain:b")
    spellings = [
        theirs,
        f"[?rewind=10]{theirs}",
        theirs.replace("b", "B"),
        "plain:b",
        "*",
        f"[*]{theirs}",
    ]
    rights = '{"plain:a:*":["*"],"plain:a":["*"]}'
    async with client(url) as owner, having(url, rights) as stranger:
        await owner.publish(theirs, {"data": secret})
        for name in spellings:
            answer = await stranger.attach(name, params={"rewind": "10"})
            assert answer["action"] == ERROR, name
        await owner.publish(theirs, {"data": secret})
        assert not await frames_within(stranger, 0.3)
    headers = {"Authorization": f"Bearer {token(rights=rights)}"}
    async with httpx.AsyncClient(base_url=url, headers=headers) as http:
        for path in (
            f"/channels/{theirs}/messages", f"/channels/{theirs}/history", f"/channels/{theirs}",
            f"/channels/{theirs}/presence", f"/v1/sessions/{theirs}/messages", f"/v1/sessions/{theirs}/events",
            f"/v1/sessions/{theirs}/turns", f"/channels/plain:a:x%2F..%2F{theirs}/messages",
        ):  # fmt: skip
            answer = await http.get(path)
            assert secret not in answer.text, path
            assert answer.status_code == 401 or answer.json() == [], path


async def frames_within(raw: RawClient, seconds: float) -> list[Map]:
    """Messages that arrive in that time."""
    try:
        async with asyncio.timeout(seconds):
            return [await raw.action(MESSAGE)]
    except TimeoutError:
        return []


def thought(data: str) -> Map:
    return {
        "name": "ai-output",
        "data": data,
        "extras": {"ai": {"transport": {}, "codec": {"kind": "reasoning"}}},
    }


async def test_cot_4_a_new_token_gives_and_takes_what_is_withheld(url: str, unique: Names) -> None:
    channel = unique("veiled")
    some = '{"*":["subscribe","history"]}'
    more = '{"*":["subscribe","history","reasoning-subscribe"]}'

    async def renew(raw: RawClient, rights: str) -> None:
        await raw.send({"action": 17, "auth": {"accessToken": token(rights=rights, client_id="ann")}})
        await raw.action(CONNECTED)

    async with having(url, some) as reader, client(url) as writer:
        await reader.attach(channel)
        serials = [(await writer.publish(channel, thought("1")))["res"][0]["serials"][0]]
        await renew(reader, more)
        await writer.publish(channel, {"action": 5, "serial": serials[0], "data": "2"})
        assert (await reader.message())["data"] == "12"
        await renew(reader, some)
        await writer.publish(channel, {"action": 5, "serial": serials[0], "data": "3"})
        await writer.publish(channel, {"data": "text"})
        assert (await reader.message())["data"] == "text"
        await renew(reader, more)
        await writer.publish(channel, {"action": 5, "serial": serials[0], "data": "4"})
        assert (await reader.message())["data"] == "1234"


async def test_cot_4_what_is_withheld_cannot_be_unveiled_by_changing_it(url: str, unique: Names) -> None:
    channel = unique("veiled")
    rights = '{"*":["subscribe","publish","history","message-update-any","message-delete-any"]}'
    async with having(url, rights, "eve") as eve, client(url, clientId="agent") as agent:
        await eve.attach(channel)
        serial = (await agent.publish(channel, thought("secret")))["res"][0]["serials"][0]
        for action in (1, 2, 5):
            refused = await eve.publish(
                channel, {"action": action, "serial": serial, "extras": {}, "data": ""}
            )
            assert (refused["action"], refused["error"]["code"]) == (NACK, 40160)
        await eve.publish(channel, {"data": "mine"})
        seen = await eve.message()
        changed = await eve.publish(channel, {"action": 1, "serial": seen["serial"], "data": "still mine"})
        assert (seen["data"], changed["action"]) == ("mine", ACK)
