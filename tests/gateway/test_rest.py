"""The protocol's REST (protocol section 9), against a real process."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from urllib.parse import parse_qsl, quote

import httpx
import pytest
import pytest_asyncio

from selfhost_transport.wire.codec import Format, pack, unpack
from selfhost_transport.wire.tokens import TokenRequest
from tests.gateway.basic_auth import basic
from tests.gateway.raw import KEY, Map, client

pytestmark = pytest.mark.asyncio(loop_scope="module")
Names = Callable[[str], str]
NAME, SECRET = KEY.split(":")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, headers=basic(KEY)) as opened:
        yield opened


def path_of(channel: str) -> str:
    return f"/channels/{quote(channel, safe='')}/messages"


async def published(http: httpx.AsyncClient, channel: str, *messages: Map) -> list[str]:
    response = await http.post(path_of(channel), json=list(messages))
    assert response.status_code == 201, response.text
    serials: list[str] = response.json()["serials"]
    return serials


async def test_time_needs_no_credentials_and_follows_accept(http: httpx.AsyncClient) -> None:
    assert (await http.get("/time", headers={"Authorization": ""})).json()[0] > 0
    packed = await http.get("/time", headers={"Accept": "application/x-msgpack"})
    assert packed.headers["content-type"] == "application/x-msgpack"
    assert unpack(packed.content, Format.MSGPACK)[0] > 0


@pytest.mark.parametrize("channel", ["a b/c", "späß", "plus+sign", "line\nbreak"])
async def test_names_survive_the_path(http: httpx.AsyncClient, channel: str) -> None:
    response = await http.post(path_of(f"plain:{channel}"), json={"data": "x"})
    if "\n" in channel:
        assert (response.status_code, response.json()["error"]["code"]) == (400, 40010)
    else:
        assert response.json()["channel"] == f"plain:{channel}"


async def test_publishing_the_same_ids_twice_is_publishing_once(
    http: httpx.AsyncClient, unique: Names
) -> None:
    channel = unique("plain")
    messages = [{"id": "base:0", "data": "a"}, {"id": "base:1", "data": "b"}]
    first, second = [await http.post(path_of(channel), json=messages) for _ in range(2)]
    assert first.json() == second.json()
    assert first.json()["messageId"] == "base:0"
    assert len((await http.get(path_of(channel))).json()) == 2


async def test_pages_are_linked_in_both_directions(http: httpx.AsyncClient, unique: Names) -> None:
    channel = unique("plain")
    for number in range(5):
        await published(http, channel, {"data": str(number)})
    for direction, expected in (("backwards", "43210"), ("forwards", "01234")):
        params: dict[str, str] = {"limit": "2", "direction": direction}
        seen = ""
        while True:
            page = await http.get(path_of(channel), params=params)
            seen += "".join(message["data"] for message in page.json())
            links = page.headers.get_list("link")
            following = [link for link in links if 'rel="next"' in link]
            if not following:
                break
            found = re.fullmatch(r'<\./(\w+)\?(.*)>; rel="next"', following[0])
            assert found is not None
            assert found[1] == "messages"
            params = dict(parse_qsl(found[2]))
        assert seen == expected


async def test_history_up_to_an_attach_point(http: httpx.AsyncClient, url: str, unique: Names) -> None:
    channel = unique("plain")
    await published(http, channel, {"data": "before"})
    async with client(url) as raw:
        await raw.next()
        position = (await raw.attach(channel))["channelSerial"]
    await published(http, channel, {"data": "after"})
    page = await http.get(path_of(channel), params={"from_serial": position})
    assert [message["data"] for message in page.json()] == ["before"]


async def test_a_message_and_its_versions(http: httpx.AsyncClient, unique: Names) -> None:
    channel = unique("plain")
    serial = (await published(http, channel, {"name": "n", "data": "a"}))[0]
    one = f"{path_of(channel)}/{quote(serial, safe='')}"
    appended = await http.patch(one, json={"action": 5, "data": "b"})
    assert appended.json()["versionSerial"] > serial
    await http.patch(one, json={"data": "X", "version": {"description": "why"}})
    message = (await http.get(one)).json()
    assert (message["action"], message["name"], message["data"]) == (1, "n", "X")
    assert message["version"]["description"] == "why"
    versions = (await http.get(f"{one}/versions")).json()
    assert [(version["action"], version["data"]) for version in versions] == [(0, "a"), (1, "X")]
    missing = f"{path_of(channel)}/00000000000001-000%40aaaaaaaaaa%3A000"
    assert (await http.get(missing)).json()["error"]["code"] == 40400
    assert (await http.patch(missing, json={"data": "x"})).status_code == 404


async def test_errors_are_json_with_headers(http: httpx.AsyncClient, unique: Names) -> None:
    response = await http.post(
        path_of(unique("plain")), json={"data": 5}, headers={"Accept": "application/x-msgpack"}
    )
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-ably-errorcode"] == "40013"
    assert response.json()["error"]["statusCode"] == 400


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Authorization": ""}, 401, 40101),
        (basic("app.key:wrong"), 401, 40101),
        (basic("app.other:x"), 401, 40400),
        (basic("else.other:x"), 404, 40400),
        ({"Authorization": "Bearer a.b.c"}, 401, 40144),
        ({"Authorization": "Bearer nonsense"}, 401, 40101),
        ({"Authorization": "Basic nonsense"}, 401, 40101),
        (basic("nonsense"), 401, 40101),
    ],
)
async def test_credentials(http: httpx.AsyncClient, headers: dict[str, str], status: int, code: int) -> None:
    response = await http.get("/channels/plain/messages", headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


async def test_rights_are_checked_per_operation(http: httpx.AsyncClient, unique: Names) -> None:
    reader, channel = basic("app.reader:reader"), unique("plain")
    assert (await http.get(path_of(channel), headers=reader)).status_code == 200
    refused = await http.post(path_of(channel), json={"data": "x"}, headers=reader)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, 40160)


async def test_a_signed_token_request_works_once(http: httpx.AsyncClient, url: str, unique: Names) -> None:
    now = (await http.get("/time")).json()[0]
    unsigned = TokenRequest(
        NAME, capability='{"plain:*": ["subscribe"]}', client_id="eve", timestamp=str(now), nonce="n" * 16
    )
    body = {**unsigned.to_wire(), "mac": unsigned.compute_mac(SECRET)}
    path, anonymous = f"/keys/{NAME}/requestToken", {"Authorization": ""}
    response = await http.post(path, json=body, headers=anonymous)
    details = response.json()
    assert (response.status_code, details["capability"]) == (201, '{"plain:*":["subscribe"]}')
    again = await http.post(path, json=body, headers=anonymous)
    assert again.json()["error"]["code"] == 40105
    # Uniqueness is that of nonce and time together.
    later = replace(unsigned, timestamp=str(now + 1))
    signed = {**later.to_wire(), "mac": later.compute_mac(SECRET)}
    assert (await http.post(path, json=signed, headers=anonymous)).status_code == 201
    async with client(url, Format.JSON, key="", access_token=details["token"]) as raw:
        connected = await raw.next()
        assert connected["connectionDetails"]["clientId"] == "eve"
        refused = await raw.publish(unique("plain"), {"data": "x"})
        assert refused["error"]["code"] == 40160


async def test_a_token_of_all_rights_of_a_key_names_them_in_the_order_of_the_key(
    http: httpx.AsyncClient,
) -> None:
    response = await http.post("/keys/app.reader/requestToken", json={}, headers=basic("app.reader:reader"))
    assert response.json()["capability"] == '{"*":["subscribe","history"]}'


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/time", 200),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/", 200),
        ("/channels/plain:head/messages", 200),
        ("/v1/sessions/plain:head/messages", 200),
        ("/v1/sessions/plain:head/events", 200),
        ("/nothing/here", 404),
    ],
)
async def test_head_answers_as_get_does_without_the_body(
    http: httpx.AsyncClient, path: str, status: int
) -> None:
    head = await http.head(path)
    assert (head.status_code, head.content) == (status, b"")
    async with http.stream("GET", path) as got:
        assert got.status_code == status
        assert head.headers["content-type"] == got.headers["content-type"]


async def test_idle_connections_are_kept_open_and_that_is_announced(http: httpx.AsyncClient) -> None:
    for path in ("/time", "/healthz", "/nothing/here"):
        assert (await http.get(path)).headers["keep-alive"] == "timeout=115"


async def test_a_key_may_ask_for_a_token_of_all_its_rights(http: httpx.AsyncClient) -> None:
    response = await http.post(f"/keys/{NAME}/requestToken", json={"keyName": NAME, "ttl": 60_000})
    details = response.json()
    assert details["capability"] == '{"*":["*"]}'
    assert details["expires"] - details["issued"] == 60_000
    bearer = {"Authorization": "Bearer " + base64.b64encode(details["token"].encode()).decode()}
    assert (await http.get("/channels/plain/messages", headers=bearer)).status_code == 200


async def test_envelope_and_msgpack(http: httpx.AsyncClient, unique: Names) -> None:
    channel = unique("plain")
    body = pack([{"data": b"\x01\x02"}], Format.MSGPACK)
    response = await http.post(
        path_of(channel), content=body, headers={"Content-Type": "application/x-msgpack"}
    )
    assert response.status_code == 201
    wrapped = (await http.get(path_of(channel), params={"envelope": "json", "rnd": "1"})).json()
    assert wrapped["statusCode"] == 200
    assert wrapped["response"][0]["data"] == "AQI="
    assert "rnd" not in wrapped["headers"]["link"]


async def test_batch_reports_each_channel(http: httpx.AsyncClient, unique: Names) -> None:
    good = unique("plain")
    body = {"channels": [good, ":bad"], "messages": {"data": "x"}}
    result = (await http.post("/messages", json=body)).json()
    assert (result["successCount"], result["failureCount"]) == (1, 1)
    assert result["results"][1]["error"]["code"] == 40010


@pytest.mark.parametrize("fmt", Format)
async def test_a_batch_of_version_2_is_flat_and_fails_as_a_whole(
    http: httpx.AsyncClient, unique: Names, fmt: Format
) -> None:
    types = {Format.JSON: "application/json", Format.MSGPACK: "application/x-msgpack"}
    headers = {"X-Ably-Version": "2", "Accept": types[fmt], "Content-Type": types[fmt]}
    one, two = unique("plain"), unique("plain")

    async def batch(*channels: str) -> httpx.Response:
        body = pack({"channels": list(channels), "messages": {"data": "x"}}, fmt)
        return await http.post("/messages", content=body, headers=headers)

    done = await batch(one, two)
    assert done.status_code == 201
    assert [result["channel"] for result in unpack(done.content, fmt)] == [one, two]
    partly = await batch(one, ":bad", two)
    assert (partly.status_code, partly.headers["x-ably-errorcode"]) == (400, "40020")
    assert partly.headers["content-type"] == "application/json"
    answer = partly.json()
    assert answer["error"]["code"] == 40020
    assert [result.get("error", {}).get("code") for result in answer["batchResponse"]] == [None, 40010, None]


async def test_unknown_paths_are_404_in_the_usual_shape(http: httpx.AsyncClient) -> None:
    for method, path in (("GET", "/push/x"), ("DELETE", "/channels/plain"), ("POST", "/time")):
        response = await http.request(method, path)
        assert (response.status_code, response.json()["error"]["code"]) == (404, 40400)


async def test_browsers_may_ask_from_anywhere(http: httpx.AsyncClient) -> None:
    origin = {"Origin": "https://app.example"}
    preflight = await http.options("/channels/plain/messages", headers=origin)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    response = await http.get("/time", headers=origin)
    assert "X-Ably-Errorcode" in response.headers["access-control-expose-headers"]
    assert "X-Workflow-Run-Id" in response.headers["access-control-expose-headers"]


async def test_operations(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    assert (await http.get("/readyz")).json() == {"status": "ok"}
    assert "sht_gateway_connections" in (await http.get("/metrics")).text
    assert (await http.get("/config.json")).status_code == 404
    assert "<div id=" in (await http.get("/")).text


@pytest.mark.parametrize(
    ("path", "headers", "words"),
    [
        ("/push/deviceRegistrations", {}, "push notifications are not part of this service"),
        ("/channels/a/messages", basic("xVLyHw.abcdef:from-the-cloud"), r"use one of \[\[keys\]\]"),
        (
            "/channels/a/messages",
            {"Authorization": "Bearer xVLyHw.AFromTheCloud"},
            "issue tokens with one of its own",
        ),
        (f"/channels/a/messages?access_token={KEY}", {"Authorization": ""}, "an API key is given as `key`"),
    ],
)
async def test_what_worked_in_the_cloud_alone_names_the_remedy(
    http: httpx.AsyncClient, path: str, headers: dict[str, str], words: str
) -> None:
    error = (await http.get(path, headers=headers)).json()["error"]
    assert re.search(words, error["message"])
