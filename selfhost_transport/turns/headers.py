"""Names of messages and transport headers (protocol sections 2.3 and 3), and tolerant reading of both tiers.

All header values are strings: booleans are "true"/"false", structures are compact JSON text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns.values import whole_characters
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message

AI_INPUT: Final = "ai-input"
AI_OUTPUT: Final = "ai-output"
AI_RUN_START: Final = "ai-run-start"
AI_RUN_RESUME: Final = "ai-run-resume"
AI_RUN_SUSPEND: Final = "ai-run-suspend"
AI_RUN_END: Final = "ai-run-end"
AI_STEP_START: Final = "ai-step-start"
AI_STEP_END: Final = "ai-step-end"
AI_CANCEL: Final = "ai-cancel"
# The project's own: an agent's verdict on a cancel it was asked about. Others ignore names they do not know.
AI_CANCEL_DENIED: Final = "ai-cancel-denied"
AI_CANCEL_ALLOWED: Final = "ai-cancel-allowed"
# The service's word that an accepted turn waits by policy; it leaves the queue with its run-start.
AI_RUN_QUEUED: Final = "ai-run-queued"
# A suspended turn has waited for people longer than its agent allows; others may take care of it (HIL-5).
AI_RUN_ESCALATED: Final = "ai-run-escalated"

# Selection of a branch for all readers; `codec-message-id` is the message at its head (BRA-7).
AI_BRANCH_SELECTED: Final = "ai-branch-selected"

# What only an agent may publish (protocol section 11, row "authenticated clientId").
AGENT_MESSAGES: Final = frozenset(
    {
        AI_OUTPUT,
        AI_RUN_START,
        AI_RUN_RESUME,
        AI_RUN_SUSPEND,
        AI_RUN_END,
        AI_STEP_START,
        AI_STEP_END,
        AI_CANCEL_DENIED,
        AI_CANCEL_ALLOWED,
        AI_RUN_QUEUED,
        AI_RUN_ESCALATED,
    }
)
PROTOCOL_MESSAGES: Final = AGENT_MESSAGES | {AI_INPUT, AI_CANCEL, AI_BRANCH_SELECTED}
"""Names that mean something to readers of a conversation."""
RUN_LIFECYCLE: Final = frozenset({AI_RUN_START, AI_RUN_RESUME, AI_RUN_SUSPEND, AI_RUN_END})

ROLE: Final = "role"
CODEC_MESSAGE_ID: Final = "codec-message-id"
RUN_ID: Final = "run-id"
INVOCATION_ID: Final = "invocation-id"
EVENT_ID: Final = "event-id"
RUN_CLIENT_ID: Final = "run-client-id"
INPUT_CLIENT_ID: Final = "input-client-id"
STEP_CLIENT_ID: Final = "step-client-id"
INPUT_CODEC_MESSAGE_ID: Final = "input-codec-message-id"
PARENT: Final = "parent"
FIRST: Final = "first-message"
"""Our own: the sender has read the whole conversation, which is empty. Without it the service finds the parent."""
# The trace that an input belongs to (W3C); of interest to processes only.
TRACEPARENT: Final = "traceparent"
FORK_OF: Final = "fork-of"
MSG_REGENERATE: Final = "msg-regenerate"
SUPERSEDES: Final = "supersedes"
STEP_ID: Final = "step-id"
STEP_START_SERIAL: Final = "step-start-serial"
STEP_REASON: Final = "step-reason"
RUN_REASON: Final = "run-reason"
ERROR_CODE: Final = "error-code"
ERROR_MESSAGE: Final = "error-message"
STEER_IDS: Final = "steer-codec-message-ids"
STREAM: Final = "stream"
STATUS: Final = "status"
STREAM_ID: Final = "stream-id"
DISCRETE: Final = "discrete"

# The project's own, read by the gateway in namespaces bound to an agent: what a send does to a busy session,
# and which turns a cancel, or a send that interrupts, names besides run-id and input-codec-message-id.
TURN_POLICY: Final = "turn-policy"
CANCEL_OWN: Final = "cancel-own"
CANCEL_CONNECTION: Final = "cancel-connection"
CANCEL_ALL: Final = "cancel-all"
CANCEL_CLIENT_ID: Final = "cancel-client-id"
QUEUE_POSITION: Final = "queue-position"
TOOL_CALL_IDS: Final = "tool-call-ids"

KIND: Final = "kind"

STREAMING: Final = "streaming"
COMPLETE: Final = "complete"
CANCELLED: Final = "cancelled"
FAILED: Final = "failed"
ERROR: Final = "error"

ROLE_USER: Final = "user"
ROLE_ASSISTANT: Final = "assistant"

_EMPTY: Final[Mapping[str, Any]] = {}


@dataclass(slots=True, frozen=True)
class Headers:
    """Both header tiers of a received message. Values that are not strings read as absent."""

    transport: Mapping[str, Any]
    codec: Mapping[str, Any]

    def get(self, name: str) -> str | None:
        """A transport header, or None."""
        value = self.transport.get(name)
        return value if isinstance(value, str) else None

    def field(self, name: str) -> str | None:
        """A codec header, or None."""
        value = self.codec.get(name)
        return value if isinstance(value, str) else None

    @property
    def kind(self) -> str:
        """The codec's `kind`, or ""."""
        return self.field(KIND) or ""

    @property
    def role(self) -> str | None:
        """`user` or `assistant` as the sender wrote it."""
        return self.get(ROLE)

    @property
    def codec_message_id(self) -> str | None:
        """The message this one creates, continues or answers."""
        return self.get(CODEC_MESSAGE_ID)

    @property
    def run_id(self) -> str | None:
        """The turn it belongs to."""
        return self.get(RUN_ID)

    @property
    def event_id(self) -> str | None:
        """The sender's id of this event; the wake-up POST names it."""
        return self.get(EVENT_ID)

    @property
    def parent(self) -> str | None:
        """Tree parent (protocol section 3.2)."""
        return self.get(PARENT)

    @property
    def input_codec_message_id(self) -> str | None:
        """The trigger's codec-message-id."""
        return self.get(INPUT_CODEC_MESSAGE_ID)

    @property
    def is_stream(self) -> bool:
        """Whether the message grows by appends."""
        return self.get(STREAM) == "true"

    @property
    def status(self) -> str | None:
        """`streaming`, `complete` or `cancelled` of a stream message."""
        return self.get(STATUS)


