"""What the configuration says of a namespace, seen from outside: retention, queue, limits, deadline (RUL-2)."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import pytest_asyncio

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.gateway.raw import KEY, Map
from tests.processes import Stack, wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")
Names = Callable[[str], str]

CONFIG = """
[[keys]]
name = "app.key"
secret = "secret"

[[namespaces]]
id = "short"
retention = "1s"

[[namespaces]]
id = "short-agent"
agent = "no-one"
retention = "1s"

[[namespaces]]
id = "line"
agent = "no-one"
policy = "queue"
queue_cap = 1

[[namespaces]]
id = "no-line"
agent = "no-one"
policy = "queue"
queue_cap = 0

[[namespaces]]
id = "few"
agent = "no-one"
max_active = 2

[[namespaces]]
id = "timed"
agent = "assistant"
deadline = "1s"

[[namespaces]]
id = "untimed"
agent = "assistant"
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ruled(
    redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    stack = Stack(redis_server.url, f"t{uuid.uuid4().hex[:12]}", tmp_path_factory.mktemp("ruled"))
    yield stack
    await stack.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(ruled: Stack) -> AsyncIterator[httpx.AsyncClient]:
    gateway = await ruled.gateway(config=CONFIG)
    name, _, secret = KEY.partition(":")
    async with httpx.AsyncClient(base_url=gateway.url, auth=(name, secret)) as opened:
        yield opened


async def send(http: httpx.AsyncClient, session: str, text: str = "hi", **body: object) -> httpx.Response:
    return await http.post(f"/v1/sessions/{session}/turns", json={"clientId": "alice", "text": text, **body})


async def statuses(http: httpx.AsyncClient, session: str, count: int) -> list[str]:
    answers = [await send(http, session) for _ in range(count)]
    return [answer.json().get("status") or answer.json()["error"]["detail"]["reason"] for answer in answers]


async def test_his_6_expiry_is_stated(http: httpx.AsyncClient, unique: Names) -> None:
    session = unique("short")
    published: Map = (
        await http.post(f"/channels/{session}/messages", json={"name": "n", "data": "old"})
    ).json()

    async def history() -> httpx.Response | None:
        answer = await http.get(f"/channels/{session}/messages")
        return answer if answer.json() == [] else None

    assert (await http.get(f"/channels/{session}/messages")).headers.get("X-Truncated-At") is None
    empty = await wait_until(history, 10)
    assert empty is not None
    assert published["serials"][0].startswith(empty.headers["X-Truncated-At"])
    enveloped = (await http.get(f"/channels/{session}/messages?envelope=json")).json()
    assert enveloped["headers"]["x-truncated-at"] == empty.headers["X-Truncated-At"]
    page = (await http.get(f"/v1/sessions/{session}/messages")).json()
    assert page["truncatedAt"] == empty.headers["X-Truncated-At"]
    gone = await http.get(f"/channels/{session}/messages/{published['serials'][0]}")
    assert gone.status_code == 404


async def test_his_6_what_a_turn_waits_for_is_never_taken(http: httpx.AsyncClient, unique: Names) -> None:
    waiting, other = unique("short-agent"), unique("short")
    await send(http, waiting)
    await http.post(f"/channels/{other}/messages", json={"data": "later, and gone first"})

    async def other_is_gone() -> bool:
        return bool((await http.get(f"/channels/{other}/messages")).json() == [])

    await wait_until(other_is_gone, 10)
    assert len((await http.get(f"/channels/{waiting}/messages")).json()) == 1
    await http.post(f"/v1/sessions/{waiting}/cancel", json={"all": True})


async def test_the_queue_has_the_length_that_is_set(http: httpx.AsyncClient, unique: Names) -> None:
    assert await statuses(http, unique("line"), 3) == ["pending", "queued", "queue_full"]
    assert await statuses(http, unique("no-line"), 2) == ["pending", "queue_full"]


async def test_int_16_turns_beyond_the_limit_wait(http: httpx.AsyncClient, unique: Names) -> None:
    assert await statuses(http, unique("few"), 4) == ["pending", "pending", "queued", "queued"]


async def test_trn_23_a_turn_has_the_time_that_is_set(
    ruled: Stack, http: httpx.AsyncClient, unique: Names
) -> None:
    await ruled.worker(config=CONFIG)
    timed, untimed = unique("timed"), unique("untimed")
    turns = [
        (s, (await send(http, s, "script: tokens=20 hang_at=3")).json()["turnId"]) for s in (untimed, timed)
    ]

    async def status(session: str, turn: str) -> str:
        found: Map = (await http.get(f"/v1/sessions/{session}/turns/{turn}")).json()
        return str(found["status"])

    async def ended() -> bool:
        return await status(*turns[1]) == "failed"

    await wait_until(ended, 10)
    assert await status(*turns[0]) == "active"
    await http.post(f"/v1/sessions/{untimed}/cancel", json={"all": True})
