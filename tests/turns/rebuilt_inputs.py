"""A recorded input, built anew."""

from __future__ import annotations

from selfhost_transport.turns import decoder as d
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import inputs
from selfhost_transport.turns.inputs import InputIds
from selfhost_transport.turns.values import Absent, unpack
from selfhost_transport.wire.message import Message


def rebuilt(message: Message) -> Message:
    """The same input, decoded and made again by our builders."""
    headers = h.read_headers(message)
    assert headers is not None
    ids = InputIds(headers.codec_message_id or "", headers.event_id or "")
    owner = headers.get(h.RUN_CLIENT_ID)
    if message.name == h.AI_CANCEL:
        return inputs.cancel(
            event_id=ids.event_id,
            run_id=headers.run_id,
            input_codec_message_id=headers.input_codec_message_id,
        )
    event = d.decode_input(headers, unpack(message))
    match event:
        case d.UserPart():
            parts: list[inputs.UserPart] = [event.part]
            (made,) = inputs.user_message(
                parts, ids, client_id=owner, message_id=event.message_id, parent=headers.parent,
                fork_of=headers.get(h.FORK_OF), run_id=headers.run_id,
            )  # fmt: skip
            return made
        case d.RegenerateRequested():
            target = headers.get(h.MSG_REGENERATE) or ""
            return inputs.regenerate(ids, target, parent=headers.parent, client_id=owner)
        case _:
            return _rebuilt_answer(headers, event, ids, owner)


def _rebuilt_answer(
    headers: h.Headers, event: d.InputEvent | None, ids: InputIds, owner: str | None
) -> Message:
    target, run_id = ids.codec_message_id, headers.run_id or ""
    match event:
        case d.ToolResolved(call, output):
            assert not isinstance(output, Absent)
            return inputs.tool_result(target, run_id, call, output, event_id=ids.event_id, client_id=owner)
        case d.ToolFailed(call, text):
            return inputs.tool_result_error(
                target, run_id, call, text, event_id=ids.event_id, client_id=owner
            )
        case d.ApprovalAnswered(call, approved, reason):
            return inputs.tool_approval_response(
                target, run_id, call, approved, event_id=ids.event_id, client_id=owner, reason=reason
            )
        case _:
            raise AssertionError(event)
