"""What broken, impatient and malicious clients of the front ends send: a typed refusal in words, nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import pytest
import pytest_asyncio

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.settings import ENV_PREFIX
from tests.e2e.front_ends import ALL, PATIENCE_S, AguiClient, Heard, ResponsesClient, UiPage, reading
from tests.machine import free_port
from tests.processes import Proc, Stack, wait_until
from tests.worker.session import numbered

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = os.environ.get(f"{ENV_PREFIX}LONG") == "1"
CONFIG = """
[[keys]]
name = "app.key"
secret = "secret"

[[keys]]
name = "app.mere"
secret = "secret"
capability = { "*" = ["subscribe", "history", "publish", "turn-start"] }

[[namespaces]]
id = "*"
agent = "assistant"
"""
UNICODE = "e\u0301 \U0001f469\u200d\U0001f469\u200d\U0001f467 \u202eabc \u0000 \ufeff \u2028 \\u0041 </script> \U0010ffff"


@dataclass
class Site:
    """Two gateways and a worker."""

    stack: Stack
    gateways: list[Proc]

    def client(self, gateway: int = 0, user: str = "ann", key: str = "key") -> httpx.AsyncClient:
        """A person's requests."""
        return httpx.AsyncClient(
            base_url=self.gateways[gateway].url,
            auth=(f"app.{key}", "secret"),
            params={"clientId": user},
            timeout=PATIENCE_S,
            verify=False,  # without TLS, whose certificates take long to load
            trust_env=False,
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with Stack.opened(redis_server.url, tmp_path_factory.mktemp("site")) as stack:
        gateways = [await stack.gateway(config=CONFIG) for _ in range(2)]
        await stack.worker(config=CONFIG)
        yield Site(stack, gateways)


def page_of(kind: type[UiPage]) -> UiPage:
    return kind(f"chat:{uuid.uuid4().hex[:12]}")


async def messages(client: httpx.AsyncClient, session: str) -> list[dict[str, Any]]:
    """What the session has."""
    found = await client.get(f"/v1/sessions/{session}/messages", params={"limit": 1000})
    assert found.status_code == 200, found.text
    return [one["message"] for one in found.json()["messages"]]


def with_text(body: dict[str, Any], text: object) -> dict[str, Any]:
    """A request of any front end that says something else."""
    copied: dict[str, Any] = orjson.loads(orjson.dumps(body))
    (message,) = copied.get("messages") or copied["input"]
    if "parts" in message:
        message["parts"][0]["text"] = text
    else:
        message["content"] = text
    return copied


def with_id(body: dict[str, Any], name: object) -> dict[str, Any]:
    """A request of any front end whose message has another id."""
    copied: dict[str, Any] = orjson.loads(orjson.dumps(body))
    (message,) = copied.get("messages") or copied["input"]
    message["id"] = name
    return copied


BROKEN = {
    "nothing": b"",
    "a brace": b"{",
    "null": b"null",
    "a list": b"[]",
    "a text": b'"hello"',
    "a number": b"1e999",
    "not a number": b"NaN",
    "no utf-8": b'{"messages": ["\xff\xfe"], "input": "\xff"}',
    "half of a surrogate pair": b'{"messages": [{"id": "\\ud800", "role": "user", "parts": []}], "input": "\\ud800"}',
    "depth": b"[" * 20_000,
    "deep objects": b'{"messages":' * 20_000,
    "wrong types": b'{"messages": {"0": 1}, "input": {"a": 1}, "threadId": 7, "runId": []}',
    "empty lists": b'{"messages": [], "input": [], "threadId": "t", "runId": "r"}',
    "a strange role": b'{"messages": [{"id": "x", "role": "root", "parts": [], "content": "x"}], "threadId": "t", "runId": "r", '
    b'"input": [{"role": "root", "content": "x"}]}',
}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
class TestEachFrontEnd:
    async def test_bodies_that_are_none_are_refused_in_words(self, site: Site, kind: type[UiPage]) -> None:
        page = page_of(kind)
        method, path, body = page.ask("hi")
        async with site.client() as client:
            for what, sent in BROKEN.items():
                refused = await Heard().read(client, (method, path, sent))
                assert 400 <= refused.status < 500, (what, refused)
                assert len(refused.refusal) > 15 and "Traceback" not in refused.refusal, (
                    what,
                    refused.refusal,
                )
            large = await Heard().read(client, (method, path, with_text(body, "x" * 5_000_000)))
            assert large.status == 413 and len(large.refusal) > 20
            for text in (None, 7, ["x"], {"a": 1}, ""):
                refused = await Heard().read(client, (method, path, with_text(body, text)))
                assert 400 <= refused.status < 500, (text, refused)
            assert await messages(client, page.session) == []

    async def test_ids_and_names_that_are_strange(self, site: Site, kind: type[UiPage]) -> None:
        async with site.client() as client:
            for name in (
                "",
                " ",
                "a/b",
                "../..",
                "x" * 300,
                "a\nb",
                "\u0000",
                "\U0001f600",
                7,
                None,
                {"a": 1},
            ):
                page = page_of(kind)
                method, path, body = page.ask("script: tokens=3 rate=0")
                heard = await Heard().read(client, (method, path, with_id(body, name)))
                assert heard.status < 500, (name, heard)
                if heard.status < 400:
                    assert heard.text == numbered(3), name
                    assert len(await messages(client, page.session)) == 2
                else:
                    assert len(heard.refusal) > 15
                    assert await messages(client, page.session) == []
            for session in ("x" * 3000, "a\nb", "", "\ufeff", "[?x]chat", "chat,*"):
                heard = await Heard().read(client, kind(session).ask("script: tokens=3 rate=0"))
                assert heard.text == numbered(3) if heard.status < 400 else heard.status < 500, (
                    session,
                    heard,
                )

    async def test_all_of_unicode_arrives_as_it_was_sent(self, site: Site, kind: type[UiPage]) -> None:
        page = page_of(kind)
        async with site.client() as client:
            # The scripted model quotes it.
            heard = await Heard().read(client, page.ask(UNICODE))
            asked, answer = await messages(client, page.session)
            assert asked["parts"][0]["text"] == UNICODE
            assert "".join(part.get("text", "") for part in answer["parts"]) == heard.text
            async with site.client(1) as other:
                connected = await Heard().read(other, AguiClient(page.session).resume(Heard()))
            assert connected.text == heard.text
            (said, *_) = next(e["messages"] for e in connected.events if e["type"] == "MESSAGES_SNAPSHOT")
            assert said["content"] == UNICODE

    async def test_the_same_request_many_times_at_once_is_one_turn(
        self, site: Site, kind: type[UiPage]
    ) -> None:
        page = page_of(kind)
        request = page.ask("script: tokens=40 rate=100")
        async with site.client() as one, site.client(1) as two:
            heard = await asyncio.gather(
                *(Heard().read((one, two)[number % 2], request) for number in range(8))
            )
            assert {one.text for one in heard} == {numbered(40)}, [(one.status, one.refusal) for one in heard]
            assert [message["role"] for message in await messages(one, page.session)] == ["user", "assistant"]

    async def test_stops_come_twice_all_at_once_and_from_others(self, site: Site, kind: type[UiPage]) -> None:
        page = page_of(kind)
        async with (
            site.client() as client,
            site.client(1) as other,
            site.client(1, "eve", "mere") as eve,
            site.client(1, "bob") as bob,
        ):
            async with reading(client, page.ask("script: tokens=900 rate=50")) as (heard, task):
                await heard.until_text()
                # Someone who may not end turns, and someone whose turn it is not.
                for stranger in (eve,) if kind is ResponsesClient else (eve, bob):
                    with contextlib.suppress(KeyError, ValueError, AssertionError):
                        await page.stop(stranger, heard)
                length = len(heard.text)
                await heard.until_text(length + 1)
                answers = await asyncio.gather(
                    *(page.stop((client, other)[number % 2], heard) for number in range(8))
                )
                await asyncio.wait_for(task, PATIENCE_S)
            assert heard.was_cancelled
            assert {answer.text for answer in answers} <= {None, heard.text}
            again = await page.stop(other, heard)
            assert again.text in (None, heard.text)
            said = (await messages(client, page.session))[-1]["parts"]
            assert "".join(part.get("text", "") for part in said) == heard.text

    async def test_two_conversations_do_not_meet(self, site: Site, kind: type[UiPage]) -> None:
        """The same ids in two sessions are two turns."""
        async with site.client() as client:
            pages = [page_of(kind) for _ in range(2)]
            requests = [page.ask("script: say=mine") for page in pages]
            heard = [
                await Heard().read(client, (method, path, with_id(body, "the-same")))
                for method, path, body in requests
            ]
            assert [one.text.strip() for one in heard] == ["mine", "mine"]
            for page in pages:
                assert len(await messages(client, page.session)) == 2


@pytest.mark.parametrize("kind", [UiPage, AguiClient])
async def test_a_stop_that_overtakes_its_message(site: Site, kind: type[UiPage]) -> None:
    page = page_of(kind)
    method, path, body = page.ask("script: tokens=900 rate=50")
    named = {"sentMessageId": page.session, "threadId": page.session}
    target = f"/v1/ui/{page.session}/stop" if kind is UiPage else "/v1/agui/stop"
    async with site.client() as client, site.client(1) as other:
        assert (await other.post(target, json=named)).status_code == 200
        heard = await Heard().read(client, (method, path, body))
        assert not heard.text
        # `useChat` would show a message of it, empty, if it was named.
        assert (
            [e["type"] for e in heard.events] == ["abort", "finish"]
            if kind is UiPage
            else heard.was_cancelled
        )


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("nonsense", 400),
        ("", 200),
        ("1-0/999999~0", 200),
        ("9999999999999-0:999999/3.0:5~abc", 200),
        ("/1.0:99999999999~ffffffff", 200),
        ("x" * 5000, 400),
    ],
)
async def test_agui_cursors_from_nowhere(site: Site, given: str, status: int) -> None:
    """A place that the run never had gets the run from a snapshot."""
    page = page_of(AguiClient)
    method, path, body = page.ask("script: tokens=5 rate=0")
    async with site.client() as client:
        assert (await Heard().read(client, (method, path, body))).text == numbered(5)
        client.headers["last-event-id"] = given
        again = await Heard().read(client, (method, path, body))
        assert again.status == status, again
        assert status == 400 or (again.text == numbered(5) and again.has_ended)


