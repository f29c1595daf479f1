"""The conversation in each provider's form: no dangling tool call, partial answers marked (CAN-23, INT-25)."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import openai
import pytest
from pydantic_ai import Agent

from agent_worker.adapters import (
    anthropic_messages,
    openai_chat,
    openai_responses,
    pydantic_ai_events,
)
from agent_worker.adapters.prompt import BEGIN, INTERRUPTED
from selfhost_transport.turns import ui
from selfhost_transport.turns.prompt import CLOSED_CALL, PromptMessage, build_prompt
from selfhost_transport.turns.tree import SessionTree
from tests.adapters import frames as f
from tests.adapters import strict
from tests.adapters.calls import Clients, chat_model
from tests.adapters.provider import Answer, Provider
from tests.turns.transcripts import load_all, transport

PNG = "data:image/png;base64,iVBORw0KGgo="


def user(*parts: ui.Part) -> PromptMessage:
    return PromptMessage("user", ui.UIMessage("u", "user", parts))


def assistant(*parts: ui.Part, interrupted: bool = False) -> PromptMessage:
    return PromptMessage("assistant", ui.UIMessage("a", "assistant", parts), interrupted)


def call(state: str, call_id: str = "c1", **fields: Any) -> ui.ToolPart:
    return ui.ToolPart(call_id, "add", state, **{"input": {"a": 1}, **fields})


T = ui.TextPart
STEP = ui.StepStartPart()

CONVERSATIONS: dict[str, list[PromptMessage]] = {
    "plain": [user(T("hi")), assistant(STEP, T("Hello")), user(T("bye"))],
    "cancelled between call and result": [
        user(T("hi")),
        assistant(STEP, T("hm"), call(ui.INPUT_AVAILABLE), interrupted=True),
        user(T("again")),
    ],
    "cancelled in the arguments": [
        user(T("hi")),
        assistant(STEP, ui.ToolPart("c1", "add", ui.INPUT_STREAMING), interrupted=True),
        user(T("again")),
    ],
    "waiting for approval": [
        user(T("hi")),
        assistant(STEP, call(ui.APPROVAL_REQUESTED, approval=ui.Approval("a1"))),
        user(T("never mind")),
    ],
    "one of two answered": [
        user(T("hi")),
        assistant(STEP, call(ui.OUTPUT_AVAILABLE, output=1), call(ui.INPUT_AVAILABLE, "c2"), T("so")),
        user(T("go on")),
    ],
    "cancelled before the first word": [user(T("hi")), assistant(interrupted=True), user(T("again"))],
    "only blanks": [user(T("hi")), assistant(STEP, T(" \n")), user(T("again"))],
    "ends with the answer": [user(T("hi")), assistant(STEP, T("par"), interrupted=True)],
    "open call in the turn itself": [user(T("hi")), assistant(STEP, call(ui.INPUT_AVAILABLE))],
    "assistant speaks first": [assistant(T("Welcome")), assistant(T("!")), user(T("hi"))],
    "no one spoke": [user(T(""))],
    "arguments that are no object": [
        user(T("hi")),
        assistant(call(ui.OUTPUT_AVAILABLE, input="x", output={"ok": True})),
    ],
}


def recorded() -> Iterator[list[PromptMessage]]:
    """Every conversation of the recorded transcripts, at each opening of a turn."""
    for transcript in load_all():
        for opening, before in transcript.triggers():
            tree = SessionTree()
            for message in before:
                tree.apply(message)
            yield build_prompt(tree, transport(opening)["input-codec-message-id"])


Ask = Callable[[list[PromptMessage]], Awaitable[list[Any]]]


async def ask_chat(clients: Clients, prompt: list[PromptMessage]) -> list[Any]:
    given = openai_chat.messages(prompt)
    answer = clients.openai.chat.completions.create(model="m", messages=given, stream=True)
    return [chunk async for chunk in openai_chat.stream(answer)]


async def ask_responses(clients: Clients, prompt: list[PromptMessage]) -> list[Any]:
    given = openai_responses.messages(prompt)
    answer = clients.openai.responses.create(model="m", input=given, stream=True)
    return [chunk async for chunk in openai_responses.stream(answer)]


async def ask_claude(clients: Clients, prompt: list[PromptMessage]) -> list[Any]:
    given = anthropic_messages.messages(prompt)
    answer = clients.anthropic.messages.create(model="m", max_tokens=9, messages=given, stream=True)
    return [chunk async for chunk in anthropic_messages.stream(answer)]


CHAT = Answer([f.chat("stop", content="x"), f.DONE])
RESPONSES = Answer([f.response_text("x"), f.response_state("completed", "completed")])
CLAUDE = Answer([f.claude_start(), *f.claude_end("end_turn")])


@pytest.fixture(
    params=[
        pytest.param((ask_chat, CHAT, strict.chat), id="chat"),
        pytest.param((ask_responses, RESPONSES, strict.responses), id="responses"),
        pytest.param((ask_claude, CLAUDE, strict.claude), id="anthropic"),
    ]
)
def ask(request: pytest.FixtureRequest, provider: Provider, clients: Clients) -> Ask:
    """Asks a provider that refuses what the real one would refuse."""
    how, answer, check = request.param
    provider.answers, provider.check = [answer], check
    return functools.partial(how, clients)


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_can_23_a_strict_provider_accepts(name: str, ask: Ask) -> None:
    assert await ask(CONVERSATIONS[name])


async def test_can_23_a_strict_provider_accepts_what_was_recorded(ask: Ask) -> None:
    for prompt in recorded():
        assert await ask(prompt)


@pytest.mark.parametrize("name", [name for name in CONVERSATIONS if name != "no one spoke"])
async def test_can_23_pydantic_ai_accepts(
    name: str, provider: Provider, openai_client: openai.AsyncOpenAI
) -> None:
    provider.answers, provider.check = [Answer([f.chat("stop", content="x"), f.DONE])], strict.chat
    history = pydantic_ai_events.messages(CONVERSATIONS[name])
    run = Agent(chat_model(openai_client)).run_stream_events(message_history=history)
    assert [chunk async for chunk in pydantic_ai_events.stream(run)]


def test_the_strict_stub_refuses_a_dangling_call() -> None:
    function = {"name": "add", "arguments": "{}"}
    called = {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": function}]}
    used = [{"type": "tool_use", "id": "c1", "name": "add", "input": {}}]
    asked = {"role": "user", "content": "hi"}
    assert strict.chat({"messages": [asked, called, asked]})
    assert strict.responses({"input": [asked, {"type": "function_call", "call_id": "c1"}, asked]})
    assert strict.claude({"messages": [asked, {"role": "assistant", "content": used}, asked]})


def test_chat_in_full() -> None:
    denied = call(ui.OUTPUT_DENIED, "c2", approval=ui.Approval("a", False, "too dear"))
    prompt = [
        user(T("look"), ui.FilePart("https://x/a.png", "image/png"), ui.FilePart("https://x/a.zip", "application/zip")),
        assistant(
            STEP, ui.ReasoningPart("secret"), T("one"), call(ui.OUTPUT_AVAILABLE, output={"sum": 2}), denied,
            STEP, T("tw"), interrupted=True,
        ),
        user(T("go on")),
    ]  # fmt: skip
    function = {"name": "add", "arguments": '{"a":1}'}
    assert openai_chat.messages(prompt) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "https://x/a.png"}},
                {"type": "text", "text": "[attached file: https://x/a.zip (application/zip)]"},
            ],
        },
        {
            "role": "assistant",
            "content": "one",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": function},
                {"id": "c2", "type": "function", "function": function},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": '{"sum":2}'},
        {
            "role": "tool",
            "tool_call_id": "c2",
            "content": "The user did not allow this tool call. too dear",
        },
        {"role": "assistant", "content": "tw"},
        {"role": "user", "content": f"{INTERRUPTED}\n\ngo on"},
    ]


def test_claude_in_full() -> None:
    prompt = [
        assistant(T("Welcome")),
        user(ui.FilePart(PNG, "image/png"), ui.FilePart("https://x/a.pdf", "application/pdf"), T("look")),
        assistant(call(ui.INPUT_AVAILABLE), interrupted=True),
        user(T("again")),
    ]
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    assert anthropic_messages.messages(prompt) == [
        {"role": "user", "content": [{"type": "text", "text": BEGIN}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Welcome"}]},
        {
            "role": "user",
            "content": [
                {"type": "image", "source": source},
                {"type": "document", "source": {"type": "url", "url": "https://x/a.pdf"}},
                {"type": "text", "text": "look"},
            ],
        },
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}}],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": CLOSED_CALL, "is_error": True},
                {"type": "text", "text": INTERRUPTED},
                {"type": "text", "text": "again"},
            ],
        },
    ]


def test_tools_that_the_provider_ran_are_not_given_back() -> None:
    searched = call(ui.OUTPUT_AVAILABLE, output=[], provider_executed=True)
    prompt = [user(T("hi")), assistant(STEP, searched, T("found"))]
    assert openai_chat.messages(prompt)[1:] == [{"role": "assistant", "content": "found"}]


def test_the_mark_can_be_chosen() -> None:
    prompt = CONVERSATIONS["ends with the answer"]
    assert openai_chat.messages(prompt, interrupted="(cut)")[-1] == {"role": "user", "content": "(cut)"}
