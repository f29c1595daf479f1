"""The OpenAI Responses codec of the JS SDK, both ways, against its recorded sessions (protocol section 6; v60, v61)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import inputs
from selfhost_transport.turns.calls import CLOSED_CALL, answered_call
from selfhost_transport.turns.codecs import OPENAI
from selfhost_transport.turns.context import STEP_START_PLACEHOLDER, TurnContext, context_for_input
from selfhost_transport.turns.encoder import Close, Create, OutputOperation
from selfhost_transport.turns.inputs import OPENAI_INPUTS, InputIds
from selfhost_transport.turns.messages_openai import OpenAIMessage, responses_input
from selfhost_transport.turns.prompt import PartialAnswers, build_prompt
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui import FilePart, TextPart, UIMessage, messages_to_json
from selfhost_transport.turns.values import unpack
from selfhost_transport.turns.view import TreeView
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message, Version
from tests.turns.recorded_streams import flat, recorded_outputs
from tests.turns.transcripts import Transcript, context_of, load, load_all, transport

NAME = "openai-responses"
RECORDED = load_all(NAME)
CTX = TurnContext(
    session="s", turn_id="run", invocation_id="inv", agent_client_id="agent", step_id="inv-step-0"
)


def tree_of(messages: list[Message]) -> SessionTree:
    tree = SessionTree(codec=OPENAI)
    for message in messages:
        tree.apply(message)
    return tree


def shown(messages: list[Message]) -> tuple[Any, Any]:
    view = TreeView(tree_of(messages))
    return messages_to_json(view.messages()), [run.to_json() for run in view.runs()]


# Reading


@pytest.mark.parametrize("transcript", RECORDED, ids=lambda t: t.name)
def test_live_messages_give_the_recorded_view_and_runs(transcript: Transcript) -> None:
    assert shown(transcript.live()) == (transcript.raw["final_view"], transcript.raw["final_runs"])


@pytest.mark.parametrize("transcript", RECORDED, ids=lambda t: t.name)
def test_history_in_pages_of_every_size_gives_the_same(transcript: Transcript) -> None:
    history = transcript.history()
    for size in range(1, 31):
        paged: list[Message] = []
        for end in range(len(history), 0, -size):
            paged += history[max(0, end - size) : end]
        expected = transcript.raw["final_view"], transcript.raw["final_runs"]
        assert shown(paged) == expected, f"page size {size}"


@pytest.mark.parametrize(
    ("name", "messages_before", "trigger", "recorded"),
    [
        ("60", 1, "MSG-USER-1", 0),
        # Between its two model calls the agent asks again, now with the tool's output.
        ("60", 18, "MSG-USER-1", 1),
        # Only the prompt of the resume was recorded.
        ("61", 21, "MSG-ASST-1", 0),
    ],
)
def test_the_recorded_prompts(name: str, messages_before: int, trigger: str, recorded: int) -> None:
    transcript = load(name)
    tree = tree_of(transcript.live()[:messages_before])
    prompt = build_prompt(tree, trigger, partial_answers=PartialAnswers.DROP)
    found = [item for said in prompt for item in items(said.message)]
    assert found == transcript.raw["agent_prompts"][recorded]


def items(message: UIMessage) -> tuple[dict[str, Any], ...]:
    assert isinstance(message, OpenAIMessage)
    return message.items


def test_messages_read_like_any_other_too() -> None:
    answer = TreeView(tree_of(load("60").live())).messages()[-1].message
    assert (answer.text, answer.role) == ("21 degrees in Paris.", "assistant")


# Writing


def streams() -> list[Any]:
    return [
        pytest.param(transcript, stream, id=f"{transcript.name}-{stream['codecMessageId']}")
        for transcript in RECORDED
        for stream in transcript.raw["agent_streams"]
    ]


@pytest.mark.parametrize(("transcript", "stream"), streams())
def test_a_stream_of_events_becomes_the_recorded_messages(
    transcript: Transcript, stream: dict[str, Any]
) -> None:
    recorded = recorded_outputs(transcript, stream["codecMessageId"])
    encoder = OPENAI.encoder(
        context_of(recorded[0].message),
        stream["codecMessageId"],
        transport(recorded[0].message)["step-start-serial"],
    )
    ops = [op for event in stream["chunks"] for op in encoder.encode(OPENAI.chunk_from_json(event))]
    keys = {op.stream_key for op in ops if isinstance(op, Create) and op.stream_key}
    assert encoder.cancel() == []
    assert flat(ops, keys) == [
        {
            "op": "append" if operation.raw.get("name") is None else "publish",
            **({"name": operation.raw["name"]} if operation.raw.get("name") else {}),
            "data": operation.raw.get("data"),
            **({"encoding": operation.raw.get("encoding")} if operation.raw.get("name") else {}),
            "extras": json.dumps(operation.raw["extras"]),
        }
        for operation in recorded
    ]


def test_a_tool_output_sent_alone_is_the_recorded_message() -> None:
    (recorded,) = recorded_outputs(load("60"), "MSG-ASST-2")
    encoder = OPENAI.encoder(
        context_of(recorded.message),
        "MSG-ASST-2",
        transport(recorded.message)["step-start-serial"],
    )
    (op,) = encoder.encode(p.ToolOutputAvailable("call_1", {"celsius": 21}))
    assert isinstance(op, Create)
    assert (op.message.data, op.message.encoding) == (recorded.message.data, recorded.message.encoding)
    assert json.dumps(op.message.extras) == json.dumps(recorded.message.extras)


@pytest.mark.parametrize("transcript", RECORDED, ids=lambda t: t.name)
def test_inputs_are_the_recorded_ones(transcript: Transcript) -> None:
    for message in transcript.live():
        if message.name != h.AI_INPUT:
            continue
        headers = h.read_headers(message)
        assert headers is not None
        made = rebuilt(message, headers)
        assert (made.data, made.encoding) == (message.data, message.encoding)
        assert (made.extras or {})["ai"]["codec"] == (message.extras or {})["ai"]["codec"]
        # The SDK stamps a parent on answers; a peer of ours leaves it out (section 3.2, R).
        expected = {k: v for k, v in transport(message).items() if k != h.PARENT or not headers.run_id}
        assert json.dumps(transport(made)) == json.dumps(expected)


def rebuilt(message: Message, headers: h.Headers) -> Message:
    call, owner = headers.field("call_id") or "", headers.get(h.RUN_CLIENT_ID)
    target, run_id, event_id = headers.codec_message_id or "", headers.run_id or "", headers.event_id or ""
    payload: Any = unpack(message)
    match headers.kind:
        case inputs.USER_MESSAGE:
            ids = InputIds(target, event_id)
            (made,) = inputs.user_message(
                [TextPart(payload)], ids, client_id=owner, parent=headers.parent, form=OPENAI_INPUTS
            )
            return made
        case inputs.TOOL_RESULT:
            value = json.loads(payload["output"])
            return inputs.tool_result(
                target, run_id, call, value, event_id=event_id, client_id=owner, form=OPENAI_INPUTS
            )
        case inputs.TOOL_RESULT_ERROR:
            return inputs.tool_result_error(
                target, run_id, call, payload["message"], event_id=event_id, client_id=owner,
                form=OPENAI_INPUTS,
            )  # fmt: skip
        case _:
            approved, reason = headers.field("approved") == "true", headers.field("reason")
            return inputs.tool_approval_response(
                target, run_id, call, approved, event_id=event_id, client_id=owner, reason=reason,
                form=OPENAI_INPUTS,
            )  # fmt: skip


def test_a_message_in_this_codec_is_text() -> None:
    with pytest.raises(InvalidArgument):
        inputs.user_message([FilePart("u", "m")], InputIds(), client_id=None, form=OPENAI_INPUTS)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.audio.delta", "delta": "x"},
        {"type": "response.output_item.added", "item": {"type": "web_search_call", "id": "w"}},
        {"type": "response.output_item.added", "item": {"type": "function_call", "call_id": "c"}},
        {"type": "response.content_part.added", "item_id": "m", "part": {"type": "audio"}},
        {"type": "response.output_text.delta", "item_id": "m", "content_index": 0, "delta": "early"},
    ],
)
def test_what_cannot_be_carried_is_refused(event: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        OPENAI.encoder(CTX, "a", STEP_START_PLACEHOLDER).encode(OPENAI.chunk_from_json(event))


def test_log_probabilities_stand_where_their_part_stands() -> None:
    added = {"id": "m", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    probabilities = [{"token": "b", "logprob": -1.0}]
    done = [{"type": "refusal", "refusal": "a"}, {"type": "output_text", "logprobs": probabilities}]
    events = [
        {"type": "response.output_item.added", "item": added},
        *_part(0, {"type": "refusal", "refusal": ""}, "a"),
        *_part(1, {"type": "output_text", "text": ""}, "b"),
        {
            "type": "response.output_item.done",
            "item": {**added, "status": "completed", "content": done},
        },
    ]
    encoder = OPENAI.encoder(CTX, "a", STEP_START_PLACEHOLDER)
    written = written_as_messages(
        [op for event in events for op in encoder.encode(OPENAI.chunk_from_json(event))]
    )
    (message,) = TreeView(tree_of(written)).messages()
    assert items(message.message)[0]["content"] == [
        {"type": "refusal", "refusal": "a"},
        {"type": "output_text", "text": "b", "logprobs": probabilities},
    ]


def _part(index: int, part: dict[str, Any], text: str) -> list[dict[str, Any]]:
    at = {"item_id": "m", "output_index": 0, "content_index": index}
    kind = f"response.{part['type']}"
    return [
        {"type": "response.content_part.added", **at, "part": part},
        {"type": f"{kind}.delta", **at, "delta": text},
        {"type": f"{kind}.done", **at},
    ]


# An agent that knows nothing of the codec


def test_chunks_become_the_items_that_say_the_same() -> None:
    encoder = OPENAI.encoder(CTX, "a", STEP_START_PLACEHOLDER)
    chunks: list[p.Chunk] = [
        p.Start(), p.StartStep(),
        p.ReasoningStart("r"), p.ReasoningDelta("r", "hm"), p.ReasoningEnd("r"),
        p.ToolInputAvailable("c", "weather", {"city": "Paris"}), p.ToolApprovalRequest("c", "ap"),
        p.ToolOutputAvailable("c", {"celsius": 21}),
        p.TextStart("t"), p.TextDelta("t", "21 "), p.TextDelta("t", "degrees"), p.TextEnd("t"),
        p.FinishStep(), p.Finish(),
    ]  # fmt: skip
    messages = written_as_messages([op for chunk in chunks for op in encoder.encode(chunk)])
    (found,) = TreeView(tree_of(messages)).messages()
    message = found.message
    assert isinstance(message, OpenAIMessage)
    assert message.tool_call_states == {
        "c": {"approval": "pending", "name": "weather", "arguments": '{"city":"Paris"}'}
    }
    assert [{k: v for k, v in item.items() if k != "id"} for item in message.items] == [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {
            "type": "function_call", "status": "completed", "call_id": "c", "name": "weather",
            "arguments": '{"city":"Paris"}',
        },
        {"type": "function_call_output", "call_id": "c", "output": '{"celsius":21}'},
        {
            "type": "message", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": "21 degrees", "annotations": []}],
        },
    ]  # fmt: skip


def test_content_that_the_api_has_no_item_for_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        OPENAI.encoder(CTX, "a", STEP_START_PLACEHOLDER).encode(p.Data("data-x", 1))


def test_what_is_cut_off_is_closed_as_cancelled() -> None:
    encoder = OPENAI.encoder(CTX, "a", STEP_START_PLACEHOLDER)
    _, create = encoder.encode(p.TextStart("t"))
    assert isinstance(create, Create)
    assert encoder.cancel() == [Close(create.stream_key or "", create.closing or {})]


def written_as_messages(ops: list[OutputOperation]) -> list[Message]:
    """What a reader gets of these operations: every message whole."""
    found: dict[str, Message] = {}
    for n, op in enumerate(ops):
        serial = f"{n:014d}-000@epoch00000:000"
        if isinstance(op, Create):
            message = Message(
                name=op.message.name, data=op.message.data, encoding=op.message.encoding,
                extras=op.message.extras, serial=serial, action=MessageAction.CREATE, version=Version(serial),
            )  # fmt: skip
            found[op.stream_key or serial] = message
            continue
        message = found[op.stream_key]
        message.action, message.extras = MessageAction.UPDATE, op.extras
        message.data = str(message.data) + ("" if isinstance(op, Close) else op.data)
    return list(found.values())


# Who answers whom


def test_the_senders_codec_is_known_from_its_messages() -> None:
    (message, *_) = load("60").live()
    assert context_for_input(message, session="s", agent_client_id="a").codec == NAME
    (message, *_) = load("01").live()
    assert context_for_input(message, session="s", agent_client_id="a").codec is None


def test_answers_of_its_clients_are_known_as_answers() -> None:
    found = [answered_call(m) for m in load("61").live() if m.name == h.AI_INPUT]
    assert found == [None, "result:call_2", "result:call_3", "approval:call_1"]


def test_can_23_calls_without_a_result_are_closed_for_the_model() -> None:
    live = load("61").live()
    cut = [m for m in live if not (m.name == h.AI_INPUT and transport(m).get("run-id"))]
    prompt = build_prompt(tree_of(cut), "MSG-USER-1")
    outputs = [i for i in responses_input(said.message for said in prompt) if "output" in i]
    assert [(item["call_id"], item["output"]) for item in outputs] == [
        (f"call_{n}", CLOSED_CALL) for n in (1, 2, 3)
    ]
