"""Made-up requests to every path that the gateway's description names, and to the protocol's REST: never an error of its own."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgpack
import psutil
import pytest
import pytest_asyncio

from tests.processes import Proc, Stack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]
Map = dict[str, Any]

LONG = os.environ.get("SELFHOST_TRANSPORT_LONG") == "1"
ROUNDS = 400 if LONG else 8
"""Requests to each operation."""
AT_ONCE = 8
GROWTH_BYTES = 48 * 2**20
CONFIG = """
[[keys]]
name = "app.full"
secret = "secret"

[[keys]]
name = "app.few"
secret = "secret"
capability = { "bound:*" = ["subscribe", "publish", "turn-start"] }

[[namespaces]]
id = "bound"
agent = "assistant"

[[namespaces]]
id = "lined"
agent = "assistant"
policy = "queue"
"""
SESSIONS: Final = ("bound:fuzz", "lined:fuzz", "plain:fuzz")
WORDS: Final = (
    "", "x", "*", "a:b", "\x00", "a\r\nb: c", "%2e%2e/", "../..", "é🙂", "1e999", "-1", "9" * 40, "a" * 5000, "[?rewind=1]x",
    "[meta]log", "\u202e", "true", "null", "0", "00000000000007-000@abcdefghij", "application/json", "[filter=x]y",
)  # fmt: skip
PROTOCOL: Final = (
    "/channels/{session}/messages", "/channels/{session}", "/channels", "/channels/{session}/history",
    "/channels/{session}/presence", "/channels/{session}/presence/history", "/channels/{session}/messages/{serial}",
    "/channels/{session}/messages/{serial}/versions", "/channels/{session}/messages/{serial}/annotations", "/stats",
    "/messages", "/presence", "/keys/app.full/requestToken", "/keys/app.full/revokeTokens", "/time", "/comet/connect",
    "/comet/{serial}/send", "/comet/{serial}/recv", "/comet/{serial}/close", "/push/publish", "/{serial}",
)  # fmt: skip
PARAMETERS: Final = (
    "limit", "start", "end", "direction", "cursor", "clientId", "format", "v", "envelope", "key", "access_token", "after",
    "fromSerial", "from_serial", "stream", "rewind", "prefix", "by", "untilAttach",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path, and what its body may hold."""

    method: str
    path: str
    fields: tuple[str, ...] = ()


def described(openapi: Map) -> Iterator[Operation]:
    """The operations of an OpenAPI document, with all names of fields that it has anywhere."""
    schemas = openapi["components"]["schemas"].values()
    fields = tuple(sorted({name for schema in schemas for name in schema.get("properties", {})}))
    for path, methods in openapi["paths"].items():
        for method in methods:
            yield Operation(method.upper(), path, fields)