def read_headers(message: Message) -> Headers | None:
    """The headers of a message; None when it has no `extras.ai` and so is not ours (section 2.2)."""
    extras = message.extras
    ai = extras.get("ai") if isinstance(extras, Mapping) else None
    if not isinstance(ai, Mapping):
        return None
    transport, codec = ai.get("transport"), ai.get("codec")
    return Headers(
        transport if isinstance(transport, Mapping) else _EMPTY,
        codec if isinstance(codec, Mapping) else _EMPTY,
    )


def make_extras(
    transport: Mapping[str, str], codec: Mapping[str, str] | None = None, *, ephemeral: bool = False
) -> dict[str, Any]:
    """`extras` for the given headers; an empty codec tier is left out (protocol section 2.2)."""
    ai: dict[str, Any] = {"transport": transport}
    if codec:
        ai["codec"] = codec
    return {"ai": ai, "ephemeral": True} if ephemeral else {"ai": ai}


def read_ids(text: str) -> list[str]:
    """The ids in a header that holds a JSON array of strings; what else it holds is ignored."""
    try:
        found = orjson.loads(text)
    except ValueError:
        return []
    return [value for value in found if isinstance(value, str)] if isinstance(found, list) else []


def will_grow(message: Message) -> bool | None:
    """Whether appends to a message are still to come; None for an application's own, of which that is not known."""
    headers = read_headers(message)
    if headers is None:
        return None
    return headers.is_stream and headers.status not in (COMPLETE, CANCELLED)


def is_deleted_input(message: Message) -> bool:
    """Whether it is what a client said, deleted, and of no turn that others tell of: a node by itself."""
    headers = read_headers(message)
    is_input = headers is not None and headers.run_id is None and message.name == AI_INPUT
    return is_input and message.action is MessageAction.DELETE


def is_ephemeral(message: Message) -> bool:
    """Whether the message is delivered but never stored."""
    return isinstance(message.extras, Mapping) and message.extras.get("ephemeral") is True


def header_map(*pairs: tuple[str, str | None]) -> dict[str, str]:
    """A header map in the given order, without the pairs whose value is None. Raises InvalidArgument for no text."""
    return {name: _header(name, value) for name, value in pairs if value is not None}


def _header(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidArgument(f"the header {name!r} is a text, not {type(value).__name__}")
    return whole_characters(value)


def with_transport_header(message: Message, name: str, value: str) -> Message:
    """A message with one more transport header; unchanged if it is not one of ours."""
    headers, extras = read_headers(message), message.extras
    if headers is None or extras is None:
        return message
    ai = {**extras["ai"], "transport": {**headers.transport, name: value}}
    return replace(message, extras={**extras, "ai": ai})
