"""Agents that deal with people, run by `selfhost-transport worker tests.e2e.participants:worker`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from agent_worker import AgentError, CancelRequest, ToolCall, Turn, Worker
from agent_worker.scripted.model import scripted
from selfhost_transport.turns import chunks as p

worker = Worker()
worker.agent("assistant")(scripted)
worker.agent("immediate", on_steer="abort_call")(scripted)
worker.agent("limited", deadline_s=1.0)(scripted)
worker.agent("guarded")(scripted)
worker.agent("open")(scripted)


@worker.agent("three-calls")
async def three_calls(turn: Turn) -> None:
    """Waits for three client tools at once."""
    answers = await turn.answers()
    if not answers:
        await turn.suspend([ToolCall("pick", {"number": n}, f"call-{n}") for n in range(3)])
    reported = ", ".join(f"{answer.call.call_id} by {answer.client_id}" for answer in answers)
    await turn.pipe([reported])


@worker.agent("payer")
async def payer(turn: Turn) -> None:
    """Two payments that have to be allowed, and a client's tool; says what it paid."""
    paid: list[str] = []

    async def pay(to: str) -> str:
        paid.append(to)
        return "paid"

    answers = await turn.answers()
    if not answers:
        calls = [ToolCall("pay", {"to": to}, f"pay-{to}", needs_approval=True) for to in ("ann", "bob")]
        await turn.suspend([*calls, ToolCall("pick", {}, "pick-1")])
    for answer in answers:
        if answer.call.name == "pay" and answer.approved:
            await turn.tool(answer.call, pay)
    await turn.pipe([f"paid {', '.join(paid) or 'no one'}"])


@worker.agent("librarian")
async def librarian(turn: Turn) -> None:
    """Uses a tool whose result has as many characters as the text says."""

    async def fetch(size: int) -> str:
        return "x" * size

    found = await turn.tool(ToolCall("fetch", {"size": int(await turn.text())}), fetch)
    await turn.pipe([str(len(str(found)))])


@worker.agent("folding")
async def folding(turn: Turn) -> None:
    """A model without reasoning of its own thinks in its text."""
    await turn.pipe(["<think>hm</think> ", "yes"])


@worker.on_cancel("guarded", undecided="deny", grace_s=1.0)
async def only_the_owner(request: CancelRequest) -> bool:
    """Raises or hangs for callers of these names; else allows owners."""
    if request.requester == "raise":
        raise RuntimeError("broken")
    if request.requester == "hang":
        await asyncio.sleep(60)
    request.closing_note("[cancelled]")
    return request.requester == request.turn.owner


@worker.on_cancel("open", undecided="allow", grace_s=0.5)
async def hangs(request: CancelRequest) -> None:
    """Never decides."""
    await asyncio.sleep(60)


@worker.agent("mirror")
async def mirror(turn: Turn) -> AsyncIterator[p.Chunk]:
    """Says what its client handed over, thinks in secret, and uses the client's first tool."""
    given = await turn.client_input()
    if given.tools and not await turn.answers():
        await turn.suspend([ToolCall(str(_field(given.tools[0], "name")), {}, "call-1")])
    yield p.ReasoningStart("r")
    yield p.ReasoningDelta("r", "hm")
    yield p.ReasoningEnd("r", {"anthropic": {"signature": "sealed"}})
    yield p.TextStart("t")
    said = {"state": given.state, "context": list(given.context), "props": given.forwarded_props}
    yield p.TextDelta("t", json.dumps(said, sort_keys=True))
    yield p.TextEnd("t")
    yield p.MessageMetadata({"usage": {"model": "m", "inputTokens": 3, "outputTokens": 0, "cost": 1}})


