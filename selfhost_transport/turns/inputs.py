"""What clients publish: messages, steers, answers, regenerates, cancels (protocol sections 3.1, 5.2, 10.2)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.ui import DataPart, FilePart, TextPart
from selfhost_transport.turns.values import Json, pack, to_text
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message

USER_MESSAGE: Final = "user-message"
TOOL_RESULT: Final = "tool-result"
TOOL_RESULT_ERROR: Final = "tool-result-error"
TOOL_APPROVAL_RESPONSE: Final = "tool-approval-response"
REGENERATE: Final = "regenerate"


@dataclass(slots=True, frozen=True)
class InputForm:
    """How a codec writes inputs: the header that names a tool call, and the type of a text part."""

    call_field: str = "toolCallId"
    text_type: str = "text"
    # Whether a user's message carries the application's id for it, and parts other than text.
    is_text_only: bool = False


UI_INPUTS: Final = InputForm()
OPENAI_INPUTS: Final = InputForm("call_id", "input_text", is_text_only=True)

UserPart: TypeAlias = TextPart | FilePart | DataPart


def new_id() -> str:
    """A fresh id for a codec message or an event."""
    return str(uuid.uuid4())


@dataclass(slots=True, frozen=True)
class InputIds:
    """Ids a client mints for one input; keep them to repeat the send (P5) or to cancel it early (CAN-4)."""

    codec_message_id: str = field(default_factory=new_id)
    event_id: str = field(default_factory=new_id)


def is_blank(parts: Sequence[object]) -> bool:
    """Whether a message says nothing: all it consists of are texts without a letter."""
    return all(isinstance(part, TextPart) and not part.text.strip() for part in parts)


def user_message(
    parts: Sequence[UserPart],
    ids: InputIds,
    *,
    client_id: str | None,
    message_id: str | None = None,
    parent: str | None = None,
    fork_of: str | None = None,
    run_id: str | None = None,
    form: InputForm = UI_INPUTS,
) -> list[Message]:
    """One channel message per part, to be published in one frame.

    `message_id` is the application's id (default: the codec-message-id). With `run_id` it is a steer of that
    turn, which has no parent; with `fork_of` an edit. Raises InvalidArgument for a part that `form` cannot carry.
    """
    if run_id is not None and (parent is not None or fork_of is not None):
        raise InvalidArgument("a steer belongs to its turn and has neither parent nor fork_of")
    transport = h.header_map(
        (h.ROLE, h.ROLE_USER),
        (h.CODEC_MESSAGE_ID, ids.codec_message_id),
        (h.RUN_ID, run_id),
        (h.RUN_CLIENT_ID, client_id),
        (h.PARENT, parent),
        (h.FORK_OF, fork_of),
        (h.EVENT_ID, ids.event_id),
        (h.STREAM, "false"),
        (h.DISCRETE, "true"),
    )
    domain_id = ids.codec_message_id if message_id is None else message_id
    return [_user_part(transport, part, domain_id, form) for part in parts or [TextPart("")]]


def tool_result(
    codec_message_id: str,
    run_id: str,
    tool_call_id: str,
    output: Json,
    *,
    event_id: str,
    client_id: str | None,
    form: InputForm = UI_INPUTS,
) -> Message:
    """The result of a client tool; `codec_message_id` is the assistant message that made the call (TOL-2)."""
    transport = _answer(codec_message_id, run_id, event_id, client_id)
    # The Responses API takes results as text.
    value = to_text(output) if form.is_text_only and not isinstance(output, str) else output
    return _input(transport, {h.KIND: TOOL_RESULT, form.call_field: tool_call_id}, {"output": value})


def tool_result_error(
    codec_message_id: str,
    run_id: str,
    tool_call_id: str,
    text: str,
    *,
    event_id: str,
    client_id: str | None,
    form: InputForm = UI_INPUTS,
) -> Message:
    """A client tool failed (TOL-8)."""
    transport = _answer(codec_message_id, run_id, event_id, client_id)
    codec = {h.KIND: TOOL_RESULT_ERROR, form.call_field: tool_call_id}
    return _input(transport, codec, {"message": text})


def tool_approval_response(
    codec_message_id: str,
    run_id: str,
    tool_call_id: str,
    approved: bool,
    *,
    event_id: str,
    client_id: str | None,
    reason: str | None = None,
    form: InputForm = UI_INPUTS,
) -> Message:
    """The answer to an approval request (HIL-1)."""
    codec = h.header_map(
        (h.KIND, TOOL_APPROVAL_RESPONSE),
        (form.call_field, tool_call_id),
        ("approved", "true" if approved else "false"),
        ("reason", reason),
    )
    return _input(_answer(codec_message_id, run_id, event_id, client_id), codec, "")


def regenerate(ids: InputIds, target: str, *, parent: str | None, client_id: str | None) -> Message:
    """Asks for another answer in place of message `target`, whose predecessor is `parent` (section 8.9)."""
    transport = h.header_map(
        (h.ROLE, h.ROLE_USER),
        (h.CODEC_MESSAGE_ID, ids.codec_message_id),
        (h.RUN_CLIENT_ID, client_id),
        (h.PARENT, parent),
        (h.MSG_REGENERATE, target),
        (h.EVENT_ID, ids.event_id),
        (h.STREAM, "false"),
    )
    return _input(transport, {h.KIND: REGENERATE}, "")


def cancel(*, event_id: str, run_id: str | None = None, input_codec_message_id: str | None = None) -> Message:
    """`ai-cancel` of a turn, by its id or by the id of the message that started it (CAN-4)."""
    if run_id is None and input_codec_message_id is None:
        raise InvalidArgument("a cancel names a run_id, an input_codec_message_id, or both")
    transport = h.header_map(
        (h.EVENT_ID, event_id), (h.RUN_ID, run_id), (h.INPUT_CODEC_MESSAGE_ID, input_codec_message_id)
    )
    return Message(name=h.AI_CANCEL, extras=h.make_extras(transport), action=MessageAction.CREATE)


def branch_selected(codec_message_id: str, *, event_id: str) -> Message:
    """Shows the branch that begins with this message in every view, until the next selection (BRA-7)."""
    transport = h.header_map((h.CODEC_MESSAGE_ID, codec_message_id), (h.EVENT_ID, event_id))
    return Message(name=h.AI_BRANCH_SELECTED, extras=h.make_extras(transport), action=MessageAction.CREATE)


def _user_part(transport: dict[str, str], part: UserPart, message_id: str, form: InputForm) -> Message:
    payload: Json
    if form.is_text_only:
        if not isinstance(part, TextPart):
            raise InvalidArgument("a user's message in this codec consists of text only")
        return _input(transport, {h.KIND: USER_MESSAGE, "partType": form.text_type}, part.text)
    match part:
        case TextPart():
            kind, payload, own = form.text_type, part.text, {}
        case FilePart():
            kind, payload, own = "file", part.url, {"mediaType": part.media_type}
        case DataPart():
            kind, payload, own = part.type, part.data, h.header_map(("id", part.id))
    codec = {h.KIND: USER_MESSAGE, **own, "messageId": message_id, "partType": kind}
    return _input(transport, codec, payload)


def _answer(codec_message_id: str, run_id: str, event_id: str, client_id: str | None) -> dict[str, str]:
    # No parent on inputs that carry a run-id: it would be a message of the run itself (section 3.2, v74).
    return h.header_map(
        (h.ROLE, h.ROLE_USER),
        (h.CODEC_MESSAGE_ID, codec_message_id),
        (h.RUN_ID, run_id),
        (h.RUN_CLIENT_ID, client_id),
        (h.EVENT_ID, event_id),
        (h.STREAM, "false"),
    )


def _input(transport: dict[str, str], codec: dict[str, str], payload: Json) -> Message:
    data, encoding = pack(payload)
    return Message(
        name=h.AI_INPUT,
        data=data,
        encoding=encoding,
        extras=h.make_extras(transport, codec),
        action=MessageAction.CREATE,
    )
