"""What a client asks the store to do, once it has been validated, and what became of it.

Websocket, REST and the plain HTTP API all make these; only `executor.py` carries them out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from selfhost_transport.store.appends import MessageAppend
from selfhost_transport.store.entries import MessageOperation as Edit
from selfhost_transport.store.entries import Ref
from selfhost_transport.store.presence import Holder
from selfhost_transport.store.turn_store import CancelFilter, TurnRequest
from selfhost_transport.turns.withholding import Hidden
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.annotation import Annotation
from selfhost_transport.wire.frame import AckResult
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.presence import PresenceMessage
from selfhost_transport.wire.serial import Position


@dataclass(frozen=True, slots=True)
class Publish:
    """Store messages as one publish. `publish_id` makes a repeat recognisable, '' for none."""

    session: str
    messages: tuple[Message, ...]
    publish_id: str = ""
    ephemeral: bool = False


@dataclass(frozen=True, slots=True)
class AppendToMessage:
    """Write appends to one message, as one change. `author`: the only client id whose message it may be.

    `keeps_kind`: what the message is has to stay as it was published (message_rules.py).
    """

    session: str
    ref: Ref
    epoch: str
    appends: tuple[MessageAppend, ...]
    author: str | None = None
    keeps_kind: bool = False


@dataclass(frozen=True, slots=True)
class Replace:
    """Update or delete one message. `author` and `keeps_kind` as for an append."""

    session: str
    ref: Ref
    epoch: str
    action: MessageAction
    change: Message
    edit: Edit
    publish_id: str = ""
    author: str | None = None
    keeps_kind: bool = False


@dataclass(frozen=True, slots=True)
class Submit:
    """Store messages together with the turn they start (P4). `is_adrift`: they do not say what they follow.

    `copies`: they carry copies of an answer; it says what the sender does not get of the session.
    """

    request: TurnRequest
    is_adrift: bool = False
    copies: Hidden | None = None


@dataclass(frozen=True, slots=True)
class TurnInput:
    """One input into a turn. `call`: the call that it answers; None: it steers. `input_id` recognises a repeat."""

    turn_id: str
    call: str | None
    messages: tuple[Message, ...]
    input_id: str = ""


@dataclass(frozen=True, slots=True)
class Continue:
    """Give inputs to turns that exist, in order; never empty."""

    session: str
    inputs: tuple[TurnInput, ...]


@dataclass(frozen=True, slots=True)
class CancelTurns:
    """End the turns that a filter matches (P2). `input_turn`: the turn of an input filter's value."""

    session: str
    filter: CancelFilter
    message: Message
    input_turn: str = ""


@dataclass(frozen=True, slots=True)
class ChangePresence:
    """Enter, update or leave members of one connection, all in one step. Ids and client ids are set."""

    session: str
    holder: Holder
    changes: tuple[PresenceMessage, ...]
    publish_id: str = ""


@dataclass(frozen=True, slots=True)
class Annotate:
    """Add annotations to messages, or take one's own back, all in one step. `repeat_id` recognises the same frame again."""

    session: str
    annotations: tuple[tuple[Ref, Annotation], ...]
    repeat_id: str = ""


@dataclass(frozen=True, slots=True)
class LeavePresence:
    """Take all members of a connection out of a session (DETACH), or of every one (CLOSE, `session` None)."""

    session: str | None
    holder: Holder


ClientOperation: TypeAlias = (
    Publish
    | AppendToMessage
    | Replace
    | Submit
    | Continue
    | CancelTurns
    | Annotate
    | ChangePresence
    | LeavePresence
)


def woken_session(operation: ClientOperation) -> str | None:
    """The session whose agent an operation sets to work; None for all others."""
    match operation:
        case Submit(request):
            return request.session
        case Continue(session):
            return session
        case _:
            return None


@dataclass(frozen=True, slots=True)
class Done:
    """A write that is in Redis (P11).

    `reply_after`: the reply may leave a socket only after every entry up to this position has (P2): who has entered finds
    itself among the members. `hurries`: entries that wait for another reply need not, up to there.
    """

    result: AckResult
    position: Position
    epoch: str
    reply_after: Position | None = None
    hurries: bool = False
    interrupted: tuple[str, ...] = field(default=())
