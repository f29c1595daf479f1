"""Stored messages in front of a session: where they meet its history, with no gap and no duplicate (protocol section 9).

The application keeps ended turns in a database of its own and gives them back as a seed. The history is then read only
back to the resume_point: the place up to which the seed is complete. From there on the session itself is shown.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass
from functools import cached_property
from typing import Any, TypeAlias

from selfhost_transport.errors import InvalidArgument, ResumePointLost
from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.prompt import PromptMessage, chain_root, close_tool_calls
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui import ConversationMessage, UIMessage
from selfhost_transport.wire.serial import Position, parse_position

Stored: TypeAlias = ConversationMessage | UIMessage
"""A stored message, with its identity on the wire or with the application's id alone."""


@dataclass(frozen=True)
class Seed:
    """A stored conversation, oldest message first.

    `resume_point` is that of the newest turn stored (`EndedTurn.resume_point`): what the session has up to there is
    stored. With it the resume point is found also where retention has taken the stored messages, and where turns run
    side by side. Without it, it is the newest message, which is right where each turn was stored before the next
    one began. `allow_gap`: go on where it is lost, instead of raising ResumePointLost. Raises InvalidArgument for a
    resume point that is no position. `seam` is its former name.
    """

    messages: tuple[Stored, ...] = ()
    resume_point: str | None = None
    allow_gap: bool = False
    seam: InitVar[str | None] = None

    def __post_init__(self, seam: str | None) -> None:
        if seam is not None:
            _warn_of_seam()
            object.__setattr__(self, "resume_point", seam)
        if self.resume_point is not None:
            parse_position(self.resume_point)

    @classmethod
    def of(cls, stored: Seed | Sequence[Stored]) -> Seed:
        """A seed as it is, or a list of messages as one."""
        return stored if isinstance(stored, Seed) else cls(tuple(stored))

    @classmethod
    def from_json(
        cls,
        messages: Iterable[Mapping[str, Any]],
        resume_point: str | None = None,
        *,
        seam: str | None = None,
    ) -> Seed:
        """From messages as `EndedTurn.to_json` has them, `{codecMessageId, message}`, or as plain UI messages.

        Raises InvalidArgument for what is neither.
        """
        return cls(tuple(_stored(message) for message in messages), resume_point, seam=seam)

    @property
    def last_codec_message_id(self) -> str | None:
        """The newest message's identity on the wire, where it was stored."""
        return self.codec_message_id_at(len(self.messages) - 1)

    def codec_message_id_at(self, index: int) -> str | None:
        """A stored message's identity on the wire; None where it was not stored, or there is no such message."""
        found = self.messages[index] if 0 <= index < len(self.messages) else None
        return found.codec_message_id if isinstance(found, ConversationMessage) else None

    def has(self, node: Node) -> bool:
        """Whether a node of the session's tree is stored, with what it hangs below: turns are once they have ended."""
        if node.run is not None and not node.run.status.is_terminal:
            return False
        return any(self.index_of(m.codec_message_id, m.id) is not None for m in node.messages.values())

    def index_of(self, codec_message_id: str | None, message_id: str | None) -> int | None:
        """Where a message of the session is in the seed, or None."""
        found = self._by_codec_id.get(codec_message_id) if codec_message_id is not None else None
        return self._by_message_id.get(message_id) if found is None and message_id is not None else found

    @cached_property
    def _by_codec_id(self) -> dict[str, int]:
        pairs = ((n, stored) for n, stored in enumerate(self.messages))
        return {stored.codec_message_id: n for n, stored in pairs if isinstance(stored, ConversationMessage)}

    @cached_property
    def _by_message_id(self) -> dict[str, int]:
        """Of messages without identity on the wire."""
        pairs = ((n, stored) for n, stored in enumerate(self.messages))
        return {stored.id: n for n, stored in pairs if isinstance(stored, UIMessage)}


def _warn_of_seam() -> None:
    warnings.warn("seam is deprecated: use resume_point", DeprecationWarning, stacklevel=4)


def before(seed: Seed, tree: SessionTree) -> list[ConversationMessage]:
    """What a view shows in front of what was read of the session: stored messages that were not read.

    One stored without its identity on the wire has its own id in place of that.
    """
    known = {
        n
        for node in tree.nodes()
        for state in node.messages.values()
        if (n := seed.index_of(state.codec_message_id, state.id)) is not None
    }
    return [_shown(stored) for n, stored in enumerate(seed.messages) if n not in known]


def is_joined(seed: Seed, tree: SessionTree, oldest: str | None) -> bool:
    """Whether enough of the session was read for a view: back to the resume_point, and nothing read refers to what was not.

    `oldest` is the serial down to which everything was read. An empty seed has no resume_point: the whole history must be read
    (HYD-3).
    """
    return _reaches(seed, tree, oldest) and all(_is_settled(node, tree, seed) for node in tree.nodes())


