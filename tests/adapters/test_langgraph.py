"""Graphs of LangGraph, run by the library itself."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

import pytest
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from agent_worker.adapters import langgraph_events
from agent_worker.adapters.stream import ProviderStream
from agent_worker.output.usage import Usage
from agent_worker.user_code.errors import AgentError
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import ui
from selfhost_transport.turns.prompt import PromptMessage

HELLO: Any = {"messages": [HumanMessage("hi")]}
USED: Any = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}


def _add(a: int, b: int) -> int:
    """Add."""
    return a + b


add: Any = tool("add")(_add)


def _is_message(answer: Any) -> TypeGuard[AIMessage]:
    return isinstance(answer, AIMessage)


def graph_of(*answers: AIMessage | Exception) -> Any:
    """A graph that asks a model, and runs the tools that it calls, until it calls none."""

    whole = any(isinstance(answer, AIMessage) and answer.tool_calls for answer in answers)
    # The library's fakes: one says its text word by word, the other everything at once.
    model: Any = (
        FakeMessagesListChatModel(responses=[*filter(_is_message, answers)])
        if whole
        else GenericFakeChatModel(messages=_said(answers))
    )

    async def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def more(state: MessagesState) -> str:
        return "tools" if getattr(state["messages"][-1], "tool_calls", None) else END

    graph: Any = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("tools", ToolNode([add]))
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", more)
    graph.add_edge("tools", "ask")
    return graph.compile()


def _said(answers: Sequence[AIMessage | Exception]) -> Iterator[Any]:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
        yield answer


def events_of(graph: Any) -> ProviderStream[Any]:
    return langgraph_events.stream(graph.astream_events(HELLO, version="v2"))


async def test_text_as_it_comes_and_what_it_used() -> None:
    stream = events_of(graph_of(AIMessage("hello you", usage_metadata=USED)))
    assert [chunk async for chunk in stream] == [
        p.TextStart("text-0"), p.TextDelta("text-0", "hello"), p.TextDelta("text-0", " "), p.TextDelta("text-0", "you"),
        p.TextEnd("text-0"), p.FinishStep(), p.Finish("stop"),
    ]  # fmt: skip
    assert stream.finish_reason == "stop"


async def test_tools_that_the_graph_runs_have_their_results() -> None:
    call: Any = {"name": "add", "args": {"a": 2, "b": 3}, "id": "c0"}
    stream = events_of(graph_of(AIMessage("", tool_calls=[call]), AIMessage("five")))
    chunks = [chunk async for chunk in stream]
    assert p.ToolInputAvailable("c0", "add", {"a": 2, "b": 3}) in chunks
    result = chunks.index(p.ToolOutputAvailable("c0", "5"))
    assert chunks[result + 1] == p.FinishStep()
    assert chunks[-1] == p.Finish("stop")
    assert stream.tool_calls == ()


async def test_a_models_own_events_and_usage() -> None:
    translation = langgraph_events.GraphTranslation()
    ended = {
        "event": "on_chat_model_end",
        "run_id": "r",
        "data": {"output": AIMessage("whole", usage_metadata=USED)},
    }
    assert [chunk.type for chunk in translation.feed(ended)] == ["text-start", "text-delta", "text-end"]
    assert (translation.finish_reason, translation.usage) == ("stop", Usage(3, 5))


async def test_a_failure_of_the_models_library_is_said_safely() -> None:
    class RateLimited(Exception):
        status_code = 429

    with pytest.raises(AgentError, match="rate-limiting") as caught:
        async for _ in events_of(graph_of(RateLimited("key sk-live"))):
            pass
    assert caught.value.info.status_code == 429


async def test_events_of_another_version_are_named() -> None:
    graph = graph_of(AIMessage("hello"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library calls its version 3 experimental
        with pytest.raises(InvalidArgument, match='version="v2"'):
            async for _ in langgraph_events.stream(graph.astream_events(HELLO, version="v3")):
                pass


async def test_closing_it_cancels_the_graph() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(state: MessagesState) -> dict[str, Any]:
        started.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()
        return {}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("hang", hang)
    graph.add_edge(START, "hang")
    stream = events_of(graph.compile())
    reading = asyncio.create_task(anext(stream, None))
    async with asyncio.timeout(10):
        await started.wait()
        await stream.aclose()
        await reading
        await cancelled.wait()


def test_the_conversation_as_messages() -> None:
    user = ui.UIMessage("u", "user", (ui.TextPart("two and three?"),))
    called = ui.ToolPart("c0", "add", ui.OUTPUT_AVAILABLE, input={"a": 2}, output=5)
    answer = ui.UIMessage("a", "assistant", (called, ui.TextPart("five")))
    found = langgraph_events.messages([PromptMessage("user", user), PromptMessage("assistant", answer)])
    assert [type(message) for message in found] == [HumanMessage, AIMessage, ToolMessage, AIMessage]
    assert isinstance(found[2], ToolMessage) and (found[2].content, found[2].tool_call_id) == ("5", "c0")
