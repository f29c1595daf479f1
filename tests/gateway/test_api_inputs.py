"""The plain HTTP API for turns that exist, against a real gateway; the worker is this test."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")
Names = Callable[[str], str]


async def send(http: httpx.AsyncClient, session: str, **body: object) -> str:
    reply = await http.post(f"/v1/sessions/{session}/turns", json={"clientId": "alice", **body})
    assert reply.status_code == 202, reply.text
    return str(reply.json()["turnId"])


async def test_a_steer_is_taken_once(http: httpx.AsyncClient, unique: Names) -> None:
    session = unique("bound")
    turn = await send(http, session, text="hello")
    path = f"/v1/sessions/{session}/turns/{turn}/inputs"
    first, again = [(await http.post(path, json={"text": "more", "id": "s1"})).json() for _ in range(2)]
    assert first["turnId"] == turn and not first["repeated"]
    assert again == {**first, "repeated": True}


async def test_inputs_into_turns_that_are_over_or_unknown(http: httpx.AsyncClient, unique: Names) -> None:
    session = unique("bound")
    turn = await send(http, session, text="hello")
    await http.post(f"/v1/sessions/{session}/cancel", json={"turnId": turn})
    over = await http.post(f"/v1/sessions/{session}/turns/{turn}/inputs", json={"text": "more"})
    assert (over.status_code, over.json()["error"]["code"]) == (409, 40003)
    body = {"callId": "c", "output": 1, "messageId": "m"}
    over = await http.post(f"/v1/sessions/{session}/turns/{turn}/answers", json=body)
    assert (over.status_code, over.json()["error"]["code"]) == (409, 40003)
    unknown = await http.post(f"/v1/sessions/{session}/turns/nope/inputs", json={"text": "more"})
    assert unknown.status_code == 404
    no_call = await http.post(f"/v1/sessions/{session}/turns/{turn}/answers", json={"callId": "c"})
    assert no_call.status_code == 404


async def test_the_first_answer_wins_and_a_repeat_is_the_same(http: httpx.AsyncClient, unique: Names) -> None:
    session = unique("bound")
    turn = await send(http, session, text="hello")
    path = f"/v1/sessions/{session}/turns/{turn}/answers"
    body = {"callId": "c", "approved": True, "messageId": "m", "id": "a1"}
    first, again = [(await http.post(path, json=body)).json() for _ in range(2)]
    assert again == {**first, "repeated": True}
    lost = await http.post(path, json={**body, "approved": False, "id": "a2"})
    error = lost.json()["error"]
    assert (lost.status_code, error["detail"]["reason"]) == (409, "already_resolved")
    both = await http.post(path, json={**body, "output": 1})
    assert both.status_code == 400


async def test_dbl_8_the_queue_is_visible_and_can_be_changed(http: httpx.AsyncClient, unique: Names) -> None:
    session = unique("bound")
    turns = [await send(http, session, text=text, policy="queue") for text in ("one", "two", "three", "four")]
    path = f"/v1/sessions/{session}/queue"

    async def queue() -> list[str]:
        listed = (await http.get(path)).json()
        assert (listed["agents"], listed["queued"]) == (0, len(listed["turns"]))
        assert [item["position"] for item in listed["turns"]] == list(range(1, len(listed["turns"]) + 1))
        return [item["turnId"] for item in listed["turns"]]

    assert await queue() == turns[1:]
    one = (await http.get(f"/v1/sessions/{session}/turns/{turns[2]}")).json()
    assert (one["status"], one["queuePosition"]) == ("queued", 2)
    assert (await http.post(f"{path}/{turns[3]}/promote")).json() == {"promoted": True}
    assert (await http.post(f"{path}/{turns[3]}/promote")).json() == {"promoted": False}
    assert await queue() == turns[1:3]
    assert (await http.delete(f"{path}/{turns[1]}")).json()["matched"] == [turns[1]]
    assert await queue() == turns[2:3]
    assert (await http.delete(f"{path}/{turns[0]}")).status_code == 400
    assert (await http.delete(f"{path}/{turns[1]}")).status_code == 409
    assert (await http.delete(f"{path}/nope")).status_code == 404


async def test_pre_11_no_one_works_here(http: httpx.AsyncClient, unique: Names) -> None:
    session = unique("bound")
    await send(http, session, text="hello")
    listed = (await http.get(f"/v1/sessions/{session}/turns")).json()
    assert (listed["agents"], listed["queued"]) == (0, 1)
