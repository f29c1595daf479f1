"""Reading forward from any position by the plain HTTP API (HIS-12)."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tests.gateway.raw import Map

pytestmark = pytest.mark.asyncio(loop_scope="module")
Names = Callable[[str], str]


async def read(http: httpx.AsyncClient, session: str, **params: str | int) -> Map:
    found: Map = (await http.get(f"/v1/sessions/{session}/entries", params=params)).json()
    return found


async def publish(http: httpx.AsyncClient, session: str, *texts: str) -> list[str]:
    body = [{"name": "n", "data": text} for text in texts]
    serials: list[str] = (await http.post(f"/channels/{session}/messages", json=body)).json()["serials"]
    return serials


async def test_his_12_complete_and_ordered_from_any_position(http: httpx.AsyncClient, unique: Names) -> None:
    session = unique("plain")
    nothing = await read(http, session)
    assert (nothing["entries"], nothing["more"]) == ([], False)
    serials = [serial for n in range(10) for serial in await publish(http, session, f"{n}a", f"{n}b")]
    found, page = [], await read(http, session, after=nothing["next"], limit=7)
    while page["entries"]:
        found += page["entries"]
        page = await read(http, session, after=page["next"], limit=7)
    assert [entry["serial"] for entry in found] == serials
    assert [entry["data"] for entry in found] == [f"{n}{letter}" for n in range(10) for letter in "ab"]
    # A reader that has reached the end goes on from there.
    later = await publish(http, session, "later")
    assert [entry["serial"] for entry in (await read(http, session, after=page["next"]))["entries"]] == later
    # From inside a publish, and from a position: after all of that publish.
    assert (await read(http, session, after=serials[2]))["entries"][0]["serial"] == serials[3]
    assert (await read(http, session, after=serials[2].rpartition(":")[0]))["entries"][0][
        "serial"
    ] == serials[4]


async def test_messages_are_read_as_they_are_now(http: httpx.AsyncClient, unique: Names) -> None:
    session = unique("plain")
    (serial,) = await publish(http, session, "a")
    await http.patch(f"/channels/{session}/messages/{serial}", json={"action": 5, "data": "b"})
    (entry,) = (await read(http, session))["entries"]
    assert (entry["data"], entry["action"]) == ("ab", 1)


async def test_positions_of_other_sessions_and_nonsense_are_refused(
    http: httpx.AsyncClient, unique: Names
) -> None:
    one, other = unique("plain"), unique("plain")
    (serial,) = await publish(http, one, "a")
    await publish(http, other, "b")
    assert (await read(http, other, after=serial))["error"]["code"] == 90005
    assert (await read(http, one, after="nonsense"))["error"]["code"] == 40003
    reader = httpx.BasicAuth("app.reader", "reader")
    answer = await http.get(f"/v1/sessions/{one}/entries", auth=reader)
    assert len(answer.json()["entries"]) == 1
