"""A question that its sender has deleted: live, late, over HTTP, and for the model."""

from __future__ import annotations

import json

import httpx
import pytest

from selfhost_transport.client import ClientTransport
from tests.e2e.stage import KEY, Stage
from tests.processes import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")


def shown(client: ClientTransport) -> list[dict[str, object]]:
    return [item.to_json() for item in client.view.messages]


async def test_a_deleted_question_is_the_same_forevery_reader(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as alice, stage.connect(session, "user-2", gateway=1) as bob:
        for number in range(3):
            await (await alice.view.send(f"script: say=answer-{number}")).ended
        await wait_until(lambda: len(shown(bob)) == 6)
        page = await alice.history(limit=100)
        question = [m for m in page.messages if m.name == "ai-input"][1]
        base, (name, secret) = stage.gateways[0].url, KEY.split(":")
        async with httpx.AsyncClient(base_url=base, auth=(name, secret)) as http:
            path = f"/channels/{session}/messages/{question.serial}"
            (
                await http.patch(path, json={"action": 2}, headers={"X-Ably-ClientId": "user-1"})
            ).raise_for_status()
            await wait_until(lambda: shown(bob)[2].get("deleted") and shown(alice) == shown(bob))
            async with stage.connect(session, "user-3", gateway=1) as late:
                assert shown(late) == shown(alice)
                reply = await http.get(f"/v1/sessions/{session}/messages")
                assert reply.json()["messages"] == shown(late)
                turn = await late.view.send("script: echo_context=1")
                await turn.ended
        given = json.loads(turn.text)
        assert len(given) == 6
        assert "answer-1" in json.dumps(given) and "say=answer-1" not in json.dumps(given)
