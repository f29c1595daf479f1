"""Cancels in Redis: what a filter matches is marked first, in steps, and then closed, in steps."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from selfhost_transport.store.entries import pack_created
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.session_scripts import SessionScripts
from selfhost_transport.store.turn_records import Cancelled, TurnRequest
from selfhost_transport.turns.commands import CancelFilter, Scope
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position, new_epoch

_CLOSED_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class _CancelSlice:
    """What one call of the script did."""

    position: bytes
    epoch: bytes
    head: bytes
    matched: list[bytes]
    asked: list[bytes]
    marked: list[bytes]
    ended: list[bytes]

    @classmethod
    def of(cls, reply: Sequence[Any]) -> _CancelSlice:
        """Read the script's reply."""
        ends = [8]
        for count in reply[5:8]:
            ends.append(ends[-1] + count)
        matched, asked, marked = (list(reply[begin:end]) for begin, end in itertools.pairwise(ends))
        return cls(reply[0], reply[1], reply[4], matched, asked, marked, list(reply[ends[-1] :]))


class TurnCancels:
    """Ends turns from outside. Raises StoreUnavailable and StoreFull."""

    def __init__(self, session_scripts: SessionScripts, options: StoreOptions) -> None:
        self._scripts = session_scripts
        self._options = options

    async def cancel(
        self,
        session: str,
        cancel: CancelFilter,
        message: Message,
        *,
        input_turn: str = "",
        early: bool = True,
        force: bool = False,
    ) -> Cancelled:
        """End every open turn the filter matches. `message`: the cancel entry, with its verified author.

        `input_turn`: the turn id that belongs to an input filter's value. `early`: a cancel that names a turn
        not known yet is kept for it (CAN-4). `force`: without asking the agents' hooks. Nothing matched is no error (CAN-14).
        """
        slices = [
            one
            async for one in self._slices(
                session, cancel, message, input_turn=input_turn, early=early, force=force
            )
        ]
        position = Position.parse_id(slices[-1].position.decode())
        await self.close_marked(session, [turn for one in slices for turn in one.marked])
        head = Position.parse_id(slices[-1].head.decode())
        return Cancelled(
            position=position,
            epoch=slices[0].epoch.decode(),
            matched=tuple(sorted(turn.decode() for one in slices for turn in one.matched)),
            already_ended=tuple(turn.decode() for turn in slices[-1].ended),
            asked=tuple(turn.decode() for one in slices for turn in one.asked),
            sealed=position if len(slices) == 1 else max(position, head),
        )

    async def interrupt_rest(
        self, request: TurnRequest, position: Position, cursor: bytes = b""
    ) -> list[bytes]:
        """Cancel the turns from before `position` that a send interrupts and its own step did not reach."""
        if request.cancel_message is None or request.interrupts.scope is Scope.TURN:
            return []
        matched: list[bytes] = []
        marked: list[bytes] = []
        async for one in self._slices(
            request.session, request.interrupts, request.cancel_message, force=True, cursor=cursor,
            last=str(position.ms * 1000 + position.counter - 1).encode(), position=position.stream_id.encode(),
        ):  # fmt: skip
            matched += one.matched
            marked += one.marked
        await self.close_marked(request.session, marked)
        return matched

    async def close_marked(self, session: str, turns: Sequence[bytes]) -> None:
        """Close turns that a cancel marked, in steps that do not block others. A worker closes the rest."""
        for start in range(0, len(turns), _CLOSED_AT_ONCE):
            some = turns[start : start + _CLOSED_AT_ONCE]
            await self._scripts.run(
                "close_cancelled", session, some,
                keep_ms=self._options.ended_turn_ms, window_ms=self._options.window_ms,
            )  # fmt: skip

    async def _slices(
        self,
        session: str,
        cancel: CancelFilter,
        message: Message,
        *,
        input_turn: str = "",
        early: bool = False,
        force: bool = False,
        cursor: bytes = b"",
        last: bytes = b"",
        position: bytes = b"",
    ) -> AsyncIterator[_CancelSlice]:
        """Cancel what a filter matches, step by step; `cursor`, `last`, `position`: where another script has begun."""
        entry, options, epoch = pack_created([message]), self._options, new_epoch()
        while True:
            reply = await self._scripts.run(
                "cancel", session, filter=cancel.scope, value=cancel.value, cancel_entry=entry,
                keep_ms=options.ended_turn_ms, window_ms=options.window_ms, early_ms=options.idempotency_ms,
                early=int(early), new_epoch=epoch, input_turn=input_turn, requester=message.client_id or "",
                force=int(force), cursor=cursor, last=last, position=position,
            )  # fmt: skip
            yield _CancelSlice.of(reply)
            position, cursor, last = reply[0], reply[2], reply[3]
            if not cursor:
                return