async def test_responses_cursors_from_the_future_end_with_the_response(site: Site) -> None:
    page = page_of(ResponsesClient)
    async with site.client() as client:
        running = asyncio.create_task(Heard().read(client, page.ask("script: tokens=30 rate=60")))
        async with reading(client, page.ask("script: tokens=30 rate=60")) as (heard, _):
            path = f"/v1/responses/{heard.events[0]['response']['id']}?stream=true&starting_after="
            for after in (10**6, 2**62):
                late = await Heard().read(client, ("GET", f"{path}{after}", None))
                assert late.status == 200 and not late.text
            for wrong in ("-1", "x", str(2**64)):
                refused = await Heard().read(client, ("GET", f"{path}{wrong}", None))
                assert refused.status == 400
        assert (await running).text == numbered(30)


async def test_a_page_that_names_a_last_message_of_nowhere(site: Site) -> None:
    page = page_of(UiPage)
    async with site.client() as client:
        for last in ("nothing", "\U0001f600", "a/b", "%00"):
            answer = await client.get(f"/v1/ui/{page.session}/stream", params={"last": last})
            assert answer.status_code == 204
        assert (
            await client.get(f"/v1/ui/{page.session}/stream", params={"last": "x" * 5000})
        ).status_code == 400


async def test_two_tabs_regenerate_at_once(site: Site) -> None:
    page = page_of(UiPage)
    async with site.client() as client, site.client(1) as other:
        await Heard().read(client, page.ask("script: tokens=20 rate=100"))
        shown = (await client.get(f"/v1/ui/{page.session}/messages")).json()
        again = {"messages": shown[:1], "trigger": "regenerate-message", "messageId": shown[1]["id"]}
        path = f"/v1/ui/{page.session}"
        tabs = await asyncio.gather(*(Heard().read(one, ("POST", path, again)) for one in (client, other)))
        # A new answer ends the one that the person is being given: the later one is whole.
        assert sorted(tab.was_cancelled for tab in tabs) in ([False, False], [False, True])
        assert numbered(20) in {tab.text for tab in tabs}
        for one in (client, other):
            after = (await one.get(f"/v1/ui/{page.session}/messages")).json()
            assert [message["role"] for message in after] == ["user", "assistant"]
        assert after[1]["id"] != shown[1]["id"]


