"""Every front end with everything that holds for all of them: credentials, origins, rights, policies, limits, drain."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.settings import ENV_PREFIX
from tests.e2e.cookie_host import hosted
from tests.e2e.front_ends import ALL, PATIENCE_S, Heard, UiPage, reading
from tests.processes import Proc, Stack, wait_until
from tests.worker.session import numbered

pytestmark = pytest.mark.asyncio(loop_scope="module")

SILENT_S = 660 if os.environ.get(f"{ENV_PREFIX}LONG") == "1" else 0
# More than fits into the buffers on the way.
SLOW = 20_000
FRIEND, EVIL = "https://friend.example", "https://evil.example"
CONFIG = f"""
[gateway]
allowed_origins = ["{FRIEND}"]
"""
RULES = """
[[keys]]
name = "app.key"
secret = "secret"

[[keys]]
name = "app.reader"
secret = "secret"
capability = { "*" = ["subscribe", "history"] }

[[keys]]
name = "app.writer"
secret = "secret"
capability = { "*" = ["publish", "turn-start", "turn-cancel"] }

[[keys]]
name = "app.elsewhere"
secret = "secret"
capability = { "elsewhere:*" = ["*"] }

[[namespaces]]
id = "*"
agent = "assistant"

[[namespaces]]
id = "queue"
agent = "assistant"
policy = "queue"

[[namespaces]]
id = "interrupt"
agent = "assistant"
policy = "interrupt"

