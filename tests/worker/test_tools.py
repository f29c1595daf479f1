"""Server tools: calls, results and the abort that reaches them (TOL-1, TOL-15, INT-12, INT-13)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from agent_worker import AgentError, Reasoning, ToolCall, Turn, Worker
from agent_worker.agent.tools import MAX_RESULT_BYTES
from agent_worker.output.message import OutputChunk
from agent_worker.scripted.model import scripted
from selfhost_transport.errors import ErrorInfo, MessageTooLarge
from selfhost_transport.settings import Settings
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import ui
from selfhost_transport.turns.values import Json
from tests.processes import wait_until
from tests.promptness import prompt, within
from tests.worker.people import People
from tests.worker.session import Room

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]


async def weather(city: str) -> str:
    return f"sunny in {city}"


def labels(parts: list[ui.Part]) -> list[str]:
    """Kinds of parts; of tools, their state."""
    found = []
    for part in parts:
        match part:
            case ui.ToolPart():
                found.append(part.state)
            case ui.TextPart():
                found.append(part.text)
            case ui.ReasoningPart():
                found.append(f"({part.text})")
            case _:
                found.append(type(part).__name__)
    return found


async def test_tol_1_and_cot_3_reason_tool_reason_text_in_one_message(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())

    @worker.agent("assistant")
    async def agent(turn: Turn) -> AsyncIterator[OutputChunk]:
        yield Reasoning("what is asked?")
        found = await turn.tool(ToolCall("weather", {"city": "Rome"}), weather)
        yield Reasoning("now I know")
        yield f"It is {found}."

    await running(worker)
    turn = await room.send("how is the weather?")
    await room.ended(turn)
    assert labels(await People(room).parts(turn)) == [
        "StepStartPart", "(what is asked?)", "output-available",
        "StepStartPart", "(now I know)", "It is sunny in Rome.",
    ]  # fmt: skip
    assert (await room.names(turn)).count("start") == 1
    assert (await room.names(turn))[-3:] == ["finish", "ai-step-end", "ai-run-end"]


async def test_tools_side_by_side_and_on_their_own(room: Room, settings: MakeSettings, running: Run) -> None:
    worker = Worker(settings())

    @worker.agent("assistant")
    async def agent(turn: Turn) -> None:
        async with turn.message():
            await asyncio.gather(*(turn.tool(ToolCall("weather", {"city": c}), weather) for c in ("A", "B")))
        await asyncio.gather(*(turn.tool(ToolCall("weather", {"city": c}), weather) for c in ("C", "D")))
        await turn.tool(ToolCall("plain", "E"), lambda city: f"thread {city}")

    await running(worker)
    turn = await room.send("go")
    assert (await room.ended(turn)).status == "completed"
    tools = [part for part in await People(room).parts(turn) if isinstance(part, ui.ToolPart)]
    results = [f"sunny in {city}" for city in "ABCD"] + ["thread E"]
    assert sorted(str(part.output) for part in tools) == results
    # One message for the block, one for each call that stands alone.
    assert (await room.names(turn)).count("start") == 4


async def test_a_failed_tool_is_reported_to_the_session_and_the_agent(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())

    async def secret() -> str:
        raise RuntimeError("the password is 123")

    async def known() -> str:
        raise AgentError("there is no such city")

    @worker.agent("assistant")
    async def agent(turn: Turn) -> AsyncIterator[str]:
        for tool in (secret, known):
            try:
                await turn.tool(ToolCall("t"), tool)
            except Exception as error:
                yield type(error).__name__

    await running(worker)
    turn = await room.send("go")
    assert (await room.ended(turn)).status == "completed"
    parts = await People(room).parts(turn)
    errors = [part.error_text for part in parts if isinstance(part, ui.ToolPart)]
    assert errors == ["The tool t failed.", "there is no such city"]


async def test_tol_15_arguments_stream(room: Room, settings: MakeSettings, running: Run) -> None:
    worker = Worker(settings(rollup_window_ms=0))
    go_on = asyncio.Event()

    @worker.agent("assistant")
    async def agent(turn: Turn) -> AsyncIterator[p.Chunk]:
        yield p.ToolInputStart("c1", "weather")
        yield p.ToolInputDelta("c1", '{"city":')
        await go_on.wait()
        yield p.ToolInputDelta("c1", '"Rome"}')
        yield p.ToolInputAvailable("c1", "weather", {"city": "Rome"})
        await turn.tool(ToolCall("weather", {"city": "Rome"}, "c1", announced=True), weather)

    await running(worker)
    turn = await room.send("go")

    async def partial() -> bool:
        return any(output.text == '{"city":' for output in await room.outputs(turn))

    await wait_until(partial)
    go_on.set()
    await room.ended(turn)
    (tool,) = [part for part in await People(room).parts(turn) if isinstance(part, ui.ToolPart)]
    assert (tool.input, tool.output) == ({"city": "Rome"}, "sunny in Rome")


async def test_int_12_a_running_tool_is_aborted_with_its_turn(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())
    began, aborted = asyncio.Event(), asyncio.Event()

    async def endless() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            aborted.set()

    @worker.agent("assistant")
    async def agent(turn: Turn) -> None:
        await turn.tool(ToolCall("endless"), endless)

    @prompt
    async def is_aborted() -> None:
        began.clear()
        aborted.clear()
        turn = await room.send("go")
        await began.wait()
        async with within(0.25):
            await room.cancel(turn)
            await aborted.wait()
        assert await room.terminals(turn) == ["cancelled"]

    await running(worker)
    await is_aborted()


async def test_int_13_a_tool_that_goes_on_writes_nothing(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())
    began, returned = asyncio.Event(), asyncio.Event()

    async def stubborn() -> str:
        began.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
        returned.set()
        return "too late"

    @worker.agent("assistant")
    async def agent(turn: Turn) -> None:
        await turn.tool(ToolCall("stubborn"), stubborn)

    await running(worker)
    turn = await room.send("go")
    await began.wait()
    cancelled = await room.cancel(turn)
    await returned.wait()
    await wait_until(lambda: worker.statistics().unwinding == 0)
    assert await room.content_after(turn, cancelled.position) == []


async def test_can_23_the_next_turn_sees_the_cut_call_closed(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())
    worker.agent("assistant")(scripted)
    await running(worker)
    first = await room.send("script: tool=server ignore_abort=1 tokens=3")

    async def called() -> bool:
        return "tool-input" in await room.names(first)

    await wait_until(called)
    await room.cancel(first)
    tree = await People(room).tree()
    node = tree.run_node(first)
    assert node is not None
    message_id = list(node.messages)[-1]
    second = await room.send("script: echo_context=1", parent=message_id)
    await room.ended(second)
    text = await room.text(second)
    assert '"state":"output-error"' in text and '"state":"input-available"' not in text


async def test_tol_14_a_large_result_is_refused_or_kept_elsewhere(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker, kept = Worker(settings()), dict[str, Json]()
    refused: list[ErrorInfo] = []

    async def keep(result: Json) -> Json:
        kept["report-1"] = result
        return {"url": "https://files.example/report-1"}

    def report(size: int) -> Json:
        return {"rows": "x" * size}

    @worker.agent("assistant")
    async def agent(turn: Turn) -> AsyncIterator[OutputChunk]:
        whole = await turn.tool(ToolCall("text", {"size": MAX_RESULT_BYTES}), lambda size: "x" * size)
        assert isinstance(whole, str) and len(whole) == MAX_RESULT_BYTES
        try:
            await turn.tool(ToolCall("report", {"size": MAX_RESULT_BYTES}), report)
        except MessageTooLarge as error:
            refused.append(error.info)
        large = await turn.tool(ToolCall("report", {"size": 2000}), report, offload=keep, max_bytes=1000)
        assert large == kept["report-1"]
        yield "done"

    await running(worker)
    turn = await room.send("go")
    assert (await room.ended(turn)).status == "completed"
    [text, error, offloaded] = [
        part for part in await People(room).parts(turn) if isinstance(part, ui.ToolPart)
    ]
    assert isinstance(text.output, str) and len(text.output) == MAX_RESULT_BYTES
    assert [info.code for info in refused] == [40009]
    assert error.state == "output-error" and error.error_text == refused[0].message
    assert "limit is 1048576" in refused[0].message
    assert offloaded.output == {"url": "https://files.example/report-1"}
