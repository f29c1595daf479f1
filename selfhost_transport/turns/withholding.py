"""Traffic that a namespace keeps from clients without a right of their own for it: reasoning, tools (COT-4, TOL-13).

What a message is, its codec headers say (protocol sections 5 and 6). Where they do not suffice it counts as everything
that may be withheld, so that nothing gets out for want of knowing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from functools import lru_cache
from typing import Final, TypeAlias

import orjson

from selfhost_transport.turns.headers import read_headers
from selfhost_transport.wire.capability import Capability, Operation
from selfhost_transport.wire.message import Message


class Traffic(StrEnum):
    """A kind of messages that can be withheld."""

    REASONING = "reasoning"
    TOOLS = "tools"

    @property
    def right(self) -> Operation:
        """The operation that grants it nevertheless."""
        return _RIGHTS[self]


Hidden: TypeAlias = frozenset[Traffic]
"""What one reader does not get."""
NOTHING: Final[Hidden] = frozenset()
_ANYTHING: Final[Hidden] = frozenset(Traffic)
_REASONING: Final[Hidden] = frozenset({Traffic.REASONING})
_TOOLS: Final[Hidden] = frozenset({Traffic.TOOLS})
_RIGHTS: Final = {
    Traffic.REASONING: Operation.REASONING_SUBSCRIBE,
    Traffic.TOOLS: Operation.TOOLS_SUBSCRIBE,
}
# Kinds of the codecs, by how they begin: `tool-output-available`, `reasoning_summary_text`, `function_call_output`.
_BEGINNINGS: Final = (("reasoning", _REASONING), ("tool-", _TOOLS), ("function_call", _TOOLS))
# Messages of the OpenAI codec whose kind is in their payload.
_ITEM_EVENT: Final = "response.output_item."


def hidden_from(capability: Capability, session: str, withheld: Iterable[Traffic]) -> Hidden:
    """What a caller does not get of a session whose namespace withholds so much."""
    return frozenset(traffic for traffic in withheld if not capability.allows(traffic.right, session))


def is_hidden(message: Message, hidden: Hidden) -> bool:
    """Whether a message is not for a reader from whom so much is hidden."""
    return bool(hidden) and not hidden.isdisjoint(traffic_of(message))


def shown(hidden: Hidden, *, conversation: bool = False) -> Callable[[Message], bool] | None:
    """Selects messages that such a reader may see and wants: only the `conversation`. None: all of them."""
    if conversation:
        return lambda message: read_headers(message) is not None and not is_hidden(message, hidden)
    return (lambda message: not is_hidden(message, hidden)) if hidden else None


def traffic_of(message: Message) -> Hidden:
    """Which traffic a message belongs to; none for texts, inputs and the life cycle."""
    headers = read_headers(message)
    if headers is None or not headers.kind:
        return NOTHING
    return _of_item(message) if headers.kind.startswith(_ITEM_EVENT) else _of_kind(headers.kind)


@lru_cache(maxsize=1024)
def _of_kind(kind: str) -> Hidden:
    return next((traffic for beginning, traffic in _BEGINNINGS if kind.startswith(beginning)), NOTHING)


def _of_item(message: Message) -> Hidden:
    """Of an item of the Responses API: finished reasoning carries its encrypted content."""
    try:
        item = orjson.loads(message.data or "")["item"]["type"]
    except (ValueError, TypeError, KeyError):
        return _ANYTHING
    return NOTHING if item == "message" else _of_kind(str(item)) or _ANYTHING
