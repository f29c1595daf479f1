"""Who may end, promote or withdraw whose turn, and learn of it: rights and ownership at every door."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from selfhost_transport.turns import headers as h
from tests.gateway.raw import ACK, NACK, Map, client
from tests.gateway.tokens import token

pytestmark = pytest.mark.asyncio(loop_scope="module")
Names = Callable[[str], str]
SENDER = '{"*":["subscribe","publish","turn-start"]}'


def sender(url: str, client_id: str | None, rights: str = SENDER) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {token(rights=rights, client_id=client_id)}"}
    return httpx.AsyncClient(base_url=url, headers=headers)


async def started(http: httpx.AsyncClient, session: str, **body: str) -> str:
    turn: str = (await http.post(f"/v1/sessions/{session}/turns", json={"text": "x", **body})).json()[
        "turnId"
    ]
    return turn


def fork(turn: str) -> Map:
    transport = {h.ROLE: "assistant", h.CODEC_MESSAGE_ID: f"copy-{turn}", h.SUPERSEDES: turn}
    return {
        "name": h.AI_INPUT,
        "extras": {"ai": {"transport": transport, "codec": {"kind": "tool-result", "toolCallId": "c"}}},
    }


@pytest.mark.parametrize("client_id", ["ann", "eve", None])
async def test_a_running_turn_is_not_superseded_without_the_right_to_cancel(
    url: str, unique: Names, client_id: str | None
) -> None:
    session = unique("bound")
    async with (
        sender(url, "ann") as owner,
        client(url, key="", access_token=token(rights=SENDER, client_id=client_id)) as raw,
    ):
        turn = await started(owner, session)
        answer = await raw.publish(session, fork(turn))
        assert (answer["action"], answer["error"]["code"]) == (NACK, 40160)
        assert (await owner.get(f"/v1/sessions/{session}/turns/{turn}")).json()["status"] == "pending"
        listed = (await owner.get(f"/v1/sessions/{session}/turns")).json()["turns"]
        assert len(listed) == 1, "nothing of the refused send is left"


async def test_the_right_to_cancel_is_enough_to_supersede(url: str, unique: Names) -> None:
    session = unique("bound")
    async with sender(url, "ann") as owner, client(url, clientId="boss") as raw:
        turn = await started(owner, session)
        answer = await raw.publish(session, fork(turn))
        assert (answer["action"], answer["res"][0]["turn"]["interrupted"]) == (ACK, [turn])


async def test_waiting_turns_are_moved_by_their_owner(url: str, unique: Names) -> None:
    session = unique("bound")
    async with (
        sender(url, "ann") as owner,
        sender(url, "eve") as stranger,
        sender(url, None) as anonymous,
        sender(url, "boss", '{"*":["*"]}') as boss,
    ):
        await started(owner, session)
        waiting = [await started(owner, session, policy="queue") for _ in range(3)]
        path = f"/v1/sessions/{session}/queue"
        for caller in (stranger, anonymous):
            refused = await caller.post(f"{path}/{waiting[0]}/promote")
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, 40160)
        assert (await owner.get(path)).json()["queued"] == 3
        assert (await owner.post(f"{path}/{waiting[0]}/promote")).json() == {"promoted": True}
        assert (await boss.post(f"{path}/{waiting[1]}/promote")).json() == {"promoted": True}
        # Withdrawing is cancelling: without the right nothing learns of any turn, its owner's own included.
        for caller in (owner, stranger):
            for turn in (waiting[0], waiting[2], "no-such-turn"):
                refused = await caller.delete(f"{path}/{turn}")
                assert (refused.status_code, refused.json()["error"]["code"]) == (401, 40160)
        assert (await boss.delete(f"{path}/{waiting[2]}")).json()["matched"] == [waiting[2]]


async def test_promoting_keeps_to_the_namespaces_limit(url: str, unique: Names) -> None:
    session = unique("limited")
    async with sender(url, "ann") as owner:
        await started(owner, session)
        waiting = await started(owner, session)
        refused = await owner.post(f"/v1/sessions/{session}/queue/{waiting}/promote")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, 40900)
        assert (await owner.get(f"/v1/sessions/{session}/queue")).json()["queued"] == 1
