"""The end of a turn whose cancel its agent's hook allowed: a note, if it has one, and the terminal (CAN-10)."""

from __future__ import annotations

import uuid
from dataclasses import replace

from selfhost_transport.store.entries import Ref
from selfhost_transport.store.turn_operations import CloseMessage, CreateMessage, WriteOperation
from selfhost_transport.store.turn_store import Lease, TurnStore
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import encoder, lifecycle
from selfhost_transport.turns.codec import Codec, PassEncoder
from selfhost_transport.turns.codecs import UI_MESSAGES
from selfhost_transport.turns.context import TurnContext
from selfhost_transport.turns.lifecycle import RunReason, StepReason
from selfhost_transport.turns.values import Json

CLOSING_NOTE_MS = 1_000
"""How long a closing note may take after the decision; then the turn is ended without it."""

NOTE: Json = {"note": True}
"""Metadata of the message that a closing note is in."""

_SEQUENCE = 1_000_000_000
"""Above every number of the attempt, so that it cannot be taken for a repetition of one of its steps."""


async def write_closing_note(
    store: TurnStore, lease: Lease, context: TurnContext, note: str | None, codec: Codec = UI_MESSAGES
) -> None:
    """Write the note as a message of its own, then the terminal. Raises LeaseLost when the grace was over."""
    sealed = replace(lease, fence=f"{lease.fence}n")
    closing: list[WriteOperation] = []
    if note:
        closing = await _open_note(
            store, sealed, codec.encoder(context, str(uuid.uuid4()), lease.step_start_serial), note
        )
    step = lifecycle.step_end(context, lease.step_start_serial, StepReason.CANCELLED)
    run = lifecycle.run_end(context, RunReason.CANCELLED)
    await store.end(sealed, "cancelled", [*closing, CreateMessage(step), CreateMessage(run)])


async def _open_note(store: TurnStore, lease: Lease, writing: PassEncoder, note: str) -> list[WriteOperation]:
    """Begin the note's message; what completes it."""
    chunks: list[p.Chunk] = [p.Start(writing.codec_message_id, NOTE), p.TextStart("note")]
    opening = [op for chunk in chunks for op in writing.encode(chunk) if isinstance(op, encoder.Create)]
    positions = await store.write(lease, _SEQUENCE, [CreateMessage(op.message, op.closing) for op in opening])
    closing: list[WriteOperation] = []
    for op in writing.encode(p.TextEnd("note")):
        if isinstance(op, encoder.Close):
            closing.append(CloseMessage(Ref(positions[-1]), op.extras, note))
        elif isinstance(op, encoder.Create):
            closing.append(CreateMessage(op.message))
    return closing
