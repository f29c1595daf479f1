"""The plain HTTP API, against a real process and no worker: accepting, cancelling, reading."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import msgpack
import pytest

from tests.gateway.raw import KEY, Map
from tests.gateway.tokens import token

pytestmark = pytest.mark.asyncio(loop_scope="module")
Names = Callable[[str], str]


async def send(http: httpx.AsyncClient, session: str, **body: object) -> httpx.Response:
    return await http.post(f"/v1/sessions/{session}/turns", json={"clientId": "alice", **body})


async def test_a_send_is_accepted_and_listed(http: httpx.AsyncClient, unique: Names) -> None:
    session = unique("bound")
    accepted = await send(http, session, text="hello")
    assert accepted.status_code == 202
    turn: Map = accepted.json()
    assert turn["status"] == "pending"
    listed = (await http.get(f"/v1/sessions/{session}/turns")).json()["turns"]
    assert [(item["turnId"], item["owner"], item["agent"]) for item in listed] == [
        (turn["turnId"], "alice", "assistant")
    ]
    one = (await http.get(f"/v1/sessions/{session}/turns/{turn['turnId']}")).json()
    assert one["inputId"] == turn["messageId"]


async def test_names_may_hold_anything_encoded(http: httpx.AsyncClient, unique: Names) -> None:
    name = f"{unique('bound')}/a%2Fb ü+?"
    session = quote(name, safe="")
    turn = (await send(http, session, text="hello")).json()["turnId"]
    assert (await http.get(f"/v1/sessions/{session}/turns/{turn}")).json()["turnId"] == turn
    stored = (await http.get(f"/channels/{session}/messages")).json()
    assert len(stored) == 1
    cancelled = await http.post(f"/v1/sessions/{session}/cancel", json={"turnId": turn})
    assert cancelled.json()["matched"] == [turn]
    wrong = await http.delete(f"/v1/sessions/{session}/turns")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (404, 40400)


async def test_a_repeat_is_the_same_turn_and_another_text_a_conflict(
    http: httpx.AsyncClient, unique: Names
) -> None:
    session = unique("bound")
    first, again = [(await send(http, session, text="hello", id="m1")).json() for _ in range(2)]
    assert again == {**first, "repeated": True}
    conflict = await send(http, session, text="other", id="m1")
    assert (conflict.status_code, conflict.json()["error"]["code"]) == (409, 40031)


async def test_messages_follow_each_other(http: httpx.AsyncClient, unique: Names) -> None:
    session = unique("bound")
    for text in ("one", "two"):
        await send(http, session, text=text, id=text)
    page = (await http.get(f"/v1/sessions/{session}/messages")).json()
    assert [message["codecMessageId"] for message in page["messages"]] == ["one", "two"]
    assert not page["truncated"]


async def test_pages_of_the_conversation_leave_out_what_is_said_beside_it(
    http: httpx.AsyncClient, unique: Names
) -> None:
    session = unique("bound")
    for number in range(3):
        await send(http, session, text=f"{number}", id=f"m{number}")
        await http.post(f"/channels/{session}/messages", json=[{"name": "note", "data": "x"}] * 40)
    path, found = f"/channels/{session}/messages?limit=2&conversation=true", []
    while path:
        page = await http.get(path)
        found += [message["name"] for message in page.json()]
        following = page.links.get("next")
        path = f"/channels/{session}/{following['url'].removeprefix('./')}" if following else ""
    assert found == ["ai-input"] * 3
    assert len((await http.get(f"/channels/{session}/messages?limit=200")).json()) == 123


async def test_an_edit_needs_no_parent_and_null_begins_anew(http: httpx.AsyncClient, unique: Names) -> None:
    """P14: what a message follows is known to the service, however little its sender has read."""
    session = unique("bound")
    for text in ("one", "two", "three"):
        await send(http, session, text=text, id=text)
    await send(http, session, text="instead of two", id="edit", forkOf="two")
    page = (await http.get(f"/v1/sessions/{session}/messages")).json()
    assert [message["codecMessageId"] for message in page["messages"]] == ["one", "edit"]
    newest = (await http.get(f"/v1/sessions/{session}/messages", params={"limit": 1})).json()
    assert [message["codecMessageId"] for message in newest["messages"]] == ["edit"] and newest["truncated"]
    assert (await send(http, session, text="instead of two", id="edit", forkOf="two")).json()["repeated"]
    await send(http, session, text="afresh", id="first", parent=None)
    inputs = (await http.get(f"/channels/{session}/messages")).json()
    parents = {
        found.get("codec-message-id"): found.get("parent")
        for found in (
            message["extras"]["ai"]["transport"] for message in inputs if message["name"] == "ai-input"
        )
    }
    assert parents == {"one": None, "two": "one", "three": "two", "edit": "one", "first": None}


@pytest.mark.parametrize(
    ("names", "matches"),
    [
        ({"inputId": "m1"}, True),
        ({"clientId": "alice"}, True),
        ({"clientId": "bob"}, False),
        ({"own": True, "actingClientId": "alice"}, True),
        ({"own": True, "actingClientId": "bob"}, False),
        ({"all": True}, True),
        ({"turnId": "nope"}, False),
    ],
)
async def test_cancel_by_every_filter(
    http: httpx.AsyncClient, unique: Names, names: dict[str, object], matches: bool
) -> None:
    session = unique("bound")
    turn = (await send(http, session, text="hello", id="m1")).json()["turnId"]
    response = await http.post(f"/v1/sessions/{session}/cancel", json=names)
    assert response.status_code == 200
    assert response.json()["matched"] == ([turn] if matches else [])
    record = (await http.get(f"/v1/sessions/{session}/turns/{turn}")).json()
    assert record["status"] == ("cancelled" if matches else "pending")


async def test_interrupting_cancels_and_sends_in_one_step(http: httpx.AsyncClient, unique: Names) -> None:
    session = unique("bound")
    first = (await send(http, session, text="one")).json()["turnId"]
    second = (await send(http, session, text="two", policy="interrupt")).json()
    assert second["interrupted"] == [first]
    active = (await http.get(f"/v1/sessions/{session}/turns")).json()["turns"]
    assert [turn["turnId"] for turn in active] == [second["turnId"]]


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("turns", {}, 40001),
        ("turns", {"text": "x", "parts": []}, 40001),
        ("turns", {"text": "x", "unknown": 1}, 40001),
        ("cancel", {}, 40001),
        ("cancel", {"own": True, "all": True}, 40001),
        ("cancel", {"own": True}, 40012),
    ],
)
async def test_bad_requests_are_typed(
    http: httpx.AsyncClient, unique: Names, path: str, body: Map, code: int
) -> None:
    response = await http.post(f"/v1/sessions/{unique('bound')}/{path}", json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, code)


async def test_a_namespace_without_an_agent_takes_no_turns(http: httpx.AsyncClient, unique: Names) -> None:
    response = await send(http, unique("plain"), text="x")
    assert (response.status_code, response.json()["error"]["code"]) == (400, 40003)


async def test_unknown_turns_and_missing_credentials(http: httpx.AsyncClient, unique: Names) -> None:
    session = unique("bound")
    assert (await http.get(f"/v1/sessions/{session}/turns/nope")).status_code == 404
    async with httpx.AsyncClient(base_url=http.base_url) as stranger:
        assert (await stranger.get(f"/v1/sessions/{session}/turns")).status_code == 401


async def test_the_wake_up_is_idempotent_and_returns_only_the_turn(
    http: httpx.AsyncClient, unique: Names
) -> None:
    session = unique("bound")
    transport = {"role": "user", "codec-message-id": "m1", "event-id": "e1"}
    message = {"name": "ai-input", "data": "hi", "extras": {"ai": {"transport": transport}}}
    stored = (await http.post(f"/channels/{session}/messages", json=message)).json()
    body = {"inputEventId": "e1", "sessionName": session, "more": "is ignored"}
    answers = [await http.post("/api/chat", json=body) for _ in range(2)]
    assert [answer.json() for answer in answers] == [{"runId": stored["turn"]["id"]}] * 2
    unknown = await http.post("/api/chat", json={**body, "inputEventId": "e2"})
    assert (unknown.status_code, unknown.json()) == (202, {})
    async with httpx.AsyncClient(base_url=http.base_url) as stranger:
        # The SDK sends no credentials along; who has none learns of no turn.
        for key in ("", "app.key:wrong", "app.other:x"):
            reported = await stranger.post("/api/chat", json=body, params={"key": key})
            assert (reported.status_code, reported.json()) == (202, {})


async def test_a_wake_up_that_no_worker_would_hear_is_refused(http: httpx.AsyncClient, unique: Names) -> None:
    refused = await http.post("/api/chat", json={"inputEventId": "e1", "sessionName": unique("plain")})
    assert refused.status_code == 400
    assert "your own agent" in refused.text


async def test_events_continue_after_the_last_id(http: httpx.AsyncClient, unique: Names) -> None:
    session = unique("plain")

    async def events(count: int, last: str | None) -> list[tuple[str, str, str]]:
        headers = {"Last-Event-ID": last} if last else {}
        found: list[tuple[str, str, str]] = []
        fields: dict[str, str] = {}
        async with http.stream("GET", f"/v1/sessions/{session}/events", headers=headers) as response:
            async for line in response.aiter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "event" in fields:
                    found.append((fields["event"], fields["id"], fields["data"]))
                    fields = {}
                    if len(found) == count:
                        return found
        return found

    await http.post(f"/channels/{session}/messages", json={"data": "zero"})
    async with asyncio.timeout(10):
        beginning = await events(1, None)
        for text in ("one", "two"):
            await http.post(f"/channels/{session}/messages", json={"data": text})
        attached, one, two = await events(3, beginning[0][1])
        rest = await events(2, one[1])
    assert (attached[0], one[0]) == ("attached", "message")
    assert '"data":"one"' in one[2]
    assert '"data":"two"' in two[2]
    assert rest[1] == two


async def test_sends_and_cancels_are_counted(http: httpx.AsyncClient, unique: Names) -> None:
    session = unique("bound")

    async def count(name: str) -> float:
        lines = (await http.get("/metrics")).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    names = (
        "sht_gateway_sends_total",
        "sht_gateway_turns_cancelled_total",
        "sht_gateway_cancel_seconds_count",
    )
    before = [await count(name) for name in names]
    await send(http, session, text="hello")
    await http.post(f"/v1/sessions/{session}/cancel", json={"all": True})
    assert [await count(name) for name in names] == [value + 1 for value in before]


async def test_openapi_documents_it(http: httpx.AsyncClient) -> None:
    paths = (await http.get("/openapi.json")).json()["paths"]
    assert "/v1/sessions/{session}/turns" in paths
    assert "202" in paths["/v1/sessions/{session}/turns"]["post"]["responses"]


def credentials(scheme: Map) -> dict[str, Any]:
    """Of a request that authenticates as a scheme says."""
    name, _, secret = KEY.partition(":")
    match scheme["type"], scheme.get("scheme") or scheme["in"]:
        case "http", "basic":
            return {"auth": httpx.BasicAuth(name, secret)}
        case "http", "bearer":
            return {"headers": {"Authorization": f"Bearer {token()}"}}
        case "apiKey", "query":
            return {"params": {scheme["name"]: KEY if scheme["name"] == "key" else token()}}
    raise AssertionError(scheme)


async def test_each_security_scheme_of_the_description_is_accepted(http: httpx.AsyncClient, url: str) -> None:
    openapi = (await http.get("/openapi.json")).json()
    schemes = openapi["components"]["securitySchemes"]
    assert openapi["security"] == [{name: []} for name in schemes] and len(schemes) == 4
    # As from another machine: operators' pages are open to this one.
    elsewhere = {"X-Forwarded-For": "203.0.113.9"}
    async with httpx.AsyncClient(base_url=url, headers=elsewhere) as anonymous:
        for scheme in schemes.values():
            assert (await anonymous.get("/v1/me", **credentials(scheme))).status_code == 200, scheme
        for path, operations in openapi["paths"].items():
            for method, operation in operations.items():
                if method == "get" and "{" not in path:
                    is_public = operation.get("security") == []
                    answered = (await anonymous.get(path)).status_code
                    assert (answered == 401) != is_public, f"{path} answers {answered}"


async def test_the_description_is_one_page_that_loads_nothing(http: httpx.AsyncClient) -> None:
    answer = await http.get("/docs", params={"key": '"><script>'})
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = answer.text
    assert not re.findall(r"<(?:script|link|img|iframe)|https?://|url\(", page)
    for path, operations in (await http.get("/openapi.json")).json()["paths"].items():
        for method in operations:
            assert f"<code>{method.upper()} {path}</code>" in page
    assert "<td><code>Authorization: Bearer</code></td>" in page
    sent = page.partition("<code>POST /v1/sessions/{session}/turns</code>")[2].partition("<h2>")[0]
    assert "<td><code>text</code></td><td>string or null</td>" in sent
    assert "the turn that answers it is accepted in the same step" in sent
    assert "<td><code>turnId</code></td><td>string, required</td>" in sent


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{}", "body: give either text or parts"),
        (b'{"txt": "hello"}', "txt: there is no such field"),
        (b'{"text": "\xff"}', "not a JSON document"),
        (b'{"text": ' + b"[" * 100_000, "not a JSON document"),
        (b"[1]", "send a JSON object"),
    ],
    ids=["nothing asked", "no such field", "not UTF-8", "too deep", "no object"],
)
async def test_a_body_that_cannot_be_read_is_a_typed_refusal(
    http: httpx.AsyncClient, unique: Names, body: bytes, said: str
) -> None:
    path = f"/v1/sessions/{unique('bound')}/turns"
    refused = await http.post(path, content=body, headers={"content-type": "application/json"})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, 40001)
    assert said in error["message"]
    assert (await http.get(path)).json()["turns"] == []


async def test_half_a_character_is_stored_as_on_the_websocket(http: httpx.AsyncClient, unique: Names) -> None:
    session = unique("bound")
    sent = await http.post(
        f"/v1/sessions/{session}/turns",
        content=b'{"text": "a\\ud800b"}',
        headers={"content-type": "application/json"},
    )
    assert sent.status_code == 202, sent.text
    stored = (await http.get(f"/channels/{session}/messages")).json()
    assert [message["data"] for message in stored] == ["a\ufffdb"]


async def test_the_error_for_json_sent_as_a_form_names_the_header(
    http: httpx.AsyncClient, unique: Names
) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    refused = await http.post(
        f"/v1/sessions/{unique('bound')}/turns", content=b'{"text": "hi"}', headers=form
    )
    assert refused.status_code == 400
    assert "content-type: application/json" in refused.json()["error"]["message"]


async def test_msgpack_is_read_and_answered_by_all_of_it(http: httpx.AsyncClient, unique: Names) -> None:
    """The `request()` of the Ably SDKs speaks it by default, in browsers with the status in an envelope."""
    session = unique("bound")
    binary = {"content-type": "application/x-msgpack", "accept": "application/x-msgpack,application/json"}
    body = msgpack.packb({"clientId": "alice", "text": "hello"})
    accepted = await http.post(f"/v1/sessions/{session}/turns", content=body, headers=binary)
    assert (accepted.status_code, accepted.headers["content-type"]) == (202, "application/x-msgpack")
    turn = msgpack.unpackb(accepted.content)["turnId"]
    listed = await http.get(
        f"/v1/sessions/{session}/turns?envelope=msgpack", headers={"accept": binary["accept"]}
    )
    wrapped = msgpack.unpackb(listed.content)
    assert wrapped["statusCode"] == 200
    assert [item["turnId"] for item in wrapped["response"]["turns"]] == [turn]
    refused = await http.get(f"/v1/sessions/{session}/turns/none?envelope=json")
    assert (refused.status_code, refused.json()["statusCode"]) == (200, 404)
    assert refused.json()["response"]["error"]["code"] == 40400
    plain = await http.get(f"/v1/sessions/{session}/turns/none", headers={"accept": binary["accept"]})
    assert (plain.status_code, plain.json()["error"]["code"]) == (404, 40400)


@pytest.mark.parametrize("body", [b"\xc1", b"\x81\xa4text", b"{}"])
async def test_broken_msgpack_is_a_typed_error(http: httpx.AsyncClient, unique: Names, body: bytes) -> None:
    headers = {"content-type": "application/x-msgpack"}
    refused = await http.post(f"/v1/sessions/{unique('bound')}/turns", content=body, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, 40001)
