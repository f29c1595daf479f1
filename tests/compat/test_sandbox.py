"""Applications on demand: what the SDKs' own suites ask for before they begin (protocol section 15)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.compat.sandbox import Sandbox, create_sandbox
from tests.gateway.raw import ATTACHED, CONNECTED, ERROR, client


@pytest.fixture
async def http(redis_url: str, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    sandbox = Sandbox(redis_url, tmp_path)
    transport = httpx.ASGITransport(create_sandbox(sandbox))
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as http:
        yield http
    await sandbox.close()


async def test_an_application_is_made_to_order_and_removed(http: httpx.AsyncClient) -> None:
    member = {"clientId": "client_json", "data": '{"a":1}', "encoding": "json"}
    body = {
        "keys": [{}, {"capability": '{"only":["subscribe"]}', "note": "kept"}],
        "namespaces": [{"id": "persisted", "persisted": True}],
        "channels": [{"name": "persisted:presence_fixtures", "presence": [member]}],
    }
    answer = await http.post("/apps", json=body)
    assert answer.status_code == 201
    app = answer.json()
    assert [key["capability"] for key in app["keys"]] == ['{"*":["*"]}', '{"only":["subscribe"]}']
    assert (app["keys"][1]["note"], app["namespaces"]) == ("kept", body["namespaces"])
    url = f"http://{app['endpoint']}:{app['port']}"
    async with client(url, key=app["keys"][1]["keyStr"]) as raw:
        assert (await raw.next())["action"] == CONNECTED
        assert (await raw.attach("only"))["action"] == ATTACHED
        assert (await raw.attach("other"))["action"] == ERROR
    async with httpx.AsyncClient(base_url=url, auth=tuple(app["keys"][0]["keyStr"].split(":"))) as rest:
        (found,) = (await rest.get("/channels/persisted:presence_fixtures/presence")).json()
        assert {name: found[name] for name in member} == member
        assert (await http.delete(f"/apps/{app['appId']}")).status_code == 204
        assert (await http.delete(f"/apps/{app['appId']}")).status_code == 204
        with pytest.raises(httpx.ConnectError):
            await rest.get("/time")


async def test_applications_do_not_see_each_other(http: httpx.AsyncClient) -> None:
    apps = [(await http.post("/apps", json={})).json() for _ in range(2)]
    logins = [tuple(app["keys"][0]["keyStr"].split(":")) for app in apps]
    urls = [f"http://127.0.0.1:{app['port']}/channels/same/messages" for app in apps]
    async with httpx.AsyncClient() as rest:
        assert (await rest.post(urls[0], json={"data": "x"}, auth=logins[0])).status_code == 201
        assert (await rest.get(urls[1], auth=logins[1])).json() == []
        assert (await rest.get(urls[1], auth=logins[0])).status_code in (401, 404)
    assert (await http.post("/stats", json=[])).status_code == 201