class Requests:
    """Made-up requests. Seeded."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def of(self, operation: Operation) -> Map:
        """The arguments of a request."""
        pick, random = self._random.choice, self._random.random
        path = operation.path
        while (at := path.find("{")) >= 0:
            end = path.index("}", at)
            name = path[at + 1 : end]
            value = pick(SESSIONS) if name == "session" and random() < 0.7 else pick(WORDS)
            path = path[:at] + (quote(value, safe="") or "x") + path[end + 1 :]
        names = self._random.sample(PARAMETERS, self._random.choice((0, 0, 1, 3)))
        given: Map = {
            "method": operation.method,
            "url": path,
            "params": {name: pick(WORDS) for name in names},
        }
        if operation.method not in ("GET", "HEAD"):
            kind = pick(
                ("application/json",) * 6
                + ("text/plain", "application/x-msgpack", "application/x-msgpack", "")
            )
            given["content"] = self._body(operation, kind)
            given["headers"] = {"content-type": kind}
        return given

    def _body(self, operation: Operation, kind: str) -> bytes:
        names = operation.fields or (
            "name",
            "data",
            "id",
            "extras",
            "clientId",
            "action",
            "serial",
            "channels",
            "messages",
        )
        body: Any = {name: self._value(0) for name in self._random.sample(names, min(4, len(names)))}
        if self._random.random() < 0.5:
            body |= self._likely()
        if self._random.random() < 0.1:
            body = self._value(0)
        raw = _packed(body) if kind.endswith("msgpack") else json.dumps(body).encode()
        if self._random.random() < 0.05:
            return raw[: self._random.randrange(len(raw) + 1)]
        return raw

    def _likely(self) -> Map:
        pick = self._random.choice
        parts = pick(
            (
                [{"type": "text", "text": "hi"}],
                [self._value(2)],
                [],
                [{"type": pick(WORDS), "text": self._value(3)}],
            )
        )
        message = {"id": pick(WORDS), "role": pick(("user", "assistant", "system", "")), "parts": parts}
        return pick(
            (
                {"id": pick(SESSIONS), "messages": [message]},
                {"message": message, "trigger": pick(("submit-message", "regenerate-message"))},
                {"messages": [message, message], "messageId": pick(WORDS)},
                {"text": pick(WORDS), "clientId": pick(WORDS)},
                {"all": True},
                {"turnId": pick(WORDS)},
            )
        )

    def _value(self, depth: int) -> Any:
        random, pick = self._random.random(), self._random.choice
        if depth < 3 and random < 0.15:
            return [self._value(depth + 1) for _ in range(self._random.randint(0, 3))]
        if depth < 3 and random < 0.3:
            return {pick(WORDS): self._value(depth + 1) for _ in range(self._random.randint(0, 3))}
        if random < 0.33:
            value: Any = 1
            for _ in range(self._random.choice((60, 70, 250, 300, 900))):
                value = [value]
            return value
        return pick(
            (
                None,
                True,
                0,
                -1,
                2**53,
                2**64,
                10**400,
                0.1,
                float("nan"),
                float("inf"),
                "\ud800",
                "\udfff",
                *WORDS,
            )
        )


def _packed(value: Any) -> bytes:
    try:
        packed: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    except (OverflowError, ValueError):
        # It cannot say what JSON can.
        return b"\xc1"
    return packed


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(site: Stack) -> Proc:
    return await site.gateway(config=CONFIG)


async def test_no_request_makes_an_error_of_the_gateways_own(gateway: Proc) -> None:
    process, requests = psutil.Process(gateway.pid), Requests(3)
    callers: tuple[tuple[str, str] | None, ...] = (("app.full", "secret"), ("app.few", "secret"), None)
    limits = httpx.Limits(max_connections=AT_ONCE)
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20.0, limits=limits) as http:
        full = httpx.BasicAuth("app.full", "secret")
        operations = [*described((await http.get("/openapi.json", auth=full)).json())]
        assert {"/v1/ui/{session}", "/api/chat"} <= {operation.path for operation in operations}
        methods = ("GET", "POST", "PATCH", "PUT", "DELETE", "HEAD")
        operations += [Operation(method, path) for path in PROTOCOL for method in methods]
        statuses: dict[int, int] = {}
        free = asyncio.Semaphore(AT_ONCE)

        async def ask(number: int, operation: Operation) -> None:
            caller = callers[number % len(callers)]
            auth = httpx.BasicAuth(*caller) if caller is not None else None
            given = requests.of(operation)
            try:
                async with free, http.stream(**given, auth=auth) as answer:
                    status = answer.status_code
                    is_busy = status == 503 and "retry-after" in answer.headers
            except httpx.InvalidURL:
                return
            statuses[status] = statuses.get(status, 0) + 1
            assert status < 500 or is_busy or status == 501, (status, given)

        warm = 0
        for number in range(ROUNDS):
            await asyncio.gather(*(ask(number, operation) for operation in operations))
            if number == ROUNDS // 4:
                warm = process.memory_info().rss
        assert (await http.get("/healthz")).status_code == 200
    # They reach what the paths do, not only its door.
    assert sum(count for status, count in statuses.items() if status < 300) > 20, statuses
    assert process.memory_info().rss - warm < GROWTH_BYTES
    assert not [line for line in gateway.lines if "Traceback" in line or "ERROR" in line], gateway.log