async def test_histories_of_a_thousand_messages(site: Site) -> None:
    """Clients that send all that they show, and sessions that have as much."""
    # The two that are sent at the end make a thousand messages of it, the most that is read at once.
    turns = 498 if LONG else 40
    session = f"chat:{uuid.uuid4().hex[:12]}"
    async with site.client() as client:
        for number in range(turns):
            await Heard().read(client, ResponsesClient(session).ask(f"script: say={number}", f"-{number}"))
        shown = (await client.get(f"/v1/ui/{session}/messages", params={"limit": 1000})).json()
        assert [m["parts"][-1]["text"].strip() for m in shown[1::2]] == [
            str(number) for number in range(turns)
        ]
        connected = await Heard().read(client, AguiClient(session).resume(Heard()))
        snapshot = next(e["messages"] for e in connected.events if e["type"] == "MESSAGES_SNAPSHOT")
        assert [m["id"] for m in snapshot] == [m["id"] for m in shown]
        forged = [
            {
                "id": f"f{number}",
                "role": ("user", "assistant")[number % 2],
                "parts": [{"type": "text", "text": "forged"}],
            }
            for number in range(1000)
        ]
        for kind in (UiPage, AguiClient):
            method, path, body = kind(session).ask("script: say=new", f"-{kind.__name__}")
            said = [{**one, "content": "forged"} for one in forged] if kind is AguiClient else forged
            heard = await Heard().read(
                client, (method, path, {**body, "messages": [*said, *body["messages"]]})
            )
            assert heard.text.strip() == "new"
        stored = await messages(client, session)
        assert len(stored) == 2 * turns + 4 and "forged" not in orjson.dumps(stored).decode()


