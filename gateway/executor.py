"""Carries operations out against the store."""

from __future__ import annotations

from collections import OrderedDict

from gateway.operations import (
    Cancel,
    ChangePresence,
    Done,
    LeavePresence,
    Mutate,
    Operation,
    Publish,
    Submit,
)
from selfhost_transport.errors import CapabilityError, TurnEnded
from selfhost_transport.store.entries import Ref
from selfhost_transport.store.presence import PresenceStore
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_store import TurnStore
from selfhost_transport.turns.machine import TERMINAL
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.frame import AckResult, CancelReceipt, TurnReceipt
from selfhost_transport.wire.serial import Position, format_item, format_position

_AUTHORS_KEPT = 4096
_ENDED = frozenset(status.value for status in TERMINAL)


class Executor:
    """Runs operations. Two that are started in order reach Redis in order unless one `needs_turn`."""

    def __init__(self, sessions: SessionStore, turns: TurnStore, presence: PresenceStore) -> None:
        self._sessions = sessions
        self._turns = turns
        self._presence = presence
        # Authors of messages that were changed lately: an append need not read the message again.
        self._authors: OrderedDict[tuple[str, Ref], str | None] = OrderedDict()

    def needs_turn(self, operation: Operation) -> bool:
        """Whether it reads before it writes, and so has to wait for earlier ones and hold up later ones."""
        match operation:
            case Publish():
                return bool(operation.continues)
            case Mutate():
                known = operation.author is None or (operation.session, operation.ref) in self._authors
                return operation.action is not MessageAction.APPEND or not known
            case _:
                return False

    async def run(self, operation: Operation) -> Done:
        """Write it. Raises the TransportError to answer with."""
        match operation:
            case Publish():
                return await self._publish(operation)
            case Mutate():
                return await self._mutate(operation)
            case Submit():
                return await self._submit(operation)
            case Cancel():
                return await self._cancel(operation)
            case ChangePresence():
                return await self._change_presence(operation)
            case LeavePresence():
                return await self._leave_presence(operation)

    async def _publish(self, operation: Publish) -> Done:
        for turn in operation.continues:
            record = await self._turns.record(operation.session, turn)
            if record is not None and record.status in _ENDED:
                raise TurnEnded(
                    f"the turn has ended ({record.status}); send a new message to start another turn",
                    detail={"turn": turn, "status": record.status},
                )
        published = await self._sessions.publish(
            operation.session,
            operation.messages,
            publish_id=operation.publish_id,
            groups=operation.groups,
            ephemeral=operation.ephemeral,
        )
        serials: list[str | None] = [*published.serials(len(operation.messages))]
        for index, message in enumerate(operation.messages):
            self._note_author(operation.session, Ref(published.position, index), message.client_id)
        return Done(AckResult(serials), published.position, published.series)

    async def _mutate(self, operation: Mutate) -> Done:
        if operation.author is not None:
            await self._check_author(operation)
        change = operation.change
        if operation.action is MessageAction.APPEND:
            position = await self._sessions.append(
                operation.session,
                operation.ref,
                change.data,
                encoding=change.encoding,
                extras=change.extras,
                name=change.name,
                operation=operation.edit,
                publish_id=operation.publish_id,
            )
        else:
            position = await self._sessions.replace(
                operation.session,
                operation.ref,
                operation.action,
                change,
                operation.edit,
                publish_id=operation.publish_id,
            )
        return Done(AckResult([format_item(position, operation.series, 0)]), position, operation.series)

    async def _check_author(self, operation: Mutate) -> None:
        key = (operation.session, operation.ref)
        if key not in self._authors:
            state = await self._sessions.history.state(operation.session, operation.ref)
            self._note_author(*key, state.message.client_id)
        if self._authors[key] != operation.author:
            raise CapabilityError("the credentials permit changing one's own messages only")

    async def _submit(self, operation: Submit) -> Done:
        request = operation.request
        accepted = await self._turns.submit(request)
        receipt = TurnReceipt(accepted.turn_id, accepted.status, accepted.repeated, accepted.interrupted)
        serials: list[str | None] = [*accepted.serials(len(request.messages))]
        return Done(
            AckResult(serials, turn=receipt),
            accepted.position,
            accepted.series,
            settled_at=accepted.position if accepted.interrupted else None,
            interrupted=accepted.interrupted,
        )

    async def _cancel(self, operation: Cancel) -> Done:
        cancelled = await self._turns.cancel(
            operation.session, operation.filter, operation.message, input_turn=operation.input_turn
        )
        position, series = cancelled.position, cancelled.series
        receipt = CancelReceipt(format_position(position, series), cancelled.matched, cancelled.already_ended)
        return Done(
            AckResult([format_item(position, series, 0)], cancel=receipt),
            position,
            series,
            settled_at=position if position > Position.ZERO else None,
        )

    async def _change_presence(self, operation: ChangePresence) -> Done:
        changed = await self._presence.change(
            operation.session, operation.holder, operation.changes, publish_id=operation.publish_id
        )
        return Done(AckResult([]), changed.position or Position.ZERO, changed.series)

    async def _leave_presence(self, operation: LeavePresence) -> Done:
        if operation.session is None:
            await self._presence.leave_all(operation.holder)
        else:
            await self._presence.leave(operation.session, operation.holder.connection_id)
        return Done(AckResult([]), Position.ZERO, "")

    def _note_author(self, session: str, ref: Ref, client_id: str | None) -> None:
        self._authors[session, ref] = client_id
        if len(self._authors) > _AUTHORS_KEPT:
            self._authors.popitem(last=False)
