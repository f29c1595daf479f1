"""Who works on which turn for whom: everything the messages of a turn have in common."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Final

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.message import Message

# Stands in for the serial of an `ai-step-start` that is written in the same atomic step as the messages
# naming it; the store replaces it. Same length (33) as any item serial, so packed lengths do not change.
STEP_START_PLACEHOLDER: Final = "00000000000000-000@stepstart0:000"

# The codec of the JS SDK's `openai` entry point, which its inputs give away (section 6).
OPENAI_RESPONSES: Final = "openai-responses"

# Namespace of the deterministic ids, so that a send repeated with the same id names the same turn (P5).
_IDS: Final = uuid.UUID("5d6e7a0e-3f57-5c1b-9d4e-8f0a3c2b1d11")


@dataclass(slots=True, frozen=True)
class TurnContext:
    """Header values shared by the messages of one invocation of a turn (protocol sections 3 and 3.1)."""

    session: str
    turn_id: str
    invocation_id: str
    agent_client_id: str
    step_id: str
    # None: the trigger was anonymous.
    owner_client_id: str | None = None
    input_client_id: str | None = None
    input_codec_message_id: str | None = None
    # Of the run; outputs carry the same, unless `output_parent` is set (client forks, section 3.2).
    parent: str | None = None
    output_parent: str | None = None
    fork_of: str | None = None
    msg_regenerate: str | None = None
    step_client_id: str = ""
    # 0 for the fresh one, then one more with each resume.
    invocation: int = 0
    # The codec that the sender's own messages are in, where they tell; None: the default one, or not known.
    codec: str | None = None
    # The trace that the turn belongs to.
    traceparent: str | None = None


def turn_id_for(session: str, input_codec_message_id: str) -> str:
    """The id of the turn that this input of this session starts: always the same (P5)."""
    # A NUL ends the session's name; for a name with NULs its length is used instead.
    named = f"turn\0{session}" if "\0" not in session else f"turn of {len(session)}\0{session}"
    return str(uuid.uuid5(_IDS, f"{named}\0{input_codec_message_id}"))


def invocation_id_for(turn_id: str, number: int) -> str:
    """The id of the n-th invocation (0: the fresh one, then one per resume); the same for every attempt."""
    return str(uuid.uuid5(_IDS, f"invocation\0{turn_id}\0{number}"))


def step_id_for(invocation_id: str, number: int) -> str:
    """The default step id (protocol section 3, `step-id`)."""
    return f"{invocation_id}-step-{number}"


def context_for_input(
    trigger: Message,
    *,
    session: str,
    agent_client_id: str,
    invocation: int = 0,
    previous: TurnContext | None = None,
) -> TurnContext:
    """The context for answering `trigger`, an `ai-input` (protocol sections 3.2, 8.2, 8.9, 8.10, 8.11).

    An input that carries a run-id continues that turn: `previous` is then the context of its last invocation,
    and structure and owner are kept from it. The owner of a fresh turn is the publisher's verified client id,
    never what a header claims. Raises InvalidArgument when the trigger names no codec message.
    """
    headers = h.read_headers(trigger)
    codec_message_id = headers.codec_message_id if headers else None
    if headers is None or codec_message_id is None:
        raise InvalidArgument("a turn can only be started by an ai-input that has a codec-message-id header")
    if headers.run_id is not None:
        return _continued(
            trigger, headers.run_id, codec_message_id, session, agent_client_id, invocation, previous
        )
    turn_id = turn_id_for(session, codec_message_id)
    invocation_id = invocation_id_for(turn_id, invocation)
    parent, output_parent = _parents(headers, codec_message_id)
    return TurnContext(
        session=session,
        turn_id=turn_id,
        invocation_id=invocation_id,
        agent_client_id=agent_client_id,
        step_id=step_id_for(invocation_id, 0),
        owner_client_id=trigger.client_id,
        input_client_id=trigger.client_id,
        input_codec_message_id=codec_message_id,
        parent=parent,
        output_parent=output_parent,
        fork_of=headers.get(h.FORK_OF),
        msg_regenerate=headers.get(h.MSG_REGENERATE),
        step_client_id=trigger.client_id or "",
        invocation=invocation,
        codec=_codec_of(headers),
        traceparent=headers.get(h.TRACEPARENT),
    )


def _codec_of(headers: h.Headers) -> str | None:
    """What the sender's codec is, by how it writes a user's message or names a tool call."""
    is_openai = headers.field("partType") == "input_text" or headers.field("call_id") is not None
    return OPENAI_RESPONSES if is_openai else None


def _parents(headers: h.Headers, codec_message_id: str) -> tuple[str | None, str | None]:
    """(parent of the run, parent of its outputs where it differs), section 3.2."""
    if headers.kind == "regenerate":  # owns no node, so nothing can hang below it
        return headers.parent, None
    if headers.role != h.ROLE_USER:  # a client fork: the run itself owns the trigger's id
        return headers.parent, codec_message_id
    return codec_message_id, None


def _continued(
    trigger: Message,
    run_id: str,
    codec_message_id: str,
    session: str,
    agent_client_id: str,
    invocation: int,
    previous: TurnContext | None,
) -> TurnContext:
    invocation_id = invocation_id_for(run_id, invocation)
    fresh = TurnContext(
        session=session,
        turn_id=run_id,
        invocation_id=invocation_id,
        agent_client_id=agent_client_id,
        step_id=step_id_for(invocation_id, 0),
        owner_client_id=trigger.client_id,
        input_client_id=trigger.client_id,
        input_codec_message_id=codec_message_id,
        step_client_id=trigger.client_id or "",
        invocation=invocation,
    )
    if previous is None:
        return fresh
    return replace(
        fresh,
        owner_client_id=previous.owner_client_id,
        parent=previous.parent,
        output_parent=previous.output_parent,
        fork_of=previous.fork_of,
        msg_regenerate=previous.msg_regenerate,
        step_client_id=previous.step_client_id,
        codec=previous.codec,
        traceparent=previous.traceparent,
    )
