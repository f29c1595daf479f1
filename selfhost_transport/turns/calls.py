"""Names of the calls that a suspended turn waits for, and what an input into a turn answers (protocol section 8.5)."""

from __future__ import annotations

from typing import Final

from selfhost_transport.turns import headers as h
from selfhost_transport.turns import inputs
from selfhost_transport.wire.message import Message

CLOSED_CALL: Final = "The turn ended before this tool call had a result."
"""The result that a model sees for an unanswered call (CAN-23)."""


def result_key(tool_call_id: str) -> str:
    """The store's name of a client tool's result."""
    return f"result:{tool_call_id}"


def approval_key(tool_call_id: str) -> str:
    """The store's name of an answer to an approval request."""
    return f"approval:{tool_call_id}"


def answered_call(message: Message) -> str | None:
    """The call that an `ai-input` answers, by its name; None: it answers none, and so steers."""
    headers = h.read_headers(message)
    if headers is None:
        return None
    # The name that the OpenAI codec gives it comes second (section 6).
    call_id = headers.field("toolCallId") or headers.field("call_id")
    if call_id is None:
        return None
    match headers.kind:
        case inputs.TOOL_RESULT | inputs.TOOL_RESULT_ERROR:
            return result_key(call_id)
        case inputs.TOOL_APPROVAL_RESPONSE:
            return approval_key(call_id)
        case _:
            return None
