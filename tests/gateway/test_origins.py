"""A web page cannot use what its visitor's browser adds by itself: cookies, a proxy's word, or being on this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.auth.authenticator import Authenticator
from gateway.auth.callers import HostIdentity, RequestInfo
from gateway.auth.origins import Origins
from selfhost_transport.errors import TransportError
from selfhost_transport.settings import GatewaySettings, KeyRule, ProxyRule, Settings
from selfhost_transport.wire.codec import Format
from tests.gateway.raw import CONNECTED, ERROR, RawClient
from tests.processes import Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")
DEV_KEY = ("dev.local", "development-secret")
EVIL = "https://evil.example"
FRIEND = "https://chat.example.com"
GATEWAY = {"allowed_origins": (FRIEND,), "allowed_hosts": ("my.lan",)}
PROXY = ProxyRule(addresses=("10.0.0.0/8",), header="X-User")
KEY = KeyRule.model_validate({"name": "app.key", "secret": "s"})


def local(client: str | None = "127.0.0.1", **headers: str) -> bool:
    given = {"host": "127.0.0.1:8080"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return Origins(GatewaySettings(**GATEWAY)).is_local(client, given)  # type: ignore[arg-type]


async def test_what_counts_as_this_machine() -> None:
    assert (
        local() and local(host="localhost:8080") and local(host="[::1]:8080") and local(host="app.localhost")
    )
    assert local(origin="http://127.0.0.1:8080") and local(origin="http://localhost:3000")
    assert local(origin="http://[::1]:5173") and local(origin=FRIEND) and local(host="my.lan:8080")
    assert local(sec_fetch_site="none") and local(sec_fetch_site="same-origin")
    # Another machine, by address or by what a proxy says.
    assert not local("192.0.2.1") and not local(x_real_ip="192.0.2.1") and not local(via="1.1 proxy")
    assert not local(forwarded="for=192.0.2.1") and not local(x_forwarded_host="chat.example.com")
    # Another page; a name of its own that points here; one that looks like this machine.
    for origin in (
        EVIL,
        "null",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example:8080",
        "file://",
    ):
        assert not local(origin=origin), origin
    for host in ("evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example"):
        assert not local(host=host, origin=f"http://{host}"), host
    assert not local(sec_fetch_site="cross-site")


@pytest.mark.parametrize(
    ("origin", "host", "foreign"),
    [
        (None, "chat.example.com", False),
        ("https://chat.example.com", "chat.example.com", False),
        ("https://chat.example.com", "chat.example.com:443", False),
        ("http://chat.example.com:8080", "chat.example.com:8080", False),
        (FRIEND, "api.example.com", False),
        ("https://CHAT.example.com", "api.example.com", False),
        ("https://chat.example.com:8443", "chat.example.com", True),
        ("https://example.com", "chat.example.com", True),
        (EVIL, "chat.example.com", True),
        ("null", "chat.example.com", True),
        ("", "", True),
    ],
)
async def test_which_pages_are_foreign(origin: str | None, host: str, foreign: bool) -> None:
    headers = {"host": host} | ({} if origin is None else {"origin": origin})
    assert Origins(GatewaySettings(**GATEWAY)).is_foreign(headers) is foreign  # type: ignore[arg-type]


async def test_a_proxys_word_counts_for_own_and_allowed_pages_only() -> None:
    settings = Settings(
        trusted_proxies=(PROXY,), keys=(KEY,), gateway=GatewaySettings(allowed_origins=(FRIEND,))
    )
    authenticator = Authenticator(settings)

    async def caller(origin: str | None, **query: str) -> str | None:
        headers = {"x-user": "ann", "host": "api.example.com"} | ({"origin": origin} if origin else {})
        info = RequestInfo("/", headers, query, "10.0.0.1", "192.0.2.7")
        return (await authenticator.of_connection(info)).identity.client_id

    for origin in (None, FRIEND, "https://api.example.com"):
        assert await caller(origin) == "ann"
    for origin in (EVIL, "null"):
        with pytest.raises(TransportError, match="may not use the proxy's authentication"):
            await caller(origin)
    # What the page itself knows counts from anywhere, as that and no more.
    assert await caller(EVIL, key="app.key:s", clientId="bob") == "bob"
    with pytest.raises(TransportError):
        await caller(EVIL, key="app.key:wrong")


async def test_a_hook_is_not_shown_the_cookies_that_a_foreign_page_makes_the_browser_send() -> None:
    seen: list[RequestInfo] = []

    async def identify(info: RequestInfo) -> HostIdentity | None:
        seen.append(info)
        user = info.headers.get("cookie") or info.headers.get("x-user") or info.token
        return HostIdentity(user) if user else None

    authenticator = Authenticator(Settings(gateway=GatewaySettings(allowed_origins=(FRIEND,))), identify)

    async def caller(origin: str, token: str | None = None) -> str | None:
        headers = {"cookie": "ann", "x-user": "ann", "origin": origin, "host": "api.example.com"}
        info = RequestInfo("/", headers, {}, "10.0.0.1", "10.0.0.1", token)
        for ask in (authenticator.of_connection, authenticator.of_request):
            found = await ask(info)
        return found.identity.client_id

    assert await caller(FRIEND) == await caller("https://api.example.com") == "ann"
    for token in (None, ""):
        with pytest.raises(TransportError):
            await caller(EVIL, token)
    assert await caller(EVIL, "the page's own") == "the page's own"
    assert not [info for info in seen if info.headers["origin"] == EVIL and "cookie" in info.headers]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def dev(site: Stack) -> str:
    return (await site.gateway(env={"SELFHOST_TRANSPORT_DEV": "1"})).url


@pytest_asyncio.fixture(loop_scope="module")
async def http(dev: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=dev, auth=DEV_KEY) as opened:
        yield opened


def cors(response: httpx.Response) -> tuple[str | None, str | None]:
    found = response.headers
    return found.get("access-control-allow-origin"), found.get("access-control-allow-credentials")


async def test_the_development_key_is_refused_to_foreign_pages(http: httpx.AsyncClient) -> None:
    for headers in (
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"X-Real-IP": "192.0.2.1"},
    ):
        for request in (
            http.get("/v1/sessions/s/messages", headers=headers),
            http.get("/v1/sessions/s/events", headers=headers),
            http.post("/channels/s/messages", headers={**headers, "content-type": "text/plain"}, content=b'{"data":"x"}'),
            http.get("/channels/s/messages", headers=headers, params={"key": ":".join(DEV_KEY)}, auth=None),
            http.post("/keys/dev.local/requestToken", headers=headers, json={"timestamp": 1}),
            http.post("/keys/dev.local/revokeTokens", headers=headers, json={"targets": ["clientId:x"]}),
            http.get("/metrics", headers=headers, auth=None),
            http.get("/docs", headers=headers, auth=None),
            http.get("/openapi.json", headers=headers, auth=None),
        ):  # fmt: skip
            response = await request
            assert response.status_code == 401, (response.request.url, headers)
            assert cors(response) == (None, None)
        config = await http.get("/config.json", headers=headers, auth=None)
        assert (config.status_code, "development" in config.text) == (404, False)
        assert cors(config) == (None, None)
    assert (await http.get("/channels/s/messages")).json() == [], "nothing of it was stored"


async def test_the_configuration_of_the_page_never_leaves_through_cors(http: httpx.AsyncClient) -> None:
    for origin in ("http://localhost:3000", EVIL):
        config = await http.get("/config.json", headers={"Origin": origin})
        assert (config.status_code, cors(config)) == (404, (None, None))
    own = await http.get("/config.json", headers={"Sec-Fetch-Site": "same-origin"})
    assert own.json()["key"] == ":".join(DEV_KEY)
    assert (cors(own), own.headers["cross-origin-resource-policy"]) == ((None, None), "same-origin")


async def test_a_front_end_on_this_machine_may_use_it(http: httpx.AsyncClient, dev: str) -> None:
    for origin in ("http://localhost:3000", "http://127.0.0.1:5173"):
        response = await http.get("/channels/s/messages", headers={"Origin": origin})
        assert (response.status_code, cors(response)) == (200, (origin, "true"))
        assert (await _connected(dev, origin))["action"] == CONNECTED


async def test_a_name_that_points_to_this_machine_is_not_answered(http: httpx.AsyncClient, dev: str) -> None:
    """DNS rebinding: the page is of the same origin then, by a name of its own."""
    host = f"evil.example:{httpx.URL(dev).port}"
    for path in ("/config.json", "/", "/channels/s/messages", "/metrics", "/static/app.js"):
        response = await http.get(path, headers={"Host": host, "Origin": f"http://{host}"})
        assert response.status_code == 403, path
        assert "allowed_hosts" in response.json()["error"]["message"]
    # An orchestrator asks by whatever address it knows.
    assert (await http.get("/healthz", headers={"Host": "10.1.2.3:8080"})).status_code == 200
    with pytest.raises(InvalidStatus):
        await _connected(dev, f"http://{host}", host)


async def _connected(url: str, origin: str, host: str | None = None) -> dict[str, Any]:
    """What a websocket of a page gets first."""
    address = url.replace("http://", "ws://") + f"/?v=6&format=json&key={':'.join(DEV_KEY)}"
    headers = {} if host is None else {"Host": host}
    async with connect(address, origin=origin, additional_headers=headers, compression=None) as websocket:  # type: ignore[arg-type]
        return await RawClient(websocket, Format.JSON).next()


async def test_a_connection_of_a_foreign_page_is_refused(http: httpx.AsyncClient, dev: str) -> None:
    for origin in (EVIL, "null"):
        first = await _connected(dev, origin)
        assert (first["action"], first["error"]["code"]) == (ERROR, 40101)
        # Without a websocket, too.
        asked = {"key": ":".join(DEV_KEY), "v": "6", "stream": "false", "format": "json"}
        comet = await http.get("/comet/connect", params=asked, headers={"Origin": origin}, auth=None)
        (first,) = comet.json()
        assert (first["action"], first["error"]["code"], cors(comet)) == (ERROR, 40101, (None, None))


PRODUCTION = """
[gateway]
allowed_origins = ["https://chat.example.com"]
allowed_hosts = ["api.example.com"]

