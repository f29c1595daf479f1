"""What a `useChat` page asks for, as turns: a message, an edit, another answer, answers to calls, a stop.

The page's own copy of the conversation may be old, cut short or hold half of an answer: it is not used. The session is
the truth, and the same request sent again is the same turn.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from gateway.http_api import chat_view
from gateway.http_api.chat_models import ChatIn, ChatStopIn, StopOut, user_parts
from gateway.http_api.front_end_turns import FrontEndTurns
from gateway.http_api.models import CancelIn
from selfhost_transport.errors import Conflict, NotFound
from selfhost_transport.turns import inputs
from selfhost_transport.turns.inputs import InputIds
from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.runs import RunInfo
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui import (
    APPROVAL_REQUESTED,
    INPUT_AVAILABLE,
    OUTPUT_AVAILABLE,
    OUTPUT_ERROR,
    ToolPart,
    UIMessage,
)
from selfhost_transport.turns.ui_stream import chunks_of_turn
from selfhost_transport.turns.values import Absent, to_text
from selfhost_transport.turns.view import TreeView
from selfhost_transport.wire.message import Message

_APPROVAL_RESPONDED = "approval-responded"
_ANSWERED = frozenset({OUTPUT_AVAILABLE, OUTPUT_ERROR, _APPROVAL_RESPONDED})
_OPEN = frozenset({INPUT_AVAILABLE, APPROVAL_REQUESTED})
_RECENT = 20


@dataclass(frozen=True, slots=True)
class TurnToStream:
    """The turn to stream. `skip`: how many of its chunks the page has already; `resumes`: it continues after a suspension."""

    turn_id: str
    skip: int = 0
    resumes: bool = False


class ChatTurns(FrontEndTurns):
    """What one caller asks of one session."""

    async def ask(self, body: ChatIn) -> TurnToStream:
        """Start, continue or find the turn that a request is about. Raises Conflict, NotFound, InvalidArgument."""
        last = body.last
        if body.trigger == "regenerate-message":
            return await self._regenerate(body, last)
        if last.role == chat_view.USER:
            return await (self._edit(body.message_id, last) if body.message_id else self._send(body, last))
        return await self._answer(last)

    async def stop(self, body: ChatStopIn) -> StopOut:
        """End turns for good; one that has ended, or is unknown, is left as it is."""
        turn_id = body.turn_id
        if turn_id is None and body.message_id is not None:
            message_id = body.message_id
            async with self._reader(
                lambda tree: chat_view.find_answer(tree, message_id) is not None
            ) as reader:
                node = chat_view.find_answer(reader.tree, message_id)
                if node is None or node.run is None:
                    return StopOut()
                turn_id = node.run.run_id
        sent = await self._stop_sent(body.sent_message_id)
        done = await self._calls.cancel(CancelIn(turn_id=turn_id) if turn_id is not None else self._running())
        return StopOut(
            matched=[*sent, *done.matched], already_ended=done.already_ended, position=done.position
        )

    async def answer_to(self, message_id: str) -> str | None:
        """The turn of the shown answer to a question; None where it has none, or is no question."""
        async with self._reader(
            lambda tree: (
                chat_view.find_user_message(tree, message_id) is not None and TreeView(tree).is_read(1)
            )
        ) as reader:
            tree = reader.tree
            asked = chat_view.find_user_message(tree, message_id)
            answer = chat_view.first_answer(tree, asked.codec_message_id) if asked is not None else None
            return tree.turn_of(answer) if answer is not None else None

    # The requests

    async def _send(self, body: ChatIn, message: UIMessage) -> TurnToStream:
        ids = InputIds(message.id, _event_id(message.id))
        parent = await self._parent(body.before_last)
        messages = inputs.user_message(
            user_parts(message), ids, client_id=self._client_id, message_id=message.id, parent=parent
        )
        return TurnToStream(await self._start(messages))

    async def _parent(self, before: str | None) -> str | None:
        """What the message hangs below, where the page shows another branch than the session's; else None."""
        if before is None:
            return None
        async with self._reader(lambda tree: TreeView(tree).is_read(_RECENT)) as reader:
            tree = reader.tree
            node = chat_view.find_answer(tree, before)
            if node is None or any(
                item.codec_message_id in node.messages for item in TreeView(tree).messages()
            ):
                return None
            return next(reversed(node.messages), None)

    async def _edit(self, message_id: str, message: UIMessage) -> TurnToStream:
        async with self._reader(
            lambda tree: chat_view.find_user_message(tree, message_id) is not None
        ) as reader:
            known = chat_view.find_user_message(reader.tree, message_id)
            if known is None:
                raise NotFound(f"this chat has no message {message_id!r}")
            turn_id = reader.tree.turn_of(known.codec_message_id)
        if turn_id is not None and known.message.parts == message.parts:
            # The same request again: by a proxy, or a second click.
            return TurnToStream(turn_id)
        # The page keeps its id for the new version; on the wire each version has one of its own.
        said = to_text([known.codec_message_id, message.to_json()])
        wire_id = str(uuid.uuid5(uuid.NAMESPACE_OID, said))
        messages = inputs.user_message(
            user_parts(message),
            InputIds(wire_id, _event_id(wire_id)),
            client_id=self._client_id,
            message_id=message_id,
            fork_of=known.codec_message_id,
        )
        return TurnToStream(await self._start(messages))

    async def _regenerate(self, body: ChatIn, last: UIMessage) -> TurnToStream:
        wanted = body.message_id
        if wanted is None and last.role != chat_view.USER:
            wanted = last.id
        async with self._reader(
            lambda tree: _target(tree, wanted, last.id) is not None and TreeView(tree).is_read(1)
        ) as reader:
            tree = reader.tree
            target = _target(tree, wanted, last.id)
            if target is None:
                raise NotFound("this chat has no answer to regenerate")
            running = _newest_run(tree, target)
            if running is not None and not running.status.is_terminal:
                # A second click, or a proxy that sends again: the answer is in flight.
                return TurnToStream(running.run_id)
            anchor = TreeView(tree).regenerate_anchor(target)
        ids = InputIds()
        message = inputs.regenerate(
            ids, anchor.regenerates or target, parent=anchor.parent, client_id=self._client_id
        )
        return TurnToStream(await self._start([message]))

    async def _answer(self, message: UIMessage) -> TurnToStream:
        async with self._reader(
            lambda tree: (
                (found := chat_view.find_answer(tree, message.id)) is not None
                and found.run is not None
                and found.run.is_started
            )
        ) as reader:
            node = chat_view.find_answer(reader.tree, message.id)
            if node is None or node.run is None:
                raise NotFound(f"this chat has no answer {message.id!r}")
            turn_id, status = node.run.run_id, node.run.status
            skip = sum(1 for _ in chunks_of_turn(node))
            given = self._answers(node, message, turn_id)
        if status.is_terminal:
            raise Conflict(f"the answer has ended ({status}); send a new message")
        if not given:
            if status is TurnStatus.SUSPENDED:
                raise Conflict("the answer waits for calls that have no answer yet")
            return TurnToStream(turn_id, skip)
        for one in given:
            await self._calls.give_answer(one, self._client_id)
        record = await self._services.turns.record(self._session, turn_id)
        return TurnToStream(
            turn_id, skip, resumes=record is not None and record.status != TurnStatus.SUSPENDED
        )

    def _answers(self, node: Node, message: UIMessage, turn_id: str) -> list[Message]:
        """The answers in a page's copy of a message to calls that still wait."""
        said = {
            part.tool_call_id: part
            for part in message.parts
            if isinstance(part, ToolPart) and part.state in _ANSWERED
        }
        found = []
        for state in node.messages.values():
            for call_id, tool in state.tools.items():
                part = said.get(call_id)
                if part is not None and tool.state in _OPEN and not tool.provider_executed:
                    found.append(self._answer_to(state.codec_message_id, turn_id, part))
        return found

    def _answer_to(self, codec_message_id: str, turn_id: str, part: ToolPart) -> Message:
        event_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{turn_id} {part.tool_call_id} {part.state}"))
        client_id = self._client_id
        if part.state == OUTPUT_AVAILABLE:
            output = None if isinstance(part.output, Absent) else part.output
            return inputs.tool_result(
                codec_message_id, turn_id, part.tool_call_id, output, event_id=event_id, client_id=client_id
            )
        if part.state == OUTPUT_ERROR:
            text = part.error_text or "the tool failed"
            return inputs.tool_result_error(
                codec_message_id, turn_id, part.tool_call_id, text, event_id=event_id, client_id=client_id
            )
        approval = part.approval
        return inputs.tool_approval_response(
            codec_message_id, turn_id, part.tool_call_id, bool(approval and approval.approved),
            event_id=event_id, client_id=client_id, reason=approval.reason if approval else None,
        )  # fmt: skip

    # Parts of the above

    async def _start(self, messages: list[Message]) -> str:
        return await self._calls.start_newest(messages, self._client_id)


def _target(tree: SessionTree, wanted: str | None, last: str) -> str | None:
    """The message that is to be answered again."""
    if wanted is not None:
        node = chat_view.find_answer(tree, wanted)
        if node is not None:
            return next(iter(node.messages), None)
    asked = chat_view.find_user_message(tree, wanted or last)
    return chat_view.first_answer(tree, asked.codec_message_id) if asked is not None else None


def _newest_run(tree: SessionTree, target: str) -> RunInfo | None:
    node = tree.owner_of(target)
    if node is None or node.run is None:
        return None
    anchor = TreeView(tree).regenerate_anchor(target)
    newest = node.run.info()
    for run in tree.turns():
        other = tree.run_node(run.run_id)
        if other is not None and other.regenerates in (target, anchor.regenerates):
            newest = run
    return newest


def _event_id(message_id: str) -> str:
    """Derived from the id, so that a repeat of the send is the same send (P5)."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, message_id))