def _field(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


@worker.agent("parts")
async def parts(turn: Turn) -> AsyncIterator[p.Chunk]:
    """A part of every kind, with time to load the page again in between."""
    yield p.Start(message_metadata={"model": "scripted"})
    yield p.ReasoningStart("r")
    yield p.ReasoningDelta("r", "hm")
    yield p.ReasoningEnd("r")
    # Who asked reads by now: what only passes is for those.
    await asyncio.sleep(0.5)
    yield p.Data("data-passing", "now", transient=True)
    yield p.Data("data-progress", {"done": 1}, id="p")
    yield p.Data("data-progress", {"done": 2}, id="p")
    yield p.SourceUrl("s", "https://example.com/")
    yield p.File("data:image/png;base64,aGk=", "image/png")
    await asyncio.sleep(1)  # the model thinks
    yield p.TextStart("t")
    yield p.TextDelta("t", "done")
    yield p.TextEnd("t")


@worker.agent("everything")
async def everything(turn: Turn) -> AsyncIterator[p.Chunk]:
    """Every kind of part that there is, a call to allow, and one for the client; then the end."""
    if await turn.answers():
        yield p.ToolOutputDenied("pay-1")
        yield p.TextStart("end")
        yield p.TextDelta("end", "all done")
        yield p.TextEnd("end")
        return
    for chunk in EVERY_PART:
        yield chunk
    calls = [ToolCall("pay", {"to": "ann"}, "pay-1", needs_approval=True), ToolCall("pick", {}, "pick-1")]
    await turn.suspend(calls)


EVERY_PART = (
    p.Start(message_metadata={"model": "scripted"}),
    p.ReasoningStart("r"),
    p.ReasoningDelta("r", "hm"),
    p.ReasoningEnd("r", {"anthropic": {"signature": "sealed"}}),
    p.TextStart("t"),
    p.TextDelta("t", "one "),
    p.TextEnd("t"),
    p.ToolInputStart("streamed", "look"),
    p.ToolInputDelta("streamed", '{"at":'),
    p.ToolInputDelta("streamed", "1}"),
    p.ToolInputAvailable("streamed", "look", {"at": 1}),
    p.ToolOutputAvailable("streamed", {"half": 1}, preliminary=True),
    p.ToolOutputAvailable("streamed", {"whole": 2}),
    p.ToolInputAvailable("failing", "look", {}),
    p.ToolOutputError("failing", "no such thing"),
    p.ToolInputError("garbled", "look", "no JSON", "{{"),
    p.SourceUrl("s", "https://example.com/", "Example"),
    p.SourceDocument("d", "application/pdf", "Paper", "paper.pdf"),
    p.File("data:image/png;base64,aGk=", "image/png"),
    p.Data("data-progress", {"done": 1}, id="p"),
    p.Data("data-progress", {"done": 2}, id="p"),
    p.Data("data-note", "kept"),
    p.Data("data-passing", "now", transient=True),
    p.Data("data-state-snapshot", {"page": 1, "open": []}),
    p.Data("data-state-delta", [{"op": "replace", "path": "/page", "value": 2}]),
    p.TextStart("u"),
    p.TextDelta("u", "two"),
    p.TextEnd("u"),
    p.MessageMetadata({"usage": {"model": "m", "inputTokens": 3, "outputTokens": 0}}),
)


@worker.agent("stateful")
async def stateful(turn: Turn) -> AsyncIterator[p.Chunk]:
    """Changes the state that its client has; an attempt with the text `fail` fails once, after a state of its own."""
    if await turn.text() == "fail" and turn.attempt == 1:
        yield p.Data("data-state-snapshot", {"wrong": True})
        yield p.TextStart("t")
        yield p.TextDelta("t", "wrong")
        raise AgentError("the provider is away", again=True)
    given = await turn.client_input()
    known = given.state.get("count") if isinstance(given.state, dict) else None
    count = known if isinstance(known, int) else 0
    yield p.Data("data-state-delta", [{"op": "add", "path": "/count", "value": count + 1}])
    yield p.TextStart("t")
    yield p.TextDelta("t", "counted")
    yield p.TextEnd("t")
