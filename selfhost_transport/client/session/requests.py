"""The messages a client publishes, complete with ids that make a repeated send the same send (P5; section 10.2)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from selfhost_transport.client.arguments import optional_text, require_text
from selfhost_transport.client.session.content import Content, read_content
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import inputs
from selfhost_transport.turns.commands import Policy
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message

# The turn that a send interrupts; `run-id` on an input would make it a continuation of that turn.
_CANCEL_RUN_ID: Final = "cancel-run-id"
_EVENTS: Final = uuid.UUID("0c0f6d1c-7a53-5b0e-8a52-3a1f3de0a7c4")
_YES: Final = "true"


SendPolicy: TypeAlias = Policy
"""What a send does when the session is busy; the namespace's policy where none is given."""


@dataclass(frozen=True, slots=True)
class TurnFilter:
    """Which turns a call names: one, those of a client, all, or (default) the caller's own (CAN-2)."""

    turn_id: str | None = None
    client_id: str | None = None
    all: bool = False
    # Only what was sent through this connection: this device, where several share a client id (DEV-6).
    connection: bool = False

    def __post_init__(self) -> None:
        optional_text("turn_id", self.turn_id)
        optional_text("client_id", self.client_id)
        if sum((self.turn_id is not None, self.client_id is not None, self.all, self.connection)) > 1:
            raise InvalidArgument("name one turn, one client, this connection, or all; not several of these")

    @property
    def is_own(self) -> bool:
        """Whether it names the caller's own turns."""
        return self.turn_id is None and self.client_id is None and not self.all and not self.connection

    def names(self, turn_id: str, owner: str, own_client_id: str | None) -> bool:
        """Whether a turn with this id and owner is meant."""
        if self.all:
            return True
        if self.turn_id is not None:
            return turn_id == self.turn_id
        return owner == (own_client_id if self.client_id is None else self.client_id)

    def cancel_headers(self) -> dict[str, str]:
        """The headers of an `ai-cancel` for these turns."""
        if self.turn_id is not None:
            return {h.RUN_ID: self.turn_id}
        return self._scope_headers()

    def cancel_body(self, client_id: str | None) -> dict[str, str | bool]:
        """The same for the plain HTTP API, on behalf of `client_id`."""
        acting: dict[str, str | bool] = {"actingClientId": client_id} if client_id is not None else {}
        if self.turn_id is not None:
            return {"turnId": self.turn_id, **acting}
        if self.client_id is not None:
            return {"clientId": self.client_id, **acting}
        return {"all" if self.all else "own": True, **acting}

    def interrupt_headers(self) -> dict[str, str]:
        """The headers of an `ai-input` that cancels these turns in the same step (INT-24)."""
        scope = {_CANCEL_RUN_ID: self.turn_id} if self.turn_id is not None else self._scope_headers()
        return {h.TURN_POLICY: SendPolicy.INTERRUPT.value, **scope}

    def _scope_headers(self) -> dict[str, str]:
        if self.all:
            return {h.CANCEL_ALL: _YES}
        if self.connection:
            return {h.CANCEL_CONNECTION: _YES}
        return {h.CANCEL_OWN: _YES} if self.client_id is None else {h.CANCEL_CLIENT_ID: self.client_id}


OWN: Final = TurnFilter()


def ids_for(codec_message_id: str | None) -> inputs.InputIds:
    """Ids of an input; the event id follows from the message id, so that a repeat is the same in every byte."""
    codec_message_id = inputs.new_id() if codec_message_id is None else require_text("id", codec_message_id)
    return inputs.InputIds(codec_message_id, str(uuid.uuid5(_EVENTS, codec_message_id)))


def user_message(
    content: Content,
    ids: inputs.InputIds,
    *,
    client_id: str | None,
    parent: str | None,
    fork_of: str | None = None,
    extra: Mapping[str, str] | None = None,
    form: inputs.InputForm = inputs.UI_INPUTS,
) -> list[Message]:
    """A user's message that starts a turn; `extra` are further transport headers."""
    found = read_content(content)
    messages = inputs.user_message(
        found.parts, ids, client_id=client_id, message_id=found.message_id, parent=parent, fork_of=fork_of, form=form
    )  # fmt: skip
    return _finished(messages, ids.codec_message_id, client_id, extra)


def regenerate(
    target: str, ids: inputs.InputIds, *, client_id: str | None, parent: str | None, extra: Mapping[str, str]
) -> list[Message]:
    """A request for another answer in place of `target`."""
    message = inputs.regenerate(ids, target, parent=parent, client_id=client_id)
    return _finished([message], ids.codec_message_id, client_id, extra)


def steer(
    content: Content,
    ids: inputs.InputIds,
    turn_id: str,
    *,
    client_id: str | None,
    form: inputs.InputForm = inputs.UI_INPUTS,
) -> list[Message]:
    """A user's message into a running turn (section 8.8)."""
    found = read_content(content)
    messages = inputs.user_message(
        found.parts, ids, client_id=client_id, message_id=found.message_id, run_id=turn_id, form=form
    )
    return _finished(messages, ids.codec_message_id, client_id, None)


def answer(message: Message, client_id: str | None) -> list[Message]:
    """A tool result or an approval, ready to publish."""
    headers = h.read_headers(message)
    event_id = headers.event_id if headers else None
    return _finished([message], event_id or inputs.new_id(), client_id, None)


def branch_selected(codec_message_id: str, client_id: str | None) -> list[Message]:
    """Selects a branch for all readers."""
    event_id = inputs.new_id()
    message = inputs.branch_selected(codec_message_id, event_id=event_id)
    return _finished([message], event_id, client_id, None)


def cancel(headers: Mapping[str, str], client_id: str | None) -> list[Message]:
    """An `ai-cancel` with the given headers."""
    event_id = inputs.new_id()
    message = Message(
        name=h.AI_CANCEL,
        extras=h.make_extras({h.EVENT_ID: event_id, **headers}),
        action=MessageAction.CREATE,
    )
    return _finished([message], event_id, client_id, None)


def _finished(
    messages: list[Message], base: str, client_id: str | None, extra: Mapping[str, str] | None
) -> list[Message]:
    """Message ids for deduplication (section 6.4), the sender's identity, and further headers."""
    for index, message in enumerate(messages):
        message.id = f"{base}:{index}"
        message.client_id = client_id
        if extra and message.extras is not None:
            message.extras["ai"]["transport"].update(extra)
    return messages
