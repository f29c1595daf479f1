"""A turn from its send to its terminal, with a worker in this process and a real Redis."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from agent_worker import AgentError, PipeReason, PipeResult, Reasoning, Turn, Worker
from agent_worker.scripted.model import scripted
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.settings import Settings
from selfhost_transport.store.entries import Appended
from selfhost_transport.turns import headers as h
from tests.processes import wait_until
from tests.worker.session import Room, header, numbered
from tests.worker.workers import scripted_worker

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]


async def failure_of(room: Room, turn: str) -> tuple[str | None, str | None]:
    """Code and message of a turn that ended with `error`."""
    assert await room.terminals(turn) == ["error"]
    end = (await room.of_turn(turn))[-1]
    return header(end, h.ERROR_CODE), header(end, h.ERROR_MESSAGE)


async def test_a_scripted_turn_end_to_end(room: Room, settings: MakeSettings, running: Run) -> None:
    await running(scripted_worker(settings()))
    turn = await room.send("script: tokens=50")
    assert (await room.ended(turn)).status == "completed"
    assert await room.text(turn) == numbered(50)
    assert await room.names(turn) == [
        "ai-run-start", "ai-step-start", "start", "start-step", "text", "finish-step", "finish",
        "ai-step-end", "ai-run-end",
    ]  # fmt: skip
    assert await room.terminals(turn) == ["complete"]
    # Live readers close a stream at its first closing append, and drop what comes after it.
    closings = [entry.extras for entry in await room.log() if isinstance(entry, Appended) and entry.extras]
    assert [extras["ai"]["transport"]["status"] for extras in closings] == ["complete"]


async def test_cot_1_reasoning_and_text_are_separate_streams(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    await running(scripted_worker(settings()))
    turn = await room.send("script: reasoning=3 tokens=4")
    await room.ended(turn)
    said = [(output.kind, output.text, output.status) for output in await room.outputs(turn)]
    assert said == [("reasoning", "r0 r1 r2 ", "complete"), ("text", "0 1 2 3 ", "complete")]


async def test_other_texts_are_quoted(room: Room, settings: MakeSettings, running: Run) -> None:
    await running(scripted_worker(settings()))
    turn = await room.send("How are you?")
    await room.ended(turn)
    assert "How are you?" in await room.text(turn)


async def test_a_wrong_script_is_explained_to_the_user(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    await running(scripted_worker(settings()))
    turn = await room.send("script: tokens=5 sing=loudly")
    assert (await room.ended(turn)).status == "failed"
    code, message = await failure_of(room, turn)
    assert code == "40003" and message is not None and "'sing=loudly'" in message


async def test_int_25_and_trn_12_the_agent_is_given_the_conversation(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    await running(scripted_worker(settings()))
    await room.ended(await room.send("script: say=hello there"))
    turn = await room.send("script: echo_context=1")
    await room.ended(turn)
    context = json.loads(await room.text(turn))
    assert [message["role"] for message in context][-1] == "user"
    assert context[-1]["parts"][0]["text"] == "script: echo_context=1"


async def test_str_5_a_provider_error_ends_the_turn_and_not_the_worker(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    await running(scripted_worker(settings()))
    failing, fine = (
        await room.send("script: tokens=20 fail_at=10 always=1"),
        await room.send("script: tokens=20"),
    )
    assert (await room.ended(failing)).status == "failed"
    assert await failure_of(room, failing) == ("50200", "the scripted provider failed at token 10")
    (answer,) = await room.outputs(failing)
    assert (answer.text, answer.status) == (numbered(10), "cancelled")
    assert (await room.ended(fine)).status == "completed"
    assert await room.text(fine) == numbered(20)


async def test_trn_19_an_unexpected_exception_reveals_nothing(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())

    @worker.agent("assistant")
    async def leaky(turn: Turn) -> AsyncIterator[str]:
        yield "so far"
        raise RuntimeError("password=hunter2")

    await running(worker)
    turn = await room.send("go")
    await room.ended(turn)
    code, message = await failure_of(room, turn)
    assert code == "104008" and message is not None and "hunter2" not in message


async def test_trn_9_a_failed_attempt_is_not_a_failed_turn(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    await running(scripted_worker(settings(retry_errors=True)))
    turn = await room.send("script: tokens=20 fail_at=10", max_attempts=2)
    assert (await room.ended(turn)).status == "completed"
    assert await room.terminals(turn) == ["complete"]
    assert await room.text(turn) == numbered(20)
    assert [output.text for output in await room.outputs(turn)] == [numbered(10), numbered(20)]
    names = await room.names(turn)
    assert names.count("ai-run-start") == 1 and names.count("ai-step-start") == 2


async def test_trn_10_retries_exhausted_end_with_the_last_cause(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    await running(scripted_worker(settings(retry_errors=True)))
    turn = await room.send("script: tokens=20 fail_at=3 always=1", max_attempts=3)
    record = await room.ended(turn)
    assert (record.status, record.attempts) == ("failed", 3)
    assert await failure_of(room, turn) == ("50200", "the scripted provider failed at token 3")


async def test_trn_20_returning_without_an_answer_completes_the_turn(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())

    @worker.agent("assistant")
    async def silent(turn: Turn) -> None:
        assert turn.owner == "alice" and turn.attempt == 1

    await running(worker)
    turn = await room.send("go")
    assert (await room.ended(turn)).status == "completed"
    assert await room.names(turn) == ["ai-run-start", "ai-step-start", "ai-step-end", "ai-run-end"]


async def test_str_4_pipe_takes_any_iterable_and_returns_a_reason(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())
    results: list[PipeResult] = []

    async def raising() -> AsyncIterator[str]:
        yield "half"
        raise ValueError("the provider hung up")

    @worker.agent("assistant")
    async def several(turn: Turn) -> None:
        results.append(await turn.pipe(raising()))
        results.append(await turn.pipe(["a ", Reasoning("hm"), "b"]))
        results.append(await turn.pipe(iter([{"type": "data-note", "data": {"n": 1}}])))

    await running(worker)
    turn = await room.send("go")
    assert (await room.ended(turn)).status == "completed"
    assert [result.reason for result in results] == [
        PipeReason.ERROR,
        PipeReason.COMPLETE,
        PipeReason.COMPLETE,
    ]
    assert isinstance(results[0].error, ValueError)
    texts = [(output.kind, output.text, output.status) for output in await room.outputs(turn)]
    assert texts == [
        ("text", "half", "cancelled"), ("text", "a ", "complete"), ("reasoning", "hm", "complete"),
        ("text", "b", "complete"),
    ]  # fmt: skip
    ids = {header(message, h.CODEC_MESSAGE_ID) for message in await room.of_turn(turn)} - {None}
    assert ids == {result.message_id for result in results}


async def test_a_failed_last_pipe_fails_the_turn(room: Room, settings: MakeSettings, running: Run) -> None:
    worker = Worker(settings())

    async def raising() -> AsyncIterator[str]:
        yield "half"
        raise AgentError("out of credits", code=42910)

    @worker.agent("assistant")
    async def careless(turn: Turn) -> None:
        await turn.pipe(raising())

    await running(worker)
    turn = await room.send("go")
    await room.ended(turn)
    assert await failure_of(room, turn) == ("42910", "out of credits")


@pytest.mark.parametrize("ending", ["silent", "nothing-to-pipe", "fallback", "raises"])
async def test_a_failed_pipe_inside_a_generator_counts_unless_something_is_yielded_after_it(
    room: Room, settings: MakeSettings, running: Run, ending: str
) -> None:
    worker = Worker(settings())

    async def raising() -> AsyncIterator[str]:
        yield "half"
        raise AgentError("out of credits", code=42910)

    @worker.agent("assistant")
    async def careless(turn: Turn) -> AsyncIterator[str]:
        yield "At once. "
        await turn.pipe(5 if ending == "nothing-to-pipe" else raising())  # type: ignore[arg-type]
        if ending == "fallback":
            yield "Another model says: no."
        elif ending == "raises":
            raise AgentError("said by the agent", code=42911)

    await running(worker)
    turn = await room.send("go")
    record = await room.ended(turn)
    if ending == "fallback":
        assert record.status == "completed"
        assert (await room.outputs(turn))[-1].text == "Another model says: no."
        return
    reported = {"silent": "42910", "nothing-to-pipe": "40003", "raises": "42911"}
    assert (await failure_of(room, turn))[0] == reported[ending]


async def test_sources_may_be_piped_side_by_side_into_one_message(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())

    async def source(letter: str) -> AsyncIterator[str | Reasoning]:
        for number in range(20):
            yield Reasoning(letter) if number % 7 == 6 else letter
            await asyncio.sleep(0)

    @worker.agent("assistant")
    async def several(turn: Turn) -> AsyncIterator[str]:
        for result in await asyncio.gather(*(turn.pipe(source(letter)) for letter in "abcd")):
            result.raise_for_error()
        yield "."

    await running(worker)
    turn = await room.send("go")
    assert (await room.ended(turn)).status == "completed"
    outputs = await room.outputs(turn)
    assert {output.status for output in outputs} == {"complete"}
    said = "".join(output.text for output in outputs)
    assert sorted(said) == sorted("abcd" * 20 + ".")


async def test_trn_22_two_pipes_are_two_messages_of_one_turn(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())

    @worker.agent("assistant")
    async def planner(turn: Turn) -> None:
        await turn.pipe(["first a plan"])
        await turn.pipe(["then the answer"])

    await running(worker)
    turn = await room.send("go")
    await room.ended(turn)
    assert [output.text for output in await room.outputs(turn)] == ["first a plan", "then the answer"]
    assert (await room.names(turn)).count("finish") == 2


async def test_the_end_of_an_answer_is_reported_while_its_agent_goes_on(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker, may_return = Worker(settings()), asyncio.Event()

    @worker.agent("assistant")
    async def busy(turn: Turn) -> None:
        await turn.pipe(["the answer"])
        await may_return.wait()

    async def is_finished() -> bool:
        return "finish" in await room.names(turn)

    await running(worker)
    turn = await room.send("go")
    await wait_until(is_finished, 5.0, "the end of the message")
    (answer,) = await room.outputs(turn)
    assert (answer.text, answer.status) == ("the answer", "complete")
    assert await room.terminals(turn) == []
    may_return.set()
    await room.ended(turn)
    assert (await room.names(turn)).count("finish") == 1


async def test_trn_23_a_deadline_ends_the_turn_even_if_the_agent_ignores_it(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())

    @worker.agent("assistant", deadline_s=0.2)
    async def stubborn(turn: Turn) -> None:
        try:
            await turn.pipe(hang())
        except asyncio.CancelledError:
            await asyncio.sleep(0.5)
            await turn.pipe(["too late"])

    async def hang() -> AsyncIterator[str]:
        yield "partial"
        await asyncio.get_running_loop().create_future()

    await running(worker)
    turn = await room.send("go")
    record = await room.ended(turn, timeout=2.0)
    assert record.status == "failed"
    code, message = await failure_of(room, turn)
    assert code == "104008" and message is not None and "deadline" in message
    await wait_until(lambda: worker.statistics().unwinding == 0)
    (answer,) = await room.outputs(turn)
    assert (answer.text, answer.status) == ("partial", "cancelled")


async def test_the_concurrency_limit_holds_and_nothing_is_lost(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = await running(scripted_worker(settings(concurrency=2)))
    turns = [await room.send("script: tokens=5 rate=50") for _ in range(6)]
    most = 0

    async def all_ended() -> bool:
        nonlocal most
        most = max(most, worker.running)
        return all([(await room.record(turn)).status == "completed" for turn in turns])

    await wait_until(all_ended)
    assert most == 2


def test_an_agent_is_declared_once(settings: MakeSettings) -> None:
    worker = Worker(settings())
    worker.agent("assistant")(scripted)
    with pytest.raises(InvalidArgument, match="declared twice"):
        worker.agent("assistant")


async def test_a_worker_without_agents_refuses_to_run(settings: MakeSettings) -> None:
    with pytest.raises(InvalidArgument, match="serves no agent"):
        await Worker(settings()).run()


async def test_a_function_that_is_no_agent_ends_the_turn_and_says_so_in_the_log(
    room: Room, settings: MakeSettings, running: Run, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(settings())
    plain: Any = lambda turn: "an answer"  # noqa: E731
    worker.agent("assistant")(plain)
    await running(worker)
    turn = await room.send("hello")
    await room.ended(turn)
    assert await room.terminals(turn) == ["error"]
    assert "'assistant' returned str: write it as an async generator or a coroutine" in caplog.text


async def test_what_an_agent_raises_after_its_cancel_is_logged_once(
    room: Room, settings: MakeSettings, running: Run, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(settings())
    began = asyncio.Event()

    @worker.agent("assistant")
    async def clumsy(turn: Turn) -> None:
        began.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if await turn.text() == "raise":
                raise ValueError("while cleaning up") from None
            await turn.pipe(["too late"])  # refused: LeaseLost, which is news to no one

    await running(worker)
    for text in ("raise", "write"):
        began.clear()
        turn = await room.send(text)
        await began.wait()
        await room.cancel(turn)
        assert (await room.ended(turn)).status == "cancelled"
        await wait_until(lambda: worker.statistics().unwinding == 0 and worker.running == 0)
    gc.collect()
    noted = [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert len(noted) == 1
    assert noted[0].startswith("turn.agent_failed_after_abort ") and "while cleaning up" in noted[0]
