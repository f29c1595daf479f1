"""What the recorded transcripts say about a turn, as the encoder is given and gives it."""

from __future__ import annotations

import json
from typing import Any

from selfhost_transport.turns import headers as h
from selfhost_transport.turns.context import TurnContext
from selfhost_transport.turns.encoder import Append, Create, OutputOperation
from tests.turns.transcripts import Operation, Transcript, transport

# The cancel hook wrote one delta that is not a chunk of the agent's stream (README of the transcripts).
HOOK_WRITES = {"09-cancel-by-run-id": " [stopped]"}


# Chunks that were read but not published because the pipe had been cancelled already.
UNPUBLISHED = {"48-usechat-stop": "abort"}


CTX = TurnContext(
    session="s", turn_id="run", invocation_id="inv", agent_client_id="agent", step_id="inv-step-0"
)


def recorded_outputs(transcript: Transcript, codec_message_id: str) -> list[Operation]:
    """Operations on this assistant message, without the recovery update and the other sender's messages."""
    return [
        operation
        for operation in transcript.operations()
        if transport(operation.message).get("codec-message-id") == codec_message_id
        and transport(operation.message).get("role") == "assistant"
        and transport(operation.message).get("run-id")
        and operation.raw["action"] != 1
        and operation.raw.get("name") in (h.AI_OUTPUT, None)
    ]


def flat(ops: list[OutputOperation], open_keys: set[str]) -> list[dict[str, Any]]:
    """Operations in the shape of the transcript; header order included, as JSON text."""
    lines: list[dict[str, Any]] = []
    for op in ops:
        if isinstance(op, Create):
            message = op.message
            lines.append(
                {
                    "op": "publish",
                    "name": message.name,
                    "data": message.data,
                    "encoding": message.encoding,
                    "extras": json.dumps(message.extras),
                }
            )
        else:
            data = op.data if isinstance(op, Append) else ""
            lines.append({"op": "append", "data": data, "extras": json.dumps(op.extras)})
            assert op.stream_key in open_keys
    return lines
