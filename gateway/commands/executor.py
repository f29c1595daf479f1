"""Carries operations out against the store."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TypeVar

from gateway.commands.branch import find_parent
from gateway.commands.burst import Burst
from gateway.commands.cancel_voting import CancelOutcome, CancelVoting
from gateway.commands.commands import (
    Annotate,
    AppendToMessage,
    CancelTurns,
    ChangePresence,
    ClientOperation,
    Continue,
    Done,
    LeavePresence,
    Publish,
    Replace,
    Submit,
)
from gateway.commands.continuations import Continuations
from gateway.commands.fork_seed import with_stored_copies
from gateway.commands.message_rules import MessageType
from gateway.metrics import Metrics
from selfhost_transport import tracing
from selfhost_transport.errors import CancelDenied, CapabilityError, Overloaded, TransportError
from selfhost_transport.store.annotations import AnnotationStore
from selfhost_transport.store.entries import Ref
from selfhost_transport.store.keys import bucket_of
from selfhost_transport.store.presence import PresenceStore
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_request import traceparent_in, trigger_of, with_parent, with_trace
from selfhost_transport.store.turn_store import TurnRequest, TurnStore
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.headers import read_headers
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.frame import AckResult, CancelReceipt, TurnReceipt
from selfhost_transport.wire.serial import Position, format_item, format_position

_MESSAGES_KEPT = 4096
QUEUED = "queued"
"""The status of a turn that waits in its session for another to end."""


_KeptT = TypeVar("_KeptT")


class _Latest(OrderedDict[tuple[str, Ref], _KeptT]):
    """Cached facts about recently checked messages."""

    def put(self, message: tuple[str, Ref], value: _KeptT) -> None:
        self[message] = value
        if len(self) > _MESSAGES_KEPT:
            self.popitem(last=False)


class Executor:
    """Runs operations. Two that are started in order reach Redis in order unless one `needs_turn`."""

    def __init__(
        self,
        sessions: SessionStore,
        turns: TurnStore,
        presence: PresenceStore,
        annotations: AnnotationStore,
        continuations: Continuations,
        voting: CancelVoting,
        metrics: Metrics,
        burst: Burst,
    ) -> None:
        self._sessions = sessions
        self._turns = turns
        self._presence = presence
        self._annotations = annotations
        self._continuations = continuations
        self._voting = voting
        self._metrics = metrics
        self._burst = burst
        # Of messages that were changed lately: an append need not read the message again.
        self._authors: _Latest[str | None] = _Latest()
        # Only of those that have to keep it, and so cannot change it.
        self._kinds: _Latest[MessageType] = _Latest()

    def needs_turn(self, operation: ClientOperation) -> bool:
        """Whether it reads before it writes, and so has to wait for earlier ones and hold up later ones."""
        match operation:
            case Continue():
                return True
            case Replace():
                return True
            case Submit():
                return operation.is_adrift or operation.copies is not None
            case AppendToMessage(author=author, keeps_kind=keeps_kind):
                key = (operation.session, operation.ref)
                return (author is not None and key not in self._authors) or (
                    keeps_kind and key not in self._kinds
                )
            case _:
                return False

    async def run(self, operation: ClientOperation) -> Done:
        """Write it. Raises the TransportError to answer with."""
        match operation:
            case Publish():
                return await self._publish(operation)
            case AppendToMessage():
                return await self._append(operation)
            case Replace():
                return await self._replace(operation)
            case Submit():
                return await self._submit(operation)
            case Continue():
                return await self._continue(operation)
            case CancelTurns():
                return await self._cancel(operation)
            case Annotate():
                return await self._annotate(operation)
            case ChangePresence():
                return await self._change_presence(operation)
            case LeavePresence():
                return await self._leave_presence(operation)

    async def _publish(self, operation: Publish) -> Done:
        published = await self._sessions.publish(
            operation.session,
            operation.messages,
            publish_id=operation.publish_id,
            ephemeral=operation.ephemeral,
        )
        serials: list[str | None] = [*published.serials(len(operation.messages))]
        for index, message in enumerate(operation.messages):
            self._authors.put((operation.session, Ref(published.position, index)), message.client_id)
        return Done(AckResult(serials), published.position, published.epoch)

    async def _append(self, operation: AppendToMessage) -> Done:
        await self._check_change(operation)
        versions = await self._sessions.append_all(operation.session, operation.ref, operation.appends)
        serials: list[str | None] = [version.serial(operation.epoch) for version in versions]
        return Done(AckResult(serials), versions[-1].position, operation.epoch)

    async def _replace(self, operation: Replace) -> Done:
        await self._check_change(operation)
        position = await self._sessions.replace(
            operation.session,
            operation.ref,
            operation.action,
            operation.change,
            operation.edit,
            publish_id=operation.publish_id,
        )
        return Done(AckResult([format_item(position, operation.epoch, 0)]), position, operation.epoch)

    async def _check_change(self, operation: AppendToMessage | Replace) -> None:
        """Raises CapabilityError for a change of another's message, or of what the message is."""
        key = (operation.session, operation.ref)
        unknown = operation.author is not None and key not in self._authors
        if unknown or (operation.keeps_kind and key not in self._kinds):
            message = (await self._sessions.history.state(*key)).message
            self._authors.put(key, message.client_id)
            if operation.keeps_kind:
                self._kinds.put(key, MessageType.of(message))
        if operation.author is not None and self._authors[key] != operation.author:
            raise CapabilityError("the credentials permit changing the client's own messages only")
        if operation.keeps_kind:
            _check_kind(self._kinds[key], operation)

    async def read_for(self, operation: Submit) -> Submit:
        """The send with what it takes from the session; what is left is one write. Raises the error to answer with.

        Operations behind it may be started together with the write, so that a cancel in the same breath as its send
        arrives before any worker (CAN-4).
        """
        request = await self._anchored(operation)
        if operation.copies is not None:
            request = await with_stored_copies(self._sessions, request, operation.copies)
        return Submit(request)

    async def _submit(self, operation: Submit) -> Done:
        if self.needs_turn(operation):
            operation = await self.read_for(operation)
        request = operation.request
        named = traceparent_in(request.messages) or tracing.incoming_traceparent()
        with tracing.span(
            "gateway submit",
            named,
            {"sht.session": request.session, "sht.turn": request.turn_id},
            kind="SERVER",
        ) as span:
            traced = tracing.traceparent_of(span) or named
            return await self._submit_request(request if traced is None else with_trace(request, traced))

    async def _submit_request(self, request: TurnRequest) -> Done:
        try:
            with tracing.span("redis submit", None, {"db.system": "redis"}, kind="CLIENT"):
                accepted = await self._turns.submit(request, may_burst=self._burst.allowed)
        except Overloaded as error:
            queue = (request.agent, bucket_of(request.session, self._turns.keys.buckets))
            self._burst.close(queue, error.info.retry_after_ms or 0)
            self._metrics.shed("queue_too_long")
            raise
        if accepted.burst:
            self._burst.press()
        receipt = TurnReceipt(
            accepted.turn_id, accepted.status, accepted.repeated, accepted.interrupted, accepted.waiting
        )
        serials: list[str | None] = [*accepted.serials(len(request.messages))]
        if accepted.status == QUEUED and not accepted.repeated:
            await self._continuations.announce_queued(request)
        self._metrics.sent(accepted.status, repeated=accepted.repeated)
        return Done(
            AckResult(serials, turn=receipt),
            accepted.position,
            accepted.epoch,
            reply_after=accepted.position if accepted.interrupted else None,
            hurries=bool(accepted.interrupted),
            interrupted=accepted.interrupted,
        )

    async def _anchored(self, operation: Submit) -> TurnRequest:
        """The request with what its message follows, which a client that has read nothing yet cannot say (P14)."""
        request = operation.request
        trigger = trigger_of(request.messages) if operation.is_adrift else None
        headers = read_headers(trigger) if trigger is not None else None
        if headers is None:
            return request
        parent = await find_parent(self._sessions, request.session, headers)
        return with_parent(request, parent) if parent is not None else request

    async def _continue(self, operation: Continue) -> Done:
        """Give the inputs one by one. One that is refused beside others that are not has no serial."""
        serials: list[str | None] = []
        refused: TransportError | None = None
        done: Done | None = None
        for one in operation.inputs:
            try:
                accepted = await self._continuations.give(operation.session, one)
            except TransportError as error:
                refused = error
                serials += [None] * len(one.messages)
                continue
            serials += accepted.serials(len(one.messages))
            receipt = TurnReceipt(one.turn_id, accepted.status, accepted.repeated)
            done = Done(AckResult(serials, turn=receipt), accepted.position, accepted.epoch)
        if done is None:
            assert refused is not None
            raise refused
        return done

    async def _cancel(self, operation: CancelTurns) -> Done:
        began = time.monotonic()
        named = tracing.incoming_traceparent()
        with tracing.span("gateway cancel", named, {"sht.session": operation.session}, kind="SERVER") as span:
            message = operation.message
            if (traced := tracing.traceparent_of(span)) is not None:
                message = h.with_transport_header(message, h.TRACEPARENT, traced)
            cancelled = await self._turns.cancels.cancel(
                operation.session, operation.filter, message, input_turn=operation.input_turn
            )
        position = max(cancelled.position, cancelled.sealed)
        matched, outcome = cancelled.matched, CancelOutcome()
        undecided: tuple[str, ...] = ()
        if cancelled.asked:
            outcome = await self._voting.outcome(operation.session, cancelled.position, cancelled.asked)
            undecided = outcome.undecided(cancelled.asked)
            # The agent of an undecided turn may still write, so the cancel has not taken effect on it (P2).
            matched = tuple(turn for turn in matched if turn not in outcome.denied and turn not in undecided)
            position = max(position, outcome.sealed_at)
            if not matched and not undecided:
                why = next(iter(outcome.denied.values()))
                raise CancelDenied(why, detail={"reason": "cancel_denied", "turns": list(outcome.denied)})
        receipt = CancelReceipt(
            format_position(position, cancelled.epoch),
            matched,
            cancelled.already_ended,
            denied=tuple(outcome.denied),
            hook_failed=tuple(sorted(outcome.hook_failed)),
            undecided=undecided,
        )
        self._metrics.ended_by_cancel(len(matched), time.monotonic() - began)
        return Done(
            AckResult([format_item(cancelled.position, cancelled.epoch, 0)], cancel=receipt),
            position,
            cancelled.epoch,
            reply_after=position if position > Position.ZERO else None,
            hurries=True,
        )

    async def _annotate(self, operation: Annotate) -> Done:
        given = await self._annotations.give(
            operation.session, operation.annotations, publish_id=operation.repeat_id
        )
        serials: list[str | None] = [*given.serials]
        return Done(AckResult(serials), given.positions[-1], given.epoch)

    async def _change_presence(self, operation: ChangePresence) -> Done:
        changed = await self._presence.change(
            operation.session, operation.holder, operation.changes, publish_id=operation.publish_id
        )
        position = changed.position or Position.ZERO
        return Done(AckResult([]), position, changed.epoch, reply_after=changed.position)

    async def _leave_presence(self, operation: LeavePresence) -> Done:
        if operation.session is None:
            await self._presence.leave_all(operation.holder)
        else:
            await self._presence.leave(operation.session, operation.holder.connection_id)
        return Done(AckResult([]), Position.ZERO, "")


def _check_kind(kind: MessageType, operation: AppendToMessage | Replace) -> None:
    if isinstance(operation, AppendToMessage):
        for append in operation.appends:
            kind.check_change(append.name, append.extras)
    else:
        delete = operation.action is MessageAction.DELETE
        kind.check_change(operation.change.name, operation.change.extras, delete=delete)
