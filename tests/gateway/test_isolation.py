"""A key for some sessions attacks another one whose name ends with theirs: nothing of it is read or changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio

from selfhost_transport.store.keys import DEFAULT_BUCKETS, bucket_of
from tests.gateway.raw import Map
from tests.processes import Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")
CONFIG = """
[[keys]]
name = "app.victim"
secret = "v"
capability = { "umbrella:*" = ["*"] }

[[keys]]
name = "app.attacker"
secret = "a"
capability = { "lobby:*" = ["*"] }

[[namespaces]]
id = "*"
agent = "assistant"
"""
_numbers = count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(site: Stack) -> str:
    return (await site.gateway(config=CONFIG)).url


@pytest_asyncio.fixture(loop_scope="module")
async def callers(gateway: str) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """The victim's client, and the attacker's."""
    async with (
        httpx.AsyncClient(base_url=gateway, auth=("app.victim", "v")) as victim,
        httpx.AsyncClient(base_url=gateway, auth=("app.attacker", "a")) as attacker,
    ):
        yield victim, attacker


@pytest.fixture
def names() -> tuple[str, str]:
    """The victim's session and the attacker's, in one bucket."""
    buckets = DEFAULT_BUCKETS
    while True:
        own = f"lobby:{next(_numbers)}"
        if bucket_of(own, buckets) == bucket_of(f"umbrella:{own}", buckets):
            return f"umbrella:{own}", own


def send(http: httpx.AsyncClient, session: str, **body: Any) -> Any:
    return http.post(f"/v1/sessions/{session}/turns", json={"clientId": "x", **body})


async def test_another_sessions_turn_is_not_found(
    callers: tuple[httpx.AsyncClient, httpx.AsyncClient], names: tuple[str, str]
) -> None:
    (victim, attacker), (theirs, own) = callers, names
    turn = (await send(victim, theirs, text="hello")).json()["turnId"]
    await send(attacker, own, text="mine")
    named = quote(f"{turn}:umbrella", safe="")
    for answer in (
        await attacker.get(f"/v1/sessions/{own}/turns/{named}"),
        await attacker.delete(f"/v1/sessions/{own}/queue/{named}"),
        await attacker.post(f"/v1/sessions/{own}/queue/{named}/promote"),
        await attacker.post(f"/v1/sessions/{own}/turns/{named}/inputs", json={"text": "x", "clientId": "x"}),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, 40400), answer.request.url
    # A filter that names nothing matches nothing.
    cancelled = await attacker.post(f"/v1/sessions/{own}/cancel", json={"turnId": f"{turn}:umbrella"})
    assert (cancelled.json()["matched"], cancelled.json()["alreadyEnded"]) == ([], [])
    assert (await victim.get(f"/v1/sessions/{theirs}/turns/{turn}")).json()["status"] == "pending"


async def test_a_publish_cannot_be_suppressed_from_another_session(
    callers: tuple[httpx.AsyncClient, httpx.AsyncClient], names: tuple[str, str]
) -> None:
    (victim, attacker), (theirs, own) = callers, names
    for name in ("invoice-17:umbrella", "client:invoice-17:umbrella", "client%3Ainvoice-17:umbrella"):
        await attacker.post(f"/channels/{own}/messages", json={"id": name, "data": "x"})
    await victim.post(f"/channels/{theirs}/messages", json={"id": "invoice-17", "data": "pay"})
    stored: list[Map] = (await victim.get(f"/channels/{theirs}/messages")).json()
    assert [message["data"] for message in stored] == ["pay"]


async def test_a_send_cannot_be_cancelled_before_it_comes_from_another_session(
    callers: tuple[httpx.AsyncClient, httpx.AsyncClient], names: tuple[str, str]
) -> None:
    (victim, attacker), (theirs, own) = callers, names
    for name in ("msg-2:umbrella", "input msg-2:umbrella"):
        await attacker.post(f"/v1/sessions/{own}/cancel", json={"inputId": name})
        await attacker.post(f"/v1/sessions/{own}/cancel", json={"turnId": name})
    sent = (await send(victim, theirs, text="hello", id="msg-2")).json()
    assert sent["status"] == "pending"


async def test_a_clients_id_is_never_taken_for_one_that_the_service_made(
    callers: tuple[httpx.AsyncClient, httpx.AsyncClient], names: tuple[str, str]
) -> None:
    """In one session too: what recognises a repeated steer is not what a client may call its message."""
    victim, (session, _) = callers[0], names
    turn = (await send(victim, session, text="hello")).json()["turnId"]
    for name in (f"steer:{turn}:s1", f"input:{turn}:s1"):
        await victim.post(f"/channels/{session}/messages", json={"id": name, "data": "x"})
    steered = await victim.post(
        f"/v1/sessions/{session}/turns/{turn}/inputs", json={"text": "left", "id": "s1", "clientId": "x"}
    )
    assert (steered.status_code, steered.json().get("repeated", False)) == (202, False), steered.text
