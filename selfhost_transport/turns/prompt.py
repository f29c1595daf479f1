"""The conversation a model should see when it answers an input (protocol section 7.8; BRA-11, INT-25, CAN-23)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from selfhost_transport.turns import decoder as d
from selfhost_transport.turns import ui
from selfhost_transport.turns.calls import CLOSED_CALL as CLOSED_CALL
from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.values import Absent

DENIED_CALL: Final = "This tool call was denied by the user."


class PartialAnswers(StrEnum):
    """What becomes of earlier answers that did not complete: cancelled, failed, or still being given."""

    KEEP = "keep"  # kept and marked as interrupted: the model knows what it was interrupted in
    PROMPT_ONLY = "prompt-only"  # the question stays, the partial answer goes
    DROP = "drop"  # question and answer both go, as the JS SDK does


@dataclass(slots=True, frozen=True)
class PromptMessage:
    """One message for the model. `interrupted`: an answer that is not whole."""

    role: str
    message: ui.UIMessage
    interrupted: bool = False
    codec_message_id: str | None = None


def build_prompt(
    tree: SessionTree, trigger: str, *, partial_answers: PartialAnswers = PartialAnswers.KEEP
) -> list[PromptMessage]:
    """The conversation for answering the input with codec-message-id `trigger`, oldest first.

    From the trigger along `parent` to the root, then the trigger's own turn as far as it has come: earlier
    passes, and steers that no pass has answered at the end. Tool calls that earlier turns left without a result
    are closed with an error, unless the policy is `drop`. An unknown trigger gives an empty conversation.
    """
    return _Chain(tree, trigger).prompt(partial_answers)


def chain_root(tree: SessionTree, trigger: str) -> Node | None:
    """Where the conversation for `trigger` begins, as far as the tree was read; None if the trigger was not."""
    if tree.trigger(trigger) is None and tree.owner_of(trigger) is None:
        return None
    return _Chain(tree, trigger).root()


class _Chain:
    def __init__(self, tree: SessionTree, trigger: str) -> None:
        self._tree = tree
        self._trigger = trigger
        request = tree.trigger(trigger)
        self._is_regenerate = request is not None and tree.owner_of(trigger) is None
        self._replaced = request.regenerates if request else None
        self._anchor = request.parent if request and self._is_regenerate else trigger
        answering = tree.turn_of(trigger)
        self._current = tree.run_node(answering) if answering is not None else None

    def root(self) -> Node | None:
        ancestors = self._ancestors()
        return ancestors[0] if ancestors else self._current

    def prompt(self, policy: PartialAnswers) -> list[PromptMessage]:
        ancestors = self._ancestors()
        dropped = self._dropped(ancestors, policy)
        found: list[PromptMessage] = []
        for n, node in enumerate(ancestors):
            if node in dropped:
                continue
            following = ancestors[n + 1] if n + 1 < len(ancestors) else self._current
            found += self._of_node(node, following, policy)
        if self._current is not None and self._current not in ancestors:
            found += of_current(self._current, self._trigger, policy)
        return found

    def _ancestors(self) -> list[Node]:
        """Nodes from the root to the anchor; the anchor may be in the current run itself (a resume)."""
        chain: dict[Node, None] = {}
        node = self._tree.owner_of(self._anchor) if self._anchor else None
        while node is not None and node not in chain:
            chain[node] = None
            node = self._tree.owner_of(node.parent) if node.parent else None
        return list(chain)[::-1]

    def _dropped(self, ancestors: list[Node], policy: PartialAnswers) -> set[Node]:
        if policy is PartialAnswers.KEEP:
            return set()
        dropped: set[Node] = set()
        kept = {self._current, ancestors[-1] if ancestors else None}
        for before, node in zip([None, *ancestors], ancestors, strict=False):
            if node.run is None or node in kept or not is_partial(node):
                continue
            dropped.add(node)
            if policy is PartialAnswers.DROP and before is not None and before.run is None:
                dropped.add(before)
        return dropped

    def _of_node(self, node: Node, following: Node | None, policy: PartialAnswers) -> list[PromptMessage]:
        if node is self._current:
            return of_current(node, self._trigger, policy)
        return of_node(node, {following.regenerates if following else None, self._replaced}, policy)


def of_node(node: Node, ends: Collection[str | None], policy: PartialAnswers) -> list[PromptMessage]:
    """What a node before the current turn says. `ends`: messages from which on another answer takes over."""
    found: list[PromptMessage] = []
    for state in node.messages.values():
        if state.codec_message_id in ends:
            break
        if state.deleted:
            continue
        message = state.snapshot().message
        is_answer = node.run is not None and message.role != "user"
        interrupted = is_answer and is_partial(node)
        closed = message if policy is PartialAnswers.DROP else close_tool_calls(_explained(message, node))
        found.append(PromptMessage(message.role, closed, interrupted, state.codec_message_id))
    return found


def of_current(node: Node, trigger: str, policy: PartialAnswers) -> list[PromptMessage]:
    """The turn itself: nothing is closed, for its open tool calls are what it may be about to run."""
    waiting = [s for s in node.steers(trigger) if s not in node.answered_steers()]
    kept = [key for key, state in node.messages.items() if not state.deleted]
    order = [key for key in kept if key not in waiting] + [key for key in waiting if key in kept]
    messages = [node.messages[key].snapshot().message for key in order]
    if policy is not PartialAnswers.DROP:
        messages = [_explained(message, node) for message in messages]
    return [
        PromptMessage(message.role, message, codec_message_id=key)
        for key, message in zip(order, messages, strict=True)
    ]


def _explained(message: ui.UIMessage, node: Node) -> ui.UIMessage:
    """A denial is never an empty result: the model reads that it was one, and the reason if there is one (HIL-12)."""
    if not any(isinstance(part, ui.ToolPart) and part.state == ui.OUTPUT_DENIED for part in message.parts):
        return message
    reasons = {
        record.input.tool_call_id: record.input.reason
        for record in node.records()
        if isinstance(record.input, d.ApprovalAnswered) and not record.input.approved
    }
    return replace(message, parts=tuple(_denied(part, reasons) for part in message.parts))


def _denied(part: ui.Part, reasons: Mapping[str, str | None]) -> ui.Part:
    if not isinstance(part, ui.ToolPart) or part.state != ui.OUTPUT_DENIED:
        return part
    reason = reasons.get(part.tool_call_id)
    reason_text = f"{DENIED_CALL} Reason: {reason}" if reason else DENIED_CALL
    return replace(part, error_text=reason_text)


def close_tool_calls(message: ui.UIMessage) -> ui.UIMessage:
    """The message with every unanswered tool call closed, so that a strict provider accepts it (CAN-23)."""
    if not any(isinstance(part, ui.ToolPart) and part.state in ui.UNANSWERED for part in message.parts):
        return message
    return replace(message, parts=tuple(_closed(part) for part in message.parts))


def _closed(part: ui.Part) -> ui.Part:
    if not isinstance(part, ui.ToolPart) or part.state not in ui.UNANSWERED:
        return part
    # Cut in the middle, the arguments may not be an object, which providers insist on.
    known = {} if isinstance(part.input, Absent) else part.input
    return replace(part, state=ui.OUTPUT_ERROR, input=known, error_text=CLOSED_CALL, approval=None)


def is_partial(node: Node) -> bool:
    """Whether a node is an answer that did not complete."""
    return node.run is not None and node.run.status is not TurnStatus.COMPLETED
