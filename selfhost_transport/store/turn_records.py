"""What the store of turns takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfhost_transport.store.entries import Written, pack_created
from selfhost_transport.store.fields import TurnFields
from selfhost_transport.turns.commands import ALL_TURNS, CancelFilter, Policy
from selfhost_transport.turns.headers import read_headers
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position


@dataclass(frozen=True, slots=True)
class ClosingMessages:
    """Complete messages of a turn that scripts write when there is no worker to do it."""

    run_start: Message
    step_start: Message
    step_cancelled: Message
    step_failed: Message
    run_cancelled: Message
    # For a turn whose attempts were used up by workers that died.
    run_lost: Message
    # For a turn that another one answers too (policy `merge`).
    run_merged: Message
    # Informs readers of the stream, before the step fails, that the turn is lost.
    output_lost: Message | None = None

    @property
    def parent(self) -> str | None:
        """The message that the turn hangs below."""
        headers = read_headers(self.run_start)
        return headers.parent if headers is not None else None

    def fields(self) -> dict[str, bytes]:
        """The packed entries, by field of the turn's hash."""
        return {
            TurnFields.RUN_START: pack_created([self.run_start]),
            TurnFields.STEP_OPENING: pack_created([self.step_start]),
            TurnFields.STEP_CANCELLED: pack_created([self.step_cancelled]),
            TurnFields.STEP_FAILED: pack_created(
                [*([self.output_lost] if self.output_lost else []), self.step_failed]
            ),
            TurnFields.RUN_CANCELLED: pack_created([self.run_cancelled]),
            TurnFields.RUN_LOST: pack_created([self.run_lost]),
            TurnFields.RUN_MERGED: pack_created([self.run_merged]),
        }


@dataclass(frozen=True, slots=True)
class PackedClosing:
    """What `ClosingMessages` are packed to. `parent`: the message that the turn hangs below."""

    packed: dict[str, bytes]
    parent: str | None

    def fields(self) -> dict[str, bytes]:
        """The packed entries, by field of the turn's hash."""
        return self.packed


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """A message together with the turn it starts (P4)."""

    session: str
    turn_id: str
    agent: str
    messages: Sequence[Message]
    # '' for an anonymous owner.
    owner: str
    input_id: str
    event_id: str
    # Distinguishes a repeat of the same send from another send under the same id (P5).
    fingerprint: str
    closing: ClosingMessages | PackedClosing
    # What the worker needs to know, opaque to the store.
    context: bytes
    policy: Policy = Policy.CONCURRENT
    interrupts: CancelFilter = ALL_TURNS
    # The sender may not cancel: only turns of its own that wait for people can be interrupted.
    interrupts_own_suspended: bool = False
    # Written before the turns that this send interrupts are closed; needed with policy `interrupt`.
    cancel_message: Message | None = None
    max_active: int = 0
    # Turns that may wait; None: as the store's options say.
    queue_cap: int | None = None
    max_attempts: int = 3
    on_crash: str = "restart"


@dataclass(frozen=True, slots=True)
class Accepted(Written):
    """The answer to a send: written, and it will be worked on (P11). `status`: pending, queued or cancelled."""

    turn_id: str
    status: str
    repeated: bool = False
    interrupted: tuple[str, ...] = ()
    # Turns that wait before it: `queued`, in its session; else for a worker of the agent, in its bucket. And whether it
    # was accepted, as part of a burst, though it will wait longer than it should.
    waiting: int = 0
    burst: bool = False


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The answer to a cancel. No content of a matched turn has a position after `position` (P2)."""

    position: Position
    epoch: str
    matched: tuple[str, ...]
    already_ended: tuple[str, ...]
    # Those of `matched` whose agent's hook decides; each ends or continues within the hook's grace.
    asked: tuple[str, ...] = ()
    # Where more turns matched than one step can mark: from here on nothing of them is written, else `position`.
    sealed: Position = Position.ZERO


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's right to write for a turn. `step_start_serial`: of the attempt's opening entry.

    `attempt` counts from 1, without those that were handed back; `max_attempts` is the last one's number. `send`: the
    entry that started the turn, as it was sent; empty where that has been changed since. `more`: whether other turns
    were waiting in the queue behind this one. `alone`: nothing else may run in the worker beside it (`begin_alone`).
    `continued`: the attempt continues under the start, and in the messages, of one that was lost.
    """

    session: str
    turn_id: str
    # A number; with `n` behind it while only a closing note may be written.
    fence: int | str
    attempt: int
    max_attempts: int
    step_start_serial: str
    epoch: str
    input_position: Position
    context: bytes
    send: bytes = b""
    more: bool = True
    alone: bool = False
    continued: bool = False


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """What the store knows of a turn. `attempts`: those begun, without those that were handed back."""

    turn_id: str
    status: str
    agent: str
    owner: str
    input_id: str
    attempts: int
    worker: str | None
    terminal: Position | None
    cancel_position: Position | None
