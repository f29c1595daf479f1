"""The codec interface from end to end: an application's own, and the OpenAI codec of the JS SDK (SDK-5)."""

from __future__ import annotations

from typing import Any

import pytest

from selfhost_transport import ClientTransport, TurnStatus
from selfhost_transport.turns.chunks import Native, TextDelta
from selfhost_transport.turns.messages_openai import responses_input
from selfhost_transport.turns.ui import UIMessage
from tests.e2e.conftest import Build
from tests.e2e.poll import Poll, PollCodec
from tests.e2e.stage import PATIENCE_S, script, turn_id
from tests.processes import wait_until
from tests.worker.session import numbered

pytestmark = pytest.mark.asyncio(loop_scope="module")


def votes_in(messages: list[UIMessage]) -> list[dict[str, int]]:
    """What each answer came to."""
    return [dict(message.votes) for message in messages if isinstance(message, Poll) and message.votes]


async def test_sdk_5_a_codec_of_ones_own_on_client_worker_and_view(build: Build) -> None:
    stage = await build(gateways=1, workers=0)
    await stage.add_worker("tests.e2e.poll:worker")
    session = stage.session()
    async with stage.connect(session, codec=PollCodec()) as transport:
        turn = await transport.view.send("tea tea coffee")
        heard = [part.event["for"] async for part in turn.stream if isinstance(part, Native)]
        assert heard == ["tea", "tea", "coffee"]
        second = await transport.view.send("cocoa")
        await second.ended
        # The second vote for tea shows that the worker reads polls as well.
        expected = [{"tea": 2, "coffee": 1}, {"cocoa": 1, "tea": 1}]
        assert votes_in([item.message for item in transport.view.messages]) == expected
    async with stage.connect(session, "user-2", codec=PollCodec()) as late:
        assert votes_in([item.message for item in late.view.messages]) == expected


async def test_sdk_5_a_client_of_the_openai_codec_is_answered_in_it(build: Build) -> None:
    stage = await build(gateways=1)
    session = stage.session()
    async with (
        stage.connect(session, codec="openai-responses") as responses,
        stage.connect(session, "user-2") as plain,
    ):
        turn = await responses.view.send(script(5, 0, reasoning=2, tool="client"))
        await wait_until(lambda: turn.status is TurnStatus.SUSPENDED, PATIENCE_S)
        call = next(item for item in items(responses) if item["type"] == "function_call")
        await turn.answer_tool(responses.view.messages[-1].codec_message_id, call["call_id"], {"found": 1})
        text = [part.delta async for part in turn.stream if isinstance(part, TextDelta)]
        assert "".join(text) == turn.text == numbered(5)
        kinds = [item["type"] for item in items(responses)]
        assert kinds == ["message", "reasoning", "function_call", "function_call_output", "message"]
        # Someone with the default codec reads the same conversation as parts.
        seen = plain.turn(turn_id(turn))
        await seen.ended
        assert seen.text == numbered(5)


def items(client: ClientTransport) -> list[dict[str, Any]]:
    """The input of a Responses request for what the client shows."""
    return responses_input(item.message for item in client.view.messages)
