"""What a front end hands to the agent beside the conversation: its state, its tools, context, and properties of its own.

It travels in a codec header of the message, or of the answer, that starts the invocation; other readers do not see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from selfhost_transport.turns.headers import read_headers
from selfhost_transport.turns.values import Absent, Json, from_text, to_text
from selfhost_transport.wire.message import Message

HEADER: Final = "clientInput"


@dataclass(frozen=True, slots=True)
class ClientInput:
    """`tools`: those that the front end runs itself, each with name, description and parameters (a JSON schema).

    `context`: descriptions and values. Anything may be missing: it is what a client sends, and not verified.
    """

    state: Json = None
    tools: tuple[Json, ...] = ()
    context: tuple[Json, ...] = ()
    forwarded_props: Json = None

    def attach(self, messages: Iterable[Message]) -> None:
        """Let the first of these messages carry it; nothing where it is empty."""
        fields = {
            "state": self.state,
            "tools": list(self.tools),
            "context": list(self.context),
            "forwardedProps": self.forwarded_props,
        }
        kept = {name: value for name, value in fields.items() if value not in (None, [], {})}
        message = next(iter(messages), None)
        if message is not None and message.extras is not None and kept:
            tiers: dict[str, Any] = message.extras["ai"]
            tiers["codec"] = {**tiers.get("codec", {}), HEADER: to_text(kept)}


def client_input_of(messages: Iterable[Message]) -> ClientInput:
    """The newest one that messages carry, which are given oldest first."""
    found = ClientInput()
    for message in messages:
        headers = read_headers(message)
        text = headers.field(HEADER) if headers is not None else None
        value = from_text(text) if text is not None else None
        if isinstance(value, Mapping):
            found = ClientInput(
                value.get("state"),
                _list(value.get("tools")),
                _list(value.get("context")),
                value.get("forwardedProps"),
            )
    return found


def _list(value: Json | Absent) -> tuple[Json, ...]:
    return tuple(value) if isinstance(value, list) else ()
