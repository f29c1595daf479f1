"""Tokens, rights and revocation with the unmodified npm SDKs (AUT-1, 5, 6, 7, 9, 11)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.e2e.node import run_suite
from tests.processes import Stack

KEY = "app.key:a-secret-of-the-tests"
REVOCABLE_KEY = "app.revocable:another-secret"
CONFIG = """
[[keys]]
name = "app.key"
secret = "a-secret-of-the-tests"

[[keys]]
name = "app.revocable"
secret = "another-secret"
revocable_tokens = true

[[namespaces]]
id = "*"
agent = "assistant"

[[namespaces]]
id = "plain"
"""


@pytest.mark.parametrize("wire_format", ["json", "msgpack"])
async def test_npm_sdks(redis_url: str, redis_prefix: str, tmp_path: Path, wire_format: str) -> None:
    stack = Stack(redis_url, redis_prefix, tmp_path)
    try:
        first, second, _ = await asyncio.gather(
            stack.gateway(config=CONFIG), stack.gateway(config=CONFIG), stack.worker(config=CONFIG)
        )
        environment = {
            "KEY": KEY,
            "REVOCABLE_KEY": REVOCABLE_KEY,
            "PORTS": f"{first.port},{second.port}",
            "FORMAT": wire_format,
        }
        await run_suite(stack, "auth.test.mjs", environment)
    finally:
        await stack.close()
