"""Tools that the agent runs itself: a call and its result as chunks of the turn's message (TOL-1)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from agent_worker.output.message import Output
from agent_worker.user_code.containment import ControlFlow
from agent_worker.user_code.errors import client_error
from agent_worker.user_code.threads import Threads
from selfhost_transport import tracing
from selfhost_transport.errors import MessageTooLarge, TransportError
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns.values import Json, carried, to_text

Tool: TypeAlias = Callable[..., "Awaitable[Json] | Json"]
"""What a call runs: called with the call's arguments as keywords if they are an object, else with one value."""

Offload: TypeAlias = Callable[[Json], Awaitable[Json]]
"""Keeps a large result somewhere else, and returns what the session gets instead of it: a reference."""

MAX_RESULT_BYTES = 1 << 20
"""Largest result, a text or JSON, that a session is given (TOL-14). Every reader of the session gets all of it."""


def new_call_id() -> str:
    """A fresh id for a tool call."""
    return f"call-{uuid.uuid4()}"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a model makes. `call_id` is unique in its turn.

    `needs_approval`: a person must allow it before it runs. `announced`: it is in the session already, for
    example because the model's stream was piped, or because it was suspended for.
    """

    name: str
    input: Json = field(default_factory=dict)
    call_id: str = field(default_factory=new_call_id)
    needs_approval: bool = False
    announced: bool = False
    # The assistant message it was announced in, where that was in an earlier invocation.
    message_id: str | None = None

    def chunks(self) -> list[p.Chunk]:
        """Chunks that announce the call; none if it was announced."""
        return [] if self.announced else [p.ToolInputAvailable(self.call_id, self.name, self.input)]


async def run_tool(
    output: Output,
    call: ToolCall,
    tool: Tool,
    threads: Threads,
    offload: Offload | None = None,
    max_bytes: int = MAX_RESULT_BYTES,
) -> Json:
    """Write the call, run the tool, write its result, and return it. Raises what the tool raises, MessageTooLarge.

    The tool belongs to the agent's task: an abort cancels it at once, and a tool that continues all the same has
    lost its turn and can write nothing (INT-12, INT-13). A plain function runs in a thread. However the tool ends, the
    session gets the result, unless the turn has ended or was suspended.
    """
    arguments = call.input if call.announced else carried(call.input, f"the input of the tool {call.name}")
    await output.write(replace(call, input=arguments).chunks())
    try:
        with tracing.span(
            f"tool {call.name}", None, {"gen_ai.tool.name": call.name, "gen_ai.tool.call.id": call.call_id}
        ):
            result = await _run(tool, call.input, threads)
        carriable = await _fitting(result, call, threads, offload, max_bytes)
    except ControlFlow:
        raise
    except BaseException as error:
        if not output.stopped:
            await output.write_result(p.ToolOutputError(call.call_id, failure_text(call, error)))
        raise
    await output.write_result(p.ToolOutputAvailable(call.call_id, carriable))
    return result


async def _fitting(
    result: Any, call: ToolCall, threads: Threads, offload: Offload | None, max_bytes: int
) -> Json:
    """What the session gets of a result: its JSON form, or a reference to one that is too large."""
    what = f"the result of the tool {call.name}"
    carriable = carried(result, what)
    size = _size(carriable)
    if size <= max_bytes:
        return carriable
    if offload is not None:
        carriable = carried(await threads.call(offload, result), f"what `offload` returned for {what}")
        size = _size(carriable)
    if size > max_bytes:
        raise MessageTooLarge(
            f"{what} has {size} bytes, the limit is {max_bytes}: "
            "shorten it, or give `offload`, which keeps it elsewhere and returns a reference"
        )
    return carriable


def _size(carriable: Json) -> int:
    return len((carriable if isinstance(carriable, str) else to_text(carriable)).encode())


def failure_text(call: ToolCall, error: BaseException) -> str:
    """What the session gets for a failed tool: a generic text if the exception was not meant for it (TRN-19)."""
    if isinstance(error, asyncio.CancelledError):
        return f"The tool {call.name} was stopped."
    return (
        client_error(error).message if isinstance(error, TransportError) else f"The tool {call.name} failed."
    )


async def _run(tool: Tool, arguments: Json, threads: Threads) -> Json:
    if isinstance(arguments, dict):
        named = arguments if all(isinstance(name, str) for name in arguments) else carried(arguments)
        return await threads.call(tool, **named)  # type: ignore[arg-type]
    return await threads.call(tool, arguments)
