"""Addresses of peers as a dual-stack socket gives them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from gateway.auth.callers import plain_address
from tests.processes import Stack

PROXIED = """
[[keys]]
name = "app.key"
secret = "secret"
[[trusted_proxies]]
addresses = ["127.0.0.0/8"]
header = "x-forwarded-user"
"""


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("::1", "::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("testclient", "testclient"),
        (None, None),
    ],
)
def test_the_mapping_is_undone(given: str | None, read: str | None) -> None:
    assert plain_address(given) == read


async def me(host: str, port: str, **request: Any) -> httpx.Response:
    async with httpx.AsyncClient() as http:
        return await http.get(f"http://{host}:{port}/v1/me", **request)


async def test_an_ipv4_peer_of_a_dual_stack_socket_is_loopback_and_may_be_a_proxy(stack: Stack) -> None:
    dev = await stack.gateway("--host", "::", env={"SELFHOST_TRANSPORT_DEV": "1"})
    port = dev.url.rpartition(":")[2]
    assert (await me("127.0.0.1", port, auth=("dev.local", "development-secret"))).status_code == 200
    proxied = await stack.gateway("--host", "::", config=PROXIED)
    port = proxied.url.rpartition(":")[2]
    user = {"x-forwarded-user": "ann"}
    assert (await me("127.0.0.1", port, headers=user)).json()["clientId"] == "ann"
    assert (await me("[::1]", port, headers=user)).status_code == 401, "not one of the networks"


async def test_a_proxy_on_the_same_machine_is_believed_over_both_families(stack: Stack) -> None:
    dev = await stack.gateway("--host", "::", env={"SELFHOST_TRANSPORT_DEV": "1"})
    port = dev.url.rpartition(":")[2]
    for host in ("127.0.0.1", "[::1]"):
        answer = await me(
            host, port, auth=("dev.local", "development-secret"), headers={"x-forwarded-for": "203.0.113.9"}
        )
        assert answer.status_code == 401, "the development key is for this machine only"