[[namespaces]]
id = "reject"
agent = "assistant"
policy = "reject"
"""
LIMITS = """
[limits]
max_open_turns = 1
connections_per_client = 1
client_publishes_per_s = 1000
"""


@dataclass
class Site:
    """Gateways as different deployments of one: plain, with narrow limits, and inside an application."""

    stack: Stack
    plain: Proc
    narrow: Proc
    host: str

    def client(
        self, url: str | None = None, key: str = "key", user: str = "ann", **more: Any
    ) -> httpx.AsyncClient:
        """A person's requests with a key."""
        options: dict[str, Any] = {"auth": (f"app.{key}", "secret"), "params": {"clientId": user}, **more}
        # Without TLS, whose certificates take long to load.
        return httpx.AsyncClient(
            base_url=url or self.plain.url, timeout=PATIENCE_S, verify=False, trust_env=False, **options
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with Stack.opened(redis_server.url, tmp_path_factory.mktemp("site")) as stack:
        plain = await stack.gateway(config=CONFIG + RULES)
        narrow = await stack.gateway(config=LIMITS + RULES)
        await stack.worker(config=RULES)
        yield Site(stack, plain, narrow, f"http://127.0.0.1:{await hosted(stack, FRIEND)}/chat")


def page_of(kind: type[UiPage], namespace: str = "bound") -> UiPage:
    """A client of a session of its own."""
    return kind(f"{namespace}:{uuid.uuid4().hex[:12]}")


def script(tokens: int, rate: int = 0, more: str = "") -> str:
    return f"script: tokens={tokens} rate={rate} {more}"


async def messages(client: httpx.AsyncClient, page: UiPage) -> list[dict[str, Any]]:
    """What the session has."""
    found = await client.get(f"/v1/sessions/{page.session}/messages")
    assert found.status_code == 200, found.text
    listed: list[dict[str, Any]] = found.json()["messages"]
    return listed


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def silent(site: Site) -> AsyncIterator[dict[type[UiPage], tuple[UiPage, Heard, asyncio.Task[Heard]]]]:
    """A stream of each front end whose model says nothing, from the module's beginning."""
    found = {}
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(site.client(user="silent"))
        for kind in ALL:
            page = page_of(kind)
            heard, task = await stack.enter_async_context(
                reading(client, page.ask(script(9, 0, "hang_at=3")))
            )
            found[kind] = page, heard, task
        yield found


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
class TestEachFrontEnd:
    @pytest.mark.parametrize("how", ["basic", "bearer key", "token", "token in the query"])
    async def test_the_gateways_own_credentials(self, site: Site, kind: type[UiPage], how: str) -> None:
        asked = {
            "keyName": "app.key",
            "timestamp": time.time_ns() // 10**6,
            "capability": '{"bound:*":["*"]}',
        }
        async with site.client() as client:
            token = (
                await client.post("/keys/app.key/requestToken", json={**asked, "clientId": "ann"})
            ).json()["token"]
        ways: dict[str, dict[str, Any]] = {
            "basic": {},
            "bearer key": {"auth": None, "headers": {"authorization": "Bearer app.key:secret"}},
            "token": {"auth": None, "params": {}, "headers": {"authorization": f"Bearer {token}"}},
            "token in the query": {"auth": None, "params": {"access_token": token}},
        }
        async with site.client(**ways[how]) as client:
            heard = await Heard().read(client, page_of(kind).ask(script(3)))
        assert heard.text == numbered(3), heard.refusal

    async def test_strangers_are_refused_in_words(self, site: Site, kind: type[UiPage]) -> None:
        page = page_of(kind)
        for auth in (None, ("app.key", "wrong")):
            async with site.client(auth=auth) as client:
                heard = await Heard().read(client, page.ask(script(3)))
            assert heard.status == 401 and len(heard.refusal) > 20
        async with site.client() as client:
            assert await messages(client, page) == []

    async def test_a_hosts_cookie_below_its_path(self, site: Site, kind: type[UiPage]) -> None:
        own: dict[str, Any] = {"auth": None, "params": {}, "cookies": {"session": "of-ann"}}
        page = page_of(kind)
        async with site.client(site.host, **own, headers={"origin": FRIEND}) as client:
            async with reading(client, page.ask(script(900, 50))) as (heard, task):
                await heard.until_text()
                second = await _followed(client, page, heard)
                await page.stop(client, heard)
                await asyncio.wait_for(asyncio.gather(task, second), PATIENCE_S)
            assert heard.was_cancelled and (await second).text == heard.text
            refused = await Heard().read(client, page_of(kind, "of-others").ask(script(3)))
            assert refused.status in (401, 403)
        for more in ({**own, "headers": {"origin": EVIL}}, {**own, "cookies": {}}):
            page = page_of(kind)
            async with site.client(site.host, **more) as client:
                assert (await Heard().read(client, page.ask(script(3)))).status == 401

    @pytest.mark.parametrize("origin", [FRIEND, EVIL])
    async def test_pages_of_other_origins_may_ask_with_credentials_of_their_own(
        self, site: Site, kind: type[UiPage], origin: str
    ) -> None:
        method, path, body = page_of(kind).ask(script(2))
        wanted = "authorization,content-type,user-agent,x-stainless-lang"
        asked = {"origin": origin, "access-control-request-method": method}
        async with site.client() as client:
            before = await client.options(path, headers={**asked, "access-control-request-headers": wanted})
            assert before.status_code == 204
            allowed = before.headers["access-control-allow-headers"].replace(" ", "").split(",")
            assert set(wanted.split(",")) <= set(allowed)
            answer = await client.request(method, path, json=body, headers={"origin": origin})
            assert answer.headers["access-control-allow-origin"] == origin
            refused = await client.request(method, path, json=[], headers={"origin": origin})
            assert refused.status_code >= 400 and refused.headers["access-control-allow-origin"] == origin
            # Headers of a page's own, for a host's hook, only of those that are known.
            mine = await client.options(path, headers={**asked, "access-control-request-headers": "x-tenant"})
            assert ("x-tenant" in mine.headers["access-control-allow-headers"]) is (origin == FRIEND)

    @pytest.mark.parametrize("key", ["reader", "writer", "elsewhere"])
    async def test_without_the_rights_nothing_is_begun_and_nothing_stopped(
        self, site: Site, kind: type[UiPage], key: str
    ) -> None:
        page = page_of(kind)
        async with site.client(key=key, user="ann") as other, site.client() as client:
            refused = await Heard().read(other, page.ask(script(3)))
            assert (refused.status in (401, 403) and "{" not in refused.refusal) or kind is not UiPage
            assert await messages(client, page) == []
            async with reading(client, page.ask(script(30, 100))) as (heard, task):
                await heard.until_text()
                if key != "writer":  # who has the right to end turns
                    with contextlib.suppress(KeyError, ValueError, AssertionError):
                        await page.stop(other, heard)
                    assert (await asyncio.wait_for(task, PATIENCE_S)).text == numbered(30)

    async def test_the_policies_of_namespaces(self, site: Site, kind: type[UiPage]) -> None:
        async with site.client() as client, site.client(user="bob") as bob:
            page = page_of(kind, "queue")
            async with reading(client, page.ask(script(900, 50))) as (first, running):
                await first.until_text()
                second = Heard()
                waiting = asyncio.create_task(second.read(bob, page.ask(script(3), "-2")))
                await wait_until(lambda: second.status, PATIENCE_S, "the response of a turn that waits")
                assert not second.text and not waiting.done()
                await page.stop(client, first)
                await asyncio.wait_for(asyncio.gather(running, waiting), PATIENCE_S)
                assert first.was_cancelled and second.text == numbered(3)
            page = page_of(kind, "interrupt")
            async with reading(client, page.ask(script(900, 50))) as (first, running):
                await first.until_text()
                second = await Heard().read(bob, page.ask(script(3), "-2"))
                await asyncio.wait_for(running, PATIENCE_S)
                assert first.was_cancelled and second.text == numbered(3)
            page = page_of(kind, "reject")
            async with reading(client, page.ask(script(900, 50))) as (first, running):
                await first.until_text()
                refused = await Heard().read(bob, page.ask(script(3), "-2"))
                assert refused.status == 409 and "turn" in refused.refusal
                await page.stop(client, first)
                await asyncio.wait_for(running, PATIENCE_S)

    async def test_limits_are_said_in_words_and_leave_nothing_behind(
        self, site: Site, kind: type[UiPage]
    ) -> None:
        page = page_of(kind)
        async with site.client(site.narrow.url) as client, site.client(site.narrow.url, user="bob") as bob:
            async with reading(client, page.ask(script(900, 50))) as (first, task):
                await first.until_text()
                # One stream for each person.
                beyond = page_of(kind)
                again = await Heard().read(client, beyond.ask(script(3)))
                assert again.status == 429 and "event streams" in again.refusal
                assert await messages(client, beyond) == []
                # One open turn in each session.
                full = await Heard().read(bob, page.ask(script(3), "-2"))
                assert full.status == 429 and len(full.refusal) > 20
                await page.stop(client, first)
                await asyncio.wait_for(task, PATIENCE_S)
            assert len([one for one in await messages(bob, page) if one["message"]["role"] == "user"]) == 1

    async def test_a_slow_reader_gets_everything_and_holds_up_none(
        self, site: Site, kind: type[UiPage]
    ) -> None:
        page = page_of(kind)
        method, path, body = page.ask(script(SLOW))
        async with site.client() as client:
            async with client.stream(method, path, json=body) as response:

                async def is_written() -> bool:
                    found = await messages(client, page)
                    return any(
                        part.get("text") == numbered(SLOW)
                        for one in found
                        for part in one["message"]["parts"]
                    )

                await wait_until(is_written, PATIENCE_S, "the answer, that is read by no one yet")
                heard, rest = Heard(), ""
                async for text in response.aiter_text():
                    *frames, rest = (rest + text).split("\n\n")
                    for frame in frames:
                        heard.take(frame)
            assert heard.text == numbered(SLOW) and heard.has_ended

    async def test_a_closed_response_cancels_nothing(self, site: Site, kind: type[UiPage]) -> None:
        page = page_of(kind)
        async with site.client() as client:
            async with reading(client, page.ask(script(40, 100))) as (heard, _):
                await heard.until_text()
            async with site.client() as other:
                assert (await _followed(other, page, heard)) is not None

            async def is_whole() -> bool:
                found = await messages(client, page)
                return any(
                    part.get("text") == numbered(40) for one in found for part in one["message"]["parts"]
                )

            await wait_until(is_whole, PATIENCE_S)

    async def test_it_is_described(self, site: Site, kind: type[UiPage]) -> None:
        method, path, _ = page_of(kind).ask("hi")
        async with site.client() as client:
            described = (await client.get("/openapi.json")).json()
        session = path.rpartition("/")[2]
        known = {"bound" in session: path.replace(session, "{session}"), False: path}
        names = {known.get(True, path), path, path.replace("/default/", "/{agent}/")}
        (operation,) = [
            described["paths"][name][method.lower()] for name in names if name in described["paths"]
        ]
        assert operation["description"] and "200" in operation["responses"]


async def _followed(client: httpx.AsyncClient, page: UiPage, heard: Heard) -> asyncio.Task[Heard]:
    """A second reader of the same turn."""
    second = Heard()
    task = asyncio.create_task(second.read(client, page.resume(heard)))
    await wait_until(lambda: second.events or task.done(), PATIENCE_S)
    return task


async def test_a_gateway_that_drains_ends_no_turn_and_another_continues_them(site: Site) -> None:
    leaving = await site.stack.gateway(config=CONFIG + RULES)
    pages = [page_of(kind) for kind in ALL]
    async with (
        site.client(leaving.url) as client,
        site.client() as other,
        contextlib.AsyncExitStack() as stack,
    ):
        heard = [
            await stack.enter_async_context(reading(client, page.ask(script(150, 100)))) for page in pages
        ]
        for one, _ in heard:
            await one.until_text()
        leaving.terminate()
        for one, task in heard:
            await asyncio.wait_for(task, PATIENCE_S)
            assert not one.has_ended, one.events[-1]
        assert await leaving.wait() == 0
        ends = await asyncio.gather(
            *(Heard().read(other, page.resume(one)) for page, (one, _) in zip(pages, heard, strict=True))
        )
        assert {one.text for one in ends} == {numbered(150)}


@pytest.mark.timeout(60 + SILENT_S)
async def test_silent_streams_are_kept_with_comments_by_all(
    site: Site, silent: dict[type[UiPage], tuple[UiPage, Heard, asyncio.Task[Heard]]]
) -> None:
    """In the long form for eleven minutes."""

    def all_heard() -> bool:
        return all(heard.comments > SILENT_S / 16 for _, heard, _ in silent.values())

    await wait_until(all_heard, 20.0 + SILENT_S, "comments in each")
    async with site.client(user="silent") as client:
        for page, heard, task in silent.values():
            assert not task.done() and heard.text == numbered(3)
            await page.stop(client, heard)
            await asyncio.wait_for(task, PATIENCE_S)
            assert heard.was_cancelled
