"""Devices that join while retention moves through a conversation: the unmodified JS SDK, HTTP and Python (HIS-6)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx

from selfhost_transport import ClientTransport
from tests.e2e.node import run_suite
from tests.processes import Proc, Stack, wait_until

KEY_NAME, KEY_SECRET = "app.key", "a-secret-of-the-tests"
KEY = f"{KEY_NAME}:{KEY_SECRET}"
CHANNEL = "short:talk"
QUESTION = "script: reasoning=3 tokens=8 rate=20 tool=server"
ANSWER = "".join(f"{number} " for number in range(8))
JOINS = 25
CONFIG = f"""
[[keys]]
name = "{KEY_NAME}"
secret = "{KEY_SECRET}"
capability = {{ "*" = ["*"] }}

[[namespaces]]
id = "short"
agent = "assistant"
retention = "5s"
"""


def assert_whole(shown: Sequence[tuple[str, str]]) -> None:
    """Roles and texts of what is shown; the last turn may be going on."""
    assert len(shown) > 1, "the conversation is empty"
    roles = [role for role, _ in shown]
    assert roles == [("user", "assistant")[n % 2] for n in range(len(shown))], (len(roles), roles)
    assert {text for role, text in shown[:-2] if role == "assistant"} <= {ANSWER}


def ws(gateway: Proc) -> str:
    return gateway.url.replace("http", "ws", 1)


async def keep_talking(gateway: Proc, stop: asyncio.Event) -> int:
    """Turn after turn, until asked to stop. Returns how many there were."""
    count = 0
    async with ClientTransport.connect(
        gateway.url.replace("http", "ws", 1), key=KEY, client_id="alice", channel=CHANNEL
    ) as client:
        while not stop.is_set():
            turn = await client.view.send(QUESTION)
            await turn.ended
            count += 1
    return count


async def join_with_python(gateway: Proc, number: int) -> None:
    connecting = ClientTransport.connect(
        gateway.url.replace("http", "ws", 1), key=KEY, client_id=f"p{number}", channel=CHANNEL
    )
    async with connecting as late:
        assert_whole([(item.message.role, item.message.text) for item in late.view.messages])


async def join_with_http(gateway: Proc) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, auth=(KEY_NAME, KEY_SECRET)) as http:
        reply = await http.get(f"/v1/sessions/{CHANNEL}/messages", params={"limit": 50})
        messages = reply.raise_for_status().json()["messages"]
        assert_whole([(one["message"]["role"], text_of(one["message"]["parts"])) for one in messages])


def text_of(parts: Sequence[dict[str, str]]) -> str:
    return "".join(part["text"] for part in parts if part["type"] == "text")


async def test_who_joins_at_a_boundary_of_retention_sees_whole_turns(stack: Stack) -> None:
    gateways = [await stack.gateway(config=CONFIG) for _ in range(2)]
    await stack.worker(config=CONFIG)
    stop = asyncio.Event()
    talking = asyncio.create_task(keep_talking(gateways[0], stop))
    try:
        async with httpx.AsyncClient(base_url=gateways[0].url, auth=(KEY_NAME, KEY_SECRET)) as http:

            async def is_being_taken() -> bool:
                reply = await http.get(f"/v1/sessions/{CHANNEL}/messages")
                return reply.status_code == 200 and bool(reply.json().get("truncatedAt"))

            await wait_until(is_being_taken, 60.0, "retention to take the first turn")
        ports = ",".join(str(gateway.port) for gateway in gateways)
        environment = {"KEY": KEY, "PORTS": ports, "CHANNEL": CHANNEL, "ANSWER": ANSWER}
        others = asyncio.create_task(run_suite(stack, "retention.test.mjs", environment))
        for number in range(JOINS):
            await join_with_python(gateways[number % 2], number)
            await join_with_http(gateways[number % 2])
        await others
    finally:
        stop.set()
        count = await talking
    assert count > 10
