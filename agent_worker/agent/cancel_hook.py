"""Cancel hooks: the request, the matched turns and the decision (CAN-7 to CAN-11)."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from agent_worker.user_code.containment import drop_frames, start
from agent_worker.user_code.errors import described
from agent_worker.user_code.tasks import UserCode
from agent_worker.user_code.threads import Threads
from selfhost_transport.errors import CancelDenied, ErrorInfo, InvalidArgument
from selfhost_transport.logs import Fields
from selfhost_transport.store.turn_pauses import LONGEST_HOOK_GRACE_S, CancelAsked
from selfhost_transport.store.turn_store import CancelFilter, Scope
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.message import Message

if TYPE_CHECKING:
    from agent_worker.agent.turn import Turn

logger = logging.getLogger(__name__)

_HOOK_FAILED_CODE = 104002
"""The SDK's code for a hook that threw (ai-transport section 12)."""

_REFUSED = "the agent does not permit this cancel"
_HOOK_FAILED = "the agent's cancel hook failed, so the cancel counts as {}"
_HOOK_SILENT = "the agent's cancel hook timed out, so the cancel counts as {}"


class Undecided(StrEnum):
    """What a hook counts as that raises or takes too long: fail open, or fail closed."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """What a hook is asked about. `requester`: verified client id; None: anonymous.

    `matched`: the turns of the session whose agents are asked about the same cancel, with their owners ('' for
    anonymous ones); this turn is one of them.
    """

    turn: Turn
    requester: str | None
    filter: CancelFilter
    matched: Mapping[str, str]

    def closing_note(self, text: str) -> None:
        """Text to write last, marked as a note, if the cancel is allowed."""
        self.turn.closing_note(text)

    def last_word(self, text: str) -> None:
        """Deprecated: use `closing_note`."""
        warnings.warn("last_word is deprecated: use closing_note", DeprecationWarning, stacklevel=2)
        self.closing_note(text)


HookFunction: TypeAlias = Callable[[CancelRequest], Awaitable[bool | None] | bool | None]
"""Allows a cancel unless it returns False. A plain function runs in a thread."""


@dataclass(frozen=True, slots=True)
class CancelHook:
    """An agent's hook. `grace_s`: how long it may take, counted from the cancel; more than 0, at most 8.

    Raises InvalidArgument for another grace: the requester's gateway would answer before the hook decides.
    """

    function: HookFunction
    undecided: Undecided = Undecided.ALLOW
    grace_s: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.grace_s <= LONGEST_HOOK_GRACE_S:
            raise InvalidArgument(
                f"a cancel hook may take more than 0 and at most {LONGEST_HOOK_GRACE_S:g} seconds (grace_s), "
                f"not {self.grace_s:g}: the requester waits for it"
            )

    async def decision(self, request: CancelRequest, threads: Threads, agent: str) -> Decision:
        """Ask the hook; it cannot hold the turn open longer than its grace, nor by ignoring its cancellation."""
        turn = request.turn
        code = UserCode("cancel hook", agent, turn.session, turn.turn_id)
        asked = start(threads.call(self.function, request), code)
        await asyncio.wait({asked}, timeout=self.grace_s)
        names = Fields(session=turn.session, turn=turn.turn_id)
        if not asked.done():
            asked.cancel()
            asked.add_done_callback(_forget)
            logger.warning("cancel.hook_silent %s then=%s", names, self.undecided)
            return self._undecided(_HOOK_SILENT)
        if asked.cancelled() or (error := asked.exception()) is not None:
            raised = None if asked.cancelled() else error
            logger.error("cancel.hook_failed %s then=%s", names, self.undecided, exc_info=raised)
            drop_frames(raised)
            return self._undecided(_HOOK_FAILED)
        return Decision(True) if asked.result() is not False else Decision(False, _denied(_REFUSED))

    def _undecided(self, why: str) -> Decision:
        if self.undecided is Undecided.ALLOW:
            info = ErrorInfo(code=_HOOK_FAILED_CODE, status_code=500, message=why.format("allowed"))
            return Decision(True, info)
        return Decision(False, _denied(why.format("refused")))


@dataclass(frozen=True, slots=True)
class Decision:
    """Outcome of a cancel. `error`: the requester's error for a refusal, or for a failed hook (CAN-9)."""

    allowed: bool
    error: ErrorInfo | None = None


def request_for(turn: Turn, asked: CancelAsked, entry: Message) -> CancelRequest:
    """The request that the hook gets; `entry` is the cancel's entry in the session."""
    return CancelRequest(turn, asked.requester or None, _filter(entry, asked.requester), asked.matched)


def _filter(entry: Message, requester: str) -> CancelFilter:
    headers = h.read_headers(entry)
    if headers is not None:
        if headers.run_id:
            return CancelFilter(Scope.TURN, headers.run_id)
        if headers.input_codec_message_id:
            return CancelFilter(Scope.INPUT, headers.input_codec_message_id)
        if owner := headers.get(h.CANCEL_CLIENT_ID):
            return CancelFilter(Scope.OWNER, owner)
        if headers.get(h.CANCEL_OWN) == "true":
            return CancelFilter(Scope.OWNER, requester)
        if headers.get(h.CANCEL_CONNECTION) == "true":
            return CancelFilter(Scope.CONNECTION, entry.connection_id or "")
    return CancelFilter(Scope.ALL)


def _denied(why: str) -> ErrorInfo:
    return CancelDenied(why, detail={"reason": "cancel_denied"}).info


def _forget(hook: asyncio.Future[bool | None]) -> None:
    """An abandoned hook may still fail; its result is not awaited."""
    if not hook.cancelled() and (error := hook.exception()) is not None:
        logger.debug("cancel.hook_unwound error=%s", described(error))
        drop_frames(error)
