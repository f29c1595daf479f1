"""Tokens on a live connection: in-band renewal, expiry (protocol section 4.7)."""

from __future__ import annotations

import pytest

from gateway.auth.authenticator import now_ms
from selfhost_transport.wire.capability import Capability
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.jwt import TokenClaims, issue_token
from tests.gateway.raw import ATTACHED, CONNECTED, DISCONNECTED, ERROR, KEY, NACK, client

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAME, SECRET = KEY.split(":")
AUTH = 17


def token(life_ms: int, capability: str = '{"*":["*"]}', client_id: str = "eve") -> str:
    now = now_ms()
    rights = Capability.parse(capability)
    return issue_token(TokenClaims(NAME, now, now + life_ms, rights, client_id), SECRET)


async def test_an_expired_token_ends_the_connection_so_that_the_client_renews(url: str) -> None:
    async with client(url, Format.JSON, key="", access_token=token(700)) as raw:
        assert (await raw.next())["action"] == CONNECTED
        frame = await raw.next()
        assert (frame["action"], frame["error"]["code"]) == (DISCONNECTED, 40142)
        await raw.closed()


async def test_a_token_is_asked_for_before_expiry_and_a_new_one_keeps_the_connection(url: str) -> None:
    async with client(url, Format.JSON, key="", access_token=token(7000)) as raw:
        connected = await raw.next()
        assert (await raw.next())["action"] == AUTH
        await raw.send({"action": AUTH, "auth": {"accessToken": token(60_000)}})
        renewed = await raw.action(CONNECTED)
        assert renewed["connectionId"] == connected["connectionId"]


async def test_new_rights_count_at_once(url: str) -> None:
    async with client(url, Format.JSON, key="", access_token=token(60_000)) as raw:
        await raw.next()
        for channel in ("plain:kept", "plain:lost"):
            assert (await raw.attach(channel))["action"] == ATTACHED
        narrower = token(60_000, '{"plain:kept":["subscribe"]}')
        await raw.send({"action": AUTH, "auth": {"accessToken": narrower}})
        lost = await raw.next(lambda frame: frame["action"] == ERROR)
        assert (lost["channel"], lost["error"]["code"]) == ("plain:lost", 40160)
        assert (await raw.action(CONNECTED))["connectionDetails"]["clientId"] == "eve"
        refused = await raw.publish("plain:kept", {"data": "x"})
        assert (refused["action"], refused["error"]["code"]) == (NACK, 40160)


@pytest.mark.parametrize(("bad", "code"), [("a.b.c", 40101), ("", 40101)])
async def test_a_refused_token_ends_the_connection_for_good(url: str, bad: str, code: int) -> None:
    async with client(url, Format.JSON, key="", access_token=token(60_000)) as raw:
        await raw.next()
        await raw.send({"action": AUTH, "auth": {"accessToken": bad}})
        frame = await raw.next(lambda frame: frame["action"] == ERROR)
        assert ("channel" in frame, frame["error"]["code"]) == (False, code)
        await raw.closed()


async def test_a_token_of_another_client_ends_the_connection(url: str) -> None:
    async with client(url, Format.JSON, key="", access_token=token(60_000)) as raw:
        await raw.next()
        await raw.send({"action": AUTH, "auth": {"accessToken": token(60_000, client_id="mallory")}})
        assert (await raw.action(ERROR))["error"]["code"] in (40101, 40102)