[[keys]]
name = "app.key"
secret = "secret"

[[trusted_proxies]]
addresses = ["127.0.0.1"]
header = "X-User"

[[namespaces]]
id = "*"
agent = "assistant"
"""


async def test_cross_site_requests_do_not_act_as_the_proxys_user(site: Stack) -> None:
    url = (await site.gateway(config=PRODUCTION)).url
    user = {"X-User": "ann", "Host": "api.example.com"}
    send = b'{"name":"ai-input","data":"x","extras":{"ai":{"transport":{"codec-message-id":"m1"}}}}'
    async with httpx.AsyncClient(base_url=url, headers={**user, "content-type": "text/plain"}) as http:
        for origin in (EVIL, "null"):
            response = await http.post("/channels/s/messages", headers={"Origin": origin}, content=send)
            assert (response.status_code, response.json()["error"]["code"]) == (401, 40101)
            assert cors(response) == ("*", None)
        assert (await http.get("/v1/sessions/s/turns")).json()["turns"] == []
        friend = await http.post("/channels/s/messages", headers={"Origin": FRIEND}, content=send)
        assert (friend.status_code, cors(friend)) == (201, (FRIEND, "true"))
        strange = await http.get("/v1/me", headers={"Host": "evil.example"})
        assert (strange.status_code, strange.json()["error"]["code"]) == (403, 40300)
        preflight = await http.options("/channels/s/messages", headers={"Origin": EVIL})
        assert cors(preflight) == ("*", None)
        # Credentials of the page's own: Ably's SDK asks in the mode with credentials, as soon as there is a header.
        asked = {"Origin": EVIL, "Access-Control-Request-Headers": "authorization,content-type"}
        preflight = await http.options("/channels/s/messages", headers=asked)
        assert cors(preflight) == (EVIL, "true")
        own = await http.get("/v1/me", headers={"Origin": EVIL}, auth=("app.key", "secret"))
        assert (own.status_code, own.json()["clientId"], cors(own)) == (200, "*", (EVIL, "true"))


async def test_cross_site_requests_of_chat_pages_do_not_act_as_the_proxys_user(site: Stack) -> None:
    url = (await site.gateway(config=PRODUCTION)).url
    user = {"X-User": "ann", "Host": "api.example.com"}
    asked = {"message": {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}, "id": "t"}
    run = {"threadId": "t", "runId": "r", "messages": [{"id": "m2", "role": "user", "content": "hi"}]}
    # What a browser sends without asking first.
    plain = {"content-type": "text/plain;charset=UTF-8"}
    async with httpx.AsyncClient(base_url=url, headers=user) as http:
        turn = (await http.post("/v1/sessions/t/turns", json={"text": "mine"})).json()["turnId"]
        for origin in (EVIL, "null"):
            forged = {"Origin": origin}
            for answer in (
                await http.post("/v1/ui/t", json=asked, headers=forged),
                await http.post("/api/chat", json=asked, headers=forged),
                await http.post("/v1/ui/t/stop", headers=forged),
                await http.post("/api/chat/t/stop", json={"turnId": turn}, headers=forged),
                await http.get("/api/chat/t/messages", headers=forged),
                await http.get("/v1/ui/t/stream", headers=forged),
                await http.post("/v1/workflow/t", content=orjson.dumps(asked), headers=forged | plain),
                await http.get(f"/v1/workflow/t/{turn}/stream", headers=forged),
                await http.post("/v1/agui", json=run, headers=forged),
                await http.post("/v1/agui/connect", json=run, headers=forged),
                await http.post("/v1/agui/stop", json={"threadId": "t"}, headers=forged),
                await http.post("/v1/agui/agent/a/stop/t", headers=forged),
                await http.get("/v1/agui", params={"threadId": "t"}, headers=forged),
                await http.get("/v1/agui/info", headers=forged),
            ):
                assert (answer.status_code, cors(answer)) == (401, ("*", None)), answer.request.url
        # Reads without CORS, as by a script's element, have no origin.
        for path in ("/v1/ui/t/stream", "/api/chat/t/messages"):
            assert (await http.get(path, headers={"Sec-Fetch-Site": "cross-site"})).status_code == 401
        open_turns = (await http.get("/v1/sessions/t/turns")).json()["turns"]
        assert [one["turnId"] for one in open_turns] == [turn]
        stopped = await http.post("/v1/ui/t/stop", headers={"Origin": FRIEND})
        assert stopped.json()["matched"] == [turn]


async def test_the_page_runs_only_its_own_script_and_is_shown_in_no_other(http: httpx.AsyncClient) -> None:
    page = await http.get("/")
    policy = dict(rule.partition(" ")[::2] for rule in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