def _reaches(seed: Seed, tree: SessionTree, oldest: str | None) -> bool:
    if not seed.messages:
        return False
    if seed.resume_point is not None:
        if oldest is None:
            return False
        (read, epoch, _), (stored, same, _) = parse_position(oldest), parse_position(seed.resume_point)
        return epoch == same and read <= stored
    newest = len(seed.messages) - 1
    return any(
        seed.index_of(state.codec_message_id, state.id) == newest
        for node in tree.nodes()
        for state in node.messages.values()
    )


def _is_settled(node: Node, tree: SessionTree, seed: Seed) -> bool:
    """Whether what a node takes the place of was read, and what it hangs below was read or is stored."""
    for forked in (node.fork_of, node.regenerates):
        if forked is not None and tree.owner_of(forked) is None:
            return False
    if node.supersedes is not None and tree.run_node(node.supersedes) is None:
        return False
    asked = node.run.info().input_codec_message_id if node.run is not None else None
    parent = node.parent
    if seed.has(node) and asked in (None, parent):
        return True
    if parent is not None and tree.owner_of(parent) is None and seed.index_of(parent, None) is None:
        return False
    return asked is None or tree.trigger(asked) is not None or tree.owner_of(asked) is not None


def check_resume_point(seed: Seed, tree: SessionTree, epoch: str, truncated_at: str | None) -> None:
    """After the whole history was read: raises ResumePointLost where messages may be in neither it nor the seed (HYD-6).

    `epoch` is that of the session, `truncated_at` the position up to which retention has taken messages, if it has.
    """
    if seed.allow_gap or not seed.messages:
        return
    if seed.resume_point is None:
        if _reaches(seed, tree, None):
            return
    else:
        stored, same, _ = parse_position(seed.resume_point)
        if same == epoch and (truncated_at is None or _position(truncated_at) <= stored):
            return
    raise _resume_point_lost(truncated_at)


def joins_chain(seed: Seed, tree: SessionTree, trigger: str, prompt: Sequence[PromptMessage]) -> bool:
    """Whether enough was read for an agent: the chain of what it answers meets the seed, or is whole."""
    root = chain_root(tree, trigger)
    if root is None:
        return False
    if seed.messages and (
        _resume_point_in(seed, prompt) is not None or seed.index_of(root.parent, None) is not None
    ):
        return True
    return bool(seed.messages) and root.parent is None and root.fork_of is not None


def with_stored(
    seed: Seed, tree: SessionTree, trigger: str, prompt: list[PromptMessage], truncated_at: Position | None
) -> list[PromptMessage]:
    """The conversation for the model: the seed up to the resume_point, and what follows on the chain (HYD-4).

    Raises ResumePointLost as `check_resume_point` does.
    """
    root = chain_root(tree, trigger)
    if root is None or not seed.messages:
        return prompt
    resume_point = _resume_point_in(seed, prompt)
    if resume_point is not None:
        return [*_stored_prompt(seed.messages[:resume_point]), *prompt]
    parent = seed.index_of(root.parent, None)
    if parent is not None:
        return [*_stored_prompt(seed.messages[: parent + 1]), *prompt]
    if root.parent is None and (root.fork_of is not None or (truncated_at is None and not seed.allow_gap)):
        return prompt
    covered = seed.resume_point is not None and (
        truncated_at is None or truncated_at <= _position(seed.resume_point)
    )
    if seed.allow_gap or covered:
        return [*_stored_prompt(seed.messages), *prompt]
    raise _resume_point_lost(truncated_at.stream_id if truncated_at is not None else None)


def _resume_point_in(seed: Seed, prompt: Sequence[PromptMessage]) -> int | None:
    """Where in the seed the oldest message stands that is in both."""
    found = (seed.index_of(said.codec_message_id, said.message.id) for said in prompt)
    return next((index for index in found if index is not None), None)


def _stored_prompt(stored: Sequence[Stored]) -> list[PromptMessage]:
    shown = [_shown(message) for message in stored]
    return [
        PromptMessage(
            said.message.role, close_tool_calls(said.message), codec_message_id=said.codec_message_id
        )
        for said in shown
    ]


def _stored(value: Mapping[str, Any]) -> Stored:
    # Checked also at run time: a stored row is often still text, or the whole answer of a database.
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"a stored message is an object, not {type(value).__name__}")
    message = value.get("message")
    if not isinstance(message, Mapping):
        return UIMessage.from_json(value)
    codec_message_id = value.get("codecMessageId")
    if not isinstance(codec_message_id, str):
        raise InvalidArgument("a stored message has a codecMessageId beside its message, or is a plain one")
    return ConversationMessage(codec_message_id, UIMessage.from_json(message))


def _shown(stored: Stored) -> ConversationMessage:
    return stored if isinstance(stored, ConversationMessage) else ConversationMessage(stored.id, stored)


def _position(serial: str) -> Position:
    return parse_position(serial)[0]


def _resume_point_lost(truncated_at: str | None) -> ResumePointLost:
    why = (
        f"retention removed messages up to {truncated_at}"
        if truncated_at
        else "it contains no stored message"
    )
    return ResumePointLost(
        f"the stored messages do not reach the session's history ({why}): messages may be in neither. Store turns "
        "sooner, keep them longer in the session, or accept the gap with allow_gap",
        detail={"truncatedAt": truncated_at} if truncated_at else None,
    )
