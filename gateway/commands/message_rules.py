"""What a change may make of a stored message where an agent's workers write: the same as a publish may create.

What a message is, its name and AI Transport headers, stays as it was published. Otherwise a client could turn its own
message into a chunk of an answer or into the end of a turn, for every reader and for the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from selfhost_transport.errors import CapabilityError
from selfhost_transport.store.entries import pack_value
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import inputs
from selfhost_transport.turns.calls import answered_call
from selfhost_transport.wire.message import Message


def require_not_agents(message: Message) -> None:
    """Refuse what only workers publish. Raises CapabilityError."""
    if message.name in h.AGENT_MESSAGES:
        raise _workers_only(f"publish {message.name}")
    headers = h.read_headers(message) if message.name == h.AI_INPUT else None
    speaks = headers is not None and headers.kind == inputs.USER_MESSAGE
    if speaks and headers is not None and headers.role == h.ROLE_ASSISTANT:
        raise _workers_only("speak as the assistant")


@dataclass(frozen=True, slots=True)
class MessageType:
    """What a stored message is: its name, and a digest of its AI Transport headers."""

    name: str | None
    headers: bytes
    # A result of a tool or an approval: the turn has gone on with it.
    is_answer: bool = False

    @classmethod
    def of(cls, message: Message) -> MessageType:
        """The type of a stored message."""
        return cls(
            message.name,
            _digest(message.extras),
            is_answer=message.name == h.AI_INPUT and answered_call(message) is not None,
        )

    def check_change(
        self, name: str | None, extras: Mapping[str, Any] | None, *, delete: bool = False
    ) -> None:
        """Check what a change carries; None leaves things as they are. Raises CapabilityError."""
        if self.name in h.AGENT_MESSAGES and not delete:
            raise _workers_only("change what they wrote")
        if self.is_answer and not delete:
            raise CapabilityError(
                "in this namespace an answer to a call stays what it is: the turn has gone on with it"
            )
        renamed = name is not None and name != self.name
        if renamed and not {name, self.name}.isdisjoint(h.PROTOCOL_MESSAGES):
            raise CapabilityError("in this namespace a change keeps the name of an AI Transport message")
        meant = self.name if name is None else name
        if meant in h.PROTOCOL_MESSAGES and extras is not None and _digest(extras) != self.headers:
            raise CapabilityError("in this namespace a change keeps the headers of an AI Transport message")


def _workers_only(what: str) -> CapabilityError:
    return CapabilityError(
        f"in this namespace only the agent's workers {what}: agents of other SDKs run in a namespace without `agent` in "
        "the configuration (`selfhost-transport doctor CHANNEL` shows the rule that applies)",
        detail={"reason": "namespace_bound"},
    )


def _digest(extras: Mapping[str, Any] | None) -> bytes:
    ai = extras.get("ai") if isinstance(extras, Mapping) else None
    return b"" if ai is None else blake2b(pack_value(_sorted(ai)), digest_size=16).digest()


def _sorted(value: Any) -> Any:
    """The same headers, in any order."""
    if isinstance(value, Mapping):
        return {name: _sorted(value[name]) for name in sorted(value, key=str)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
