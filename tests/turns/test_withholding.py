"""Which messages count as reasoning and which as tool traffic, in both codecs (COT-4, TOL-13)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from selfhost_transport.turns.headers import make_extras, read_headers
from selfhost_transport.turns.withholding import (
    NOTHING,
    Hidden,
    Traffic,
    hidden_from,
    is_hidden,
    shown,
    traffic_of,
)
from selfhost_transport.wire.capability import Capability
from selfhost_transport.wire.message import Message
from tests.turns.transcripts import VERCEL, load_all

REASONING: Hidden = frozenset({Traffic.REASONING})
TOOLS: Hidden = frozenset({Traffic.TOOLS})
EVERYTHING: Hidden = frozenset(Traffic)
RECORDED = {
    VERCEL: {
        "reasoning": REASONING,
        "tool-approval-request": TOOLS,
        "tool-approval-response": TOOLS,
        "tool-input": TOOLS,
        "tool-input-error": TOOLS,
        "tool-output-available": TOOLS,
        "tool-output-denied": TOOLS,
        "tool-output-error": TOOLS,
        "tool-result": TOOLS,
        "tool-result-error": TOOLS,
    },
    "openai-responses": {
        "reasoning_summary_text": REASONING,
        "function_call_arguments": TOOLS,
        "function_call_output": TOOLS,
        "tool-approval-request": TOOLS,
        "tool-approval-response": TOOLS,
        "tool-result": TOOLS,
        "tool-result-error": TOOLS,
    },
}


def item(payload: Any, kind: str = "response.output_item.done") -> Message:
    data = payload if isinstance(payload, str | None) else orjson.dumps(payload).decode()
    return Message(name="ai-output", data=data, encoding="json", extras=make_extras({}, {"kind": kind}))


@pytest.mark.parametrize("codec", RECORDED)
def test_every_kind_the_sdk_writes(codec: str) -> None:
    found: dict[str, Hidden] = {}
    for transcript in load_all(codec):
        for message in transcript.live():
            headers = read_headers(message)
            if headers is not None and not headers.kind.startswith("response.output_item."):
                found[headers.kind] = traffic_of(message)
    assert {kind: traffic for kind, traffic in found.items() if traffic} == RECORDED[codec]
    assert found["user-message"] == NOTHING


@pytest.mark.parametrize(
    ("payload", "traffic"),
    [
        ({"item": {"type": "message", "content": []}}, NOTHING),
        ({"item": {"type": "reasoning", "encrypted_content": "…"}}, REASONING),
        ({"item": {"type": "function_call"}}, TOOLS),
        ({"item": {"type": "function_call_output"}}, TOOLS),
        ({"item": {"type": "web_search_call"}}, EVERYTHING),
        ({"item": None}, EVERYTHING),
        ({}, EVERYTHING),
        ("{not json", EVERYTHING),
        (None, EVERYTHING),
    ],
)
def test_items_of_the_responses_api_by_their_type_and_unreadable_ones_as_everything(
    payload: Any, traffic: Hidden
) -> None:
    assert traffic_of(item(payload)) == traffic


@pytest.mark.parametrize(
    "extras",
    [None, {}, {"ai": "x"}, {"ai": {}}, {"ai": {"codec": {}}}, {"ai": {"codec": {"kind": 7}}}],
)
def test_messages_of_others_are_nobodys_traffic(extras: dict[str, Any] | None) -> None:
    assert traffic_of(Message(name="n", data="reasoning", extras=extras)) == NOTHING


@pytest.mark.parametrize(
    ("rights", "hidden"),
    [
        ('{"*":["*"]}', NOTHING),
        ('{"*":["subscribe","publish","history"]}', EVERYTHING),
        ('{"*":["subscribe","reasoning-subscribe"]}', TOOLS),
        ('{"*":["subscribe"],"a:*":["reasoning-subscribe","tools-subscribe"]}', NOTHING),
        ('{"*":["subscribe"],"b:*":["*"]}', EVERYTHING),
    ],
)
def test_who_gets_what(rights: str, hidden: Hidden) -> None:
    capability = Capability.parse(rights)
    assert hidden_from(capability, "a:1", Traffic) == hidden
    assert hidden_from(capability, "a:1", ()) == NOTHING
    key = Capability.parse('{"*":["subscribe","tools-subscribe"]}')
    assert Traffic.REASONING in hidden_from(capability.intersect(key), "a:1", Traffic)


def test_a_reader_from_whom_nothing_is_hidden_is_not_asked_about() -> None:
    thought = Message(extras=make_extras({}, {"kind": "reasoning"}))
    assert shown(NOTHING) is None
    assert not is_hidden(thought, NOTHING)
    visible = shown(REASONING)
    assert visible is not None and not visible(thought) and visible(Message(data="x"))
