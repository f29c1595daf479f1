"""What a tree reports after a delivery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from selfhost_transport.turns.chunks import Chunk
from selfhost_transport.turns.runs import RunInfo


@dataclass(slots=True, frozen=True)
class StructureChanged:
    """Nodes or messages came, went or moved: the visible list may differ."""


@dataclass(slots=True, frozen=True)
class MessageChanged:
    """The content of a message changed, or a message is new. `turn_id` is None for a message without a turn."""

    codec_message_id: str
    turn_id: str | None


@dataclass(slots=True, frozen=True)
class ChunkReceived:
    """One chunk of a turn's output, in serial order, repairs included (protocol section 5.3)."""

    turn_id: str
    codec_message_id: str
    # The trigger of the invocation that wrote it.
    input_codec_message_id: str | None
    chunk: Chunk


@dataclass(slots=True, frozen=True)
class OutputReplaced:
    """The chunks reported for the turn are no longer valid: read its messages again.

    An attempt was superseded, or messages arrived out of order.
    """

    turn_id: str


@dataclass(slots=True, frozen=True)
class TurnChanged:
    """Status, steps or owner of a turn changed."""

    turn: RunInfo


@dataclass(slots=True, frozen=True)
class CancelSeen:
    """A cancel was requested; `client_id` is verified by the service."""

    run_id: str | None
    input_codec_message_id: str | None
    client_id: str | None


@dataclass(slots=True, frozen=True)
class Promoted:
    """Our own send came back from the service and has its position now (OPT-2)."""

    codec_message_id: str


TreeEvent: TypeAlias = (
    StructureChanged | MessageChanged | ChunkReceived | OutputReplaced | TurnChanged | CancelSeen | Promoted
)
