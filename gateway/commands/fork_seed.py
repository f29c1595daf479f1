"""Copies of an answer that a client tool's fork carries: what the session holds, not what the client says of it.

A result that forks (ai-transport section 8.11) brings along the messages of the turn that it takes the place of, so that
readers need not look for them. They are an agent's words: every reader and the model would believe what a client wrote.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.commands.branch import PAGE, read_back
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.store.history import Query
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_store import TurnRequest
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import inputs
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui import ConversationMessage
from selfhost_transport.turns.values import to_text, unpack
from selfhost_transport.turns.withholding import Hidden, shown
from selfhost_transport.wire.message import Message

_SEED: Final = "forkSeed"
_READABLE: Final = (None, "json", "json/utf-8")
_RESULTS: Final = (inputs.TOOL_RESULT, inputs.TOOL_RESULT_ERROR)


def has_copies(message: Message) -> bool:
    """Whether a message carries copies of others. Raises InvalidArgument where an encoding hides that from the gateway."""
    headers = h.read_headers(message) if message.name == h.AI_INPUT else None
    if headers is None or headers.kind not in _RESULTS:
        return False
    if message.encoding not in _READABLE:
        raise InvalidArgument(
            f"the result of a tool is JSON; the gateway does not read the encoding {message.encoding[:32]!r}"
        )
    return _SEED in _body(message)


async def with_stored_copies(sessions: SessionStore, request: TurnRequest, hidden: Hidden) -> TurnRequest:
    """The request with copies as the session holds the originals, less what is `hidden` from the sender.

    Its fingerprint stays: it identifies repeats of the send. Raises InvalidArgument for copies of what is not
    in the session.
    """
    replaced = {
        turn for message in request.messages if has_copies(message) for turn in [_superseded(message)]
    }
    tree = SessionTree(request.session)
    query = Query(limit=PAGE, visible=shown(hidden, conversation=True))
    await read_back(sessions, tree, query, lambda: all(_is_whole(tree, turn) for turn in replaced))
    messages = [_restored(tree, message) if has_copies(message) else message for message in request.messages]
    return dataclasses.replace(request, messages=messages)


def _is_whole(tree: SessionTree, turn: str) -> bool:
    node = tree.run_node(turn)
    if node is None or node.run is None or not node.run.is_started:
        return False
    # What a turn answers is older than all of it.
    return node.parent is not None and tree.owner_of(node.parent) is not None


def _superseded(message: Message) -> str:
    headers = h.read_headers(message)
    turn = headers.get(h.SUPERSEDES) if headers is not None else None
    if turn is None:
        raise InvalidArgument(
            f"a result with `{_SEED}` names the turn that it replaces in the header `supersedes`"
        )
    return turn


def _restored(tree: SessionTree, message: Message) -> Message:
    turn = _superseded(message)
    node = tree.run_node(turn)
    originals = [state.snapshot() for state in node.messages.values()] if node is not None else []
    copies = [
        ConversationMessage(codec_message_id, _original(originals, number, domain_id, turn).message).to_json()
        for number, (codec_message_id, domain_id) in enumerate(_copies(message))
    ]
    body = {**_body(message), _SEED: {"messages": copies}}
    return dataclasses.replace(message, data=to_text(body), encoding="json")


def _original(
    originals: Sequence[ConversationMessage], number: int, domain_id: str | None, turn: str
) -> ConversationMessage:
    """The message that the `number`-th copy is of: that of the same id, else that of the same place."""
    for one in originals:
        if domain_id is not None and one.message.id == domain_id:
            return one
    if number >= len(originals):
        raise InvalidArgument(
            f"`{_SEED}` has a copy of a message that turn {turn[:64]!r} of this session does not have"
        )
    return originals[number]


def _copies(message: Message) -> list[tuple[str, str | None]]:
    """The id on the wire of each copy, and the id of what it is a copy of."""
    seed = _body(message)[_SEED]
    entries = seed.get("messages") if isinstance(seed, dict) else None
    if not isinstance(entries, list):
        raise InvalidArgument(f"`{_SEED}` is an object with a list of `messages`")
    return [_copy(entry) for entry in entries]


def _copy(entry: Any) -> tuple[str, str | None]:
    wire_id = entry.get("codecMessageId") if isinstance(entry, dict) else None
    copied = entry.get("message") if isinstance(entry, dict) else None
    if not isinstance(wire_id, str) or not isinstance(copied, dict):
        raise InvalidArgument(f"each of the messages of `{_SEED}` has a `codecMessageId` and a `message`")
    domain_id = copied.get("id")
    return wire_id, domain_id if isinstance(domain_id, str) else None


def _body(message: Message) -> Mapping[str, Any]:
    body = unpack(message)
    return body if isinstance(body, dict) else {}
