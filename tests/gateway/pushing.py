"""A gateway with web push, and what its clients do to subscribe and to send."""

from __future__ import annotations

import httpx

from selfhost_transport.wire import vapid
from tests.processes import Proc
from tests.push_service import Browser

PRIVATE_KEY = "rqgWthgpLm550zkAuYdFNyVMiaz6yAGmOPh9NuH4Pks"
PUBLIC_KEY = vapid.public_key_of(PRIVATE_KEY)
CONFIG = f"""
[log]
level = "debug"

[push]
private_key = "{PRIVATE_KEY}"
subject = "mailto:ops@example.com"
services = ["SERVICE"]
wait_ms = 300
max_attempts = 2
timeout_ms = 1000

[[keys]]
name = "app.key"
secret = "a-long-secret"
revocable_tokens = true

[[namespaces]]
id = "chat"
agent = "assistant"
"""
AGENT = "tests.observing.traced_agent:worker"


def client(gateway: Proc) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=gateway.url, auth=("app.key", "a-long-secret"), timeout=10)


async def subscribe(http: httpx.AsyncClient, browser: Browser, client_id: str = "ann") -> str:
    answer = await http.put("/v1/push/subscriptions", json={**browser.subscription, "clientId": client_id})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def send(
    http: httpx.AsyncClient, session: str, text: str = "script: tokens=2 rate=0", by: str = "ann"
) -> str:
    sent = await http.post(f"/v1/sessions/{session}/turns", json={"text": text, "clientId": by})
    return str(sent.json()["turnId"])
