"""The operators' console: its interface, its rights, and its page in Chromium."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest

from tests.e2e.node import run_suite
from tests.machine import BROWSERS
from tests.processes import Stack, wait_until

CONFIG = """
[gateway]
console = true

[worker]
lease_ms = 500
max_attempts = 1

[[webhooks]]
name = "backend"
url = "http://127.0.0.1:1/nothing-listens"
secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
max_attempts = 1
events = ["turn.dead_letter", "turn.ended"]

[[keys]]
name = "app.operator"
secret = "operator"

[[keys]]
name = "app.chat"
secret = "chat"
capability = { "*" = ["subscribe", "publish", "history", "presence", "stats"] }

[[namespaces]]
id = "chat"
agent = "assistant"
"""
ENDLESS = {"text": "script: tokens=5000 rate=20", "clientId": "<b>ann</b>"}


async def _dead_letter(stack: Stack, http: httpx.AsyncClient) -> None:
    """A turn whose only worker is killed."""
    worker = await stack.worker(config=CONFIG)
    await http.post("/v1/sessions/chat:dead/turns", json={**ENDLESS, "text": "script: tokens=40 rate=20"})

    async def runs() -> bool:
        return bool((await http.get("/v1/operator/overview")).json()["turns"])

    await wait_until(runs)
    worker.kill()
    await stack.worker(config=CONFIG)

    async def buried() -> bool:
        return bool((await http.get("/v1/operator/dead")).json())

    await wait_until(buried, 15)


async def test_what_operators_see_and_do(stack: Stack) -> None:
    gateway = await stack.gateway(config=CONFIG)
    async with httpx.AsyncClient(base_url=gateway.url, auth=("app.operator", "operator")) as http:
        await _dead_letter(stack, http)
        sent = await http.post("/v1/sessions/chat:live/turns", json=ENDLESS)
        turn = sent.json()["turnId"]

        async def is_active() -> bool:
            shown = (await http.get("/v1/operator/overview")).json()["turns"]
            return any(one["turnId"] == turn and one["status"] == "active" for one in shown)

        await wait_until(is_active)
        overview = (await http.get("/v1/operator/overview")).json()
        assert (overview["deadLetters"], overview["leaseLosses"]) == (1, 1)
        (queue,) = overview["queues"]
        assert queue["agent"] == "assistant" and queue["workers"] == len(overview["workers"]) >= 1

        async def has_it() -> bool:
            workers = (await http.get("/v1/operator/overview")).json()["workers"]
            return bool(sum(one["turns"] for one in workers) == 1)

        await wait_until(has_it, 10, "a worker says that it has the turn")

        async def undelivered() -> bool:
            return len((await http.get("/v1/operator/webhooks/backend/dead")).json()) >= 2

        await wait_until(undelivered, 10)
        if browser := next(filter(None, map(shutil.which, BROWSERS)), None):
            env = {"URL": gateway.url, "KEY": "app.operator:operator", "CHROMIUM": browser}
            await run_suite(stack, "console.test.mjs", env)
        else:
            pytest.fail("no Chromium on the PATH")
        ended = (await http.get("/v1/sessions/chat:live/ended")).json()
        assert [(one["turnId"], one["reason"]) for one in ended] == [(turn, "cancelled")]
        moments = (await http.get(f"/v1/sessions/chat:live/turns/{turn}/timeline")).json()
        assert [one["what"] for one in moments] == [
            "sent",
            "started",
            "first output",
            "cancel asked",
            "cancelled",
        ]
        assert moments == sorted(moments, key=lambda one: one["timeMs"])
        assert (await http.get("/v1/sessions/chat:live/turns/none/timeline")).status_code == 404
        assert (await http.post("/v1/operator/workers/drain", json={"worker": "none"})).status_code == 404


async def test_the_console_has_a_right_of_its_own_and_is_off_by_default(stack: Stack, tmp_path: Path) -> None:
    gateway = await stack.gateway(config=CONFIG.replace("console = true", ""))
    async with httpx.AsyncClient(base_url=gateway.url, auth=("app.chat", "chat")) as http:
        for path in (
            "/v1/operator/overview",
            "/v1/operator/dead",
            "/v1/operator/sessions",
            "/v1/operator/sessions/chat:a",
            "/v1/operator/workers",
            "/v1/operator/webhooks",
            "/v1/operator/webhooks/backend/dead",
            "/v1/operator/push/dead",
        ):
            refused = await http.get(path)
            assert refused.status_code == 401 and "console" in refused.text, refused.text
        for path, body in (
            ("/v1/operator/dead/requeue", {"letterId": "0/1-1"}),
            ("/v1/operator/workers/drain", {"worker": "x"}),
            ("/v1/operator/cancel", {"prefix": ""}),
            ("/v1/operator/sessions/chat:a/cancel", {"all": True}),
            ("/v1/operator/webhooks/backend/requeue", {"letterId": "0/1-1"}),
            ("/v1/operator/push/requeue", {"letterId": "1-1"}),
        ):
            assert (await http.post(path, json=body)).status_code == 401
        assert (await http.get("/v1/operator/overview", auth=("app.chat", "wrong"))).status_code == 401
        assert "<title>Console" not in (await http.get("/console")).text


async def test_the_page_runs_its_own_script_only(stack: Stack) -> None:
    gateway = await stack.gateway(config=CONFIG)
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        page = await http.get("/console")
        policy = page.headers["content-security-policy"]
        assert page.status_code == 200 and "<script src" in page.text
        assert (
            "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        )
        for name, status in (
            ("console.js", 200),
            ("console.css", 200),
            ("index.html", 404),
            ("../server.py", 404),
        ):
            assert (await http.get(f"/console/{name}")).status_code == status
