"""Inputs into turns that exist: steers, tool results, approvals (ai-transport sections 8.5 and 8.8)."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.commands.commands import Continue, TurnInput
from gateway.commands.fork_seed import has_copies
from selfhost_transport.errors import InvalidArgument, NotFound, TransportError, TurnEnded
from selfhost_transport.store.names import joined
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_inputs import InputAccepted, TurnInputs
from selfhost_transport.store.turn_request import continuation_for, unpack_context
from selfhost_transport.store.turn_store import TurnRequest, TurnStore
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import lifecycle
from selfhost_transport.turns.calls import answered_call
from selfhost_transport.wire.message import Message


def read_continuation(session: str, messages: Sequence[Message]) -> Continue | None:
    """The inputs that a publish without a trigger consists of; None if no message has a run-id.

    The parts of one steer are one input, every answer is one of its own. Raises InvalidArgument for a publish that
    holds other messages too.
    """
    found = [_read(message) for message in messages]
    inputs = [one for one in found if one is not None]
    if not inputs:
        return None
    if len(inputs) < len(messages):
        raise InvalidArgument("inputs into a turn are published without other messages")
    joined: list[TurnInput] = []
    for one in inputs:
        if joined and joined[-1].input_id == one.input_id:
            last = joined.pop()
            one = TurnInput(last.turn_id, last.call, (*last.messages, *one.messages), last.input_id)
        joined.append(one)
    return Continue(session, tuple(joined))


def _read(message: Message) -> TurnInput | None:
    headers = h.read_headers(message)
    if message.name != h.AI_INPUT or headers is None or not headers.run_id:
        return None
    message_id, call = headers.codec_message_id, answered_call(message)
    if message_id is None:
        raise InvalidArgument("an ai-input needs a codec-message-id header")
    if has_copies(message):
        raise InvalidArgument(
            "an answer into a turn (`run-id`) carries no copies of its messages (`forkSeed`)"
        )
    # An answer's message is the one that made the call, so only its event distinguishes a repeat from another answer.
    if call is None:
        return TurnInput(headers.run_id, None, (message,), joined("steer", headers.run_id, message_id))
    input_id = joined("answer", headers.run_id, call, headers.event_id) if headers.event_id else ""
    return TurnInput(headers.run_id, call, (message,), input_id)


class Continuations:
    """Carries inputs into turns out."""

    def __init__(self, sessions: SessionStore, turns: TurnStore, inputs: TurnInputs) -> None:
        self._sessions = sessions
        self._turns = turns
        self._inputs = inputs

    async def give(self, session: str, turn_input: TurnInput) -> InputAccepted:
        """Write one input. Raises TurnEnded, NotFound; Conflict for a call that was answered before (TOL-7)."""
        turn, messages = turn_input.turn_id, list(turn_input.messages)
        if turn_input.call is None:
            return await self._inputs.steer(session, turn, messages, publish_id=turn_input.input_id)
        packed = await self._inputs.context(session, turn)
        if packed is None:
            raise await self._why_over(session, turn)
        continuation = continuation_for(messages[-1], unpack_context(packed))
        return await self._inputs.answer(
            session, turn, messages, turn_input.call, continuation, publish_id=turn_input.input_id
        )

    async def announce_queued(self, request: TurnRequest) -> None:
        """Announce in the session that an accepted turn waits, so that every device can show it (DBL-2).

        Announced, not decided here: a turn that has started by now has its run-start before this entry.
        """
        waiting = await self._inputs.waiting(request.session)
        if request.turn_id not in waiting:
            return
        message = lifecycle.run_queued(unpack_context(request.context), waiting.index(request.turn_id) + 1)
        await self._sessions.publish(request.session, [message])

    async def _why_over(self, session: str, turn: str) -> TransportError:
        record = await self._turns.record(session, turn)
        if record is None:
            return NotFound(f"there is no turn {turn} in this session, or it ended long ago")
        return TurnEnded(
            f"turn {turn} has ended ({record.status}); send a new message instead",
            detail={"turn": turn, "status": record.status},
        )