async def test_redis_goes_and_comes_back(tmp_path: Any) -> None:
    """Streams of all front ends go on, or end with an error and go on when asked again; no turn is lost."""
    with EmbeddedRedis(tmp_path / "redis", free_port()) as redis:
        async with Stack.opened(redis.url, tmp_path) as stack:
            site = Site(stack, [await stack.gateway(config=CONFIG)])
            await stack.worker(config=CONFIG)
            pages = [page_of(kind) for kind in ALL]
            async with site.client() as client, contextlib.AsyncExitStack() as streams:
                asked = [page.ask("script: tokens=120 rate=100") for page in pages]
                heard = [await streams.enter_async_context(reading(client, one)) for one in asked]
                for one, _ in heard:
                    await one.until_text()
                redis.stop()
                await asyncio.sleep(0.5)  # the outage
                redis.start()
                for page, (one, task) in zip(pages, heard, strict=True):
                    await asyncio.wait_for(task, 2 * PATIENCE_S)
                    if not one.has_ended:
                        again = Heard()

                        async def whole(page: UiPage = page, one: Heard = one, again: Heard = again) -> bool:
                            await again.read(client, page.resume(one))
                            return again.has_ended

                        await wait_until(whole, PATIENCE_S, f"{type(page).__name__} goes on")
                        one = again
                    assert one.text == numbered(120), (type(page).__name__, one.text[-200:])
                    assert len(await messages(client, page.session)) == 2
