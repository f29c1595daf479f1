"""What an AG-UI client asks for, as turns: a message, another answer, answers to calls, a stop.

The client's copy of the conversation is not used, apart from what it says anew. A run asked for again is the same run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.http_api.agui_models import ResumeIn, RunIn
from gateway.http_api.front_end_turns import FrontEndTurns
from gateway.http_api.models import CancelIn, CancelOut
from gateway.http_api.reader import is_known
from selfhost_transport.errors import Conflict, NotFound
from selfhost_transport.turns import inputs
from selfhost_transport.turns.inputs import InputIds
from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.run_spans import (
    Pending,
    answer_event,
    answered_at,
    pending_calls,
    run_event,
)
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui_stream import contents_of_turn
from selfhost_transport.turns.values import Absent, Json, from_text
from selfhost_transport.turns.view import TreeView
from selfhost_transport.wire.message import Message

_RECENT: Final = 20


@dataclass(frozen=True, slots=True)
class Run:
    """A run and its turn. `after`: the suspension it goes on after, if none of its answers was the first."""

    run_id: str
    turn_id: str | None
    after: str = ""


class AguiTurns(FrontEndTurns):
    """What one caller asks of one session."""

    async def ask(self, body: RunIn) -> Run:
        """Start, continue or find the turn of a run. Raises Conflict, NotFound, InvalidArgument."""
        found = await self._services.turns.turn_of_event(self._session, run_event(body.run_id))
        if found is not None:
            return Run(body.run_id, found)
        if body.resume or body.tool_messages:
            return await self._answer(body)
        return await self._send(body)

    async def find(self, run_id: str) -> Run:
        """A run that was asked for before. Raises NotFound."""
        found = await self._services.turns.turn_of_event(self._session, run_event(run_id))
        if found is None:
            open_turns = {record.turn_id for record in await self._services.turns.active(self._session)}
            async with self._reader(lambda tree: all(is_known(tree, turn) for turn in open_turns)) as reader:
                for turn in reader.tree.turns():
                    if answered_at(reader.tree.run_node(turn.run_id), run_id) is not None:
                        found = turn.run_id
        if found is None:
            raise NotFound(f"this thread has no run {run_id!r}")
        return Run(run_id, found)

    async def stop(self, run_id: str | None, sent_message_id: str | None = None) -> CancelOut:
        """End the turn of a run, or the caller's running turns, for good; also that of a message that may not have arrived."""
        early = await self._stop_sent(sent_message_id)
        named = CancelIn(turn_id=(await self.find(run_id)).turn_id) if run_id is not None else None
        done = await self._calls.cancel(named or self._running())
        return done.model_copy(update={"matched": [*early, *done.matched]})

    # A message

    async def _send(self, body: RunIn) -> Run:
        message_id, parts = body.question
        ids = InputIds(message_id, run_event(body.run_id))
        async with self._reader(lambda tree: TreeView(tree).is_read(_RECENT)) as reader:
            tree = reader.tree
            known = tree.turn_of(message_id)
            if known is not None:
                return await self._again(body, tree, message_id, known)
            parent = _parent(tree, body.before)
        messages = inputs.user_message(parts, ids, client_id=self._client_id, parent=parent)
        body.client_input.attach(messages)
        return Run(body.run_id, await self._calls.start_newest(messages, self._client_id))

    async def _again(self, body: RunIn, tree: SessionTree, message_id: str, turn_id: str) -> Run:
        """A message that was sent before: its turn while that runs, afterwards another answer."""
        run_id = body.run_id
        info = tree.turn(turn_id)
        node = tree.run_node(turn_id)
        target = next(iter(node.messages), None) if node is not None else None
        if info is None or target is None or not info.status.is_terminal:
            return Run(run_id, turn_id)
        anchor = TreeView(tree).regenerate_anchor(target)
        message = inputs.regenerate(
            InputIds(event_id=run_event(run_id)),
            anchor.regenerates or target,
            parent=anchor.parent or message_id,
            client_id=self._client_id,
        )
        body.client_input.attach([message])
        return Run(run_id, await self._calls.start_newest([message], self._client_id))

    # Answers

    async def _answer(self, body: RunIn) -> Run:
        given = {*body.tool_messages, *(entry.interrupt_id for entry in body.resume)}
        # Whose calls these are has not ended, or not long ago.
        active = {record.turn_id for record in await self._services.turns.active(self._session)}
        async with self._reader(
            lambda tree: all(is_known(tree, turn) for turn in active) and TreeView(tree).is_read(_RECENT)
        ) as reader:
            node = _asked(reader.tree, given)
            if node is None or node.run is None:
                raise Conflict("no turn of this thread waits for these answers")
            turn_id, run = node.run.run_id, node.run
            if answered_at(node, body.run_id) is None and run.status.is_terminal:
                raise Conflict(f"the turn has ended ({run.status}); send a new message")
            pending = pending_calls(node)
            answers = self._answers(turn_id, pending, body)
            if answered_at(node, body.run_id) is None:
                _require_all(pending, answers)
            after = run.suspensions[-1] if run.suspensions else ""
        for message in answers.values():
            body.client_input.attach([message])
            await self._calls.give_answer(message, self._client_id)
        return Run(body.run_id, turn_id, after)

    def _answers(self, turn_id: str, pending: Pending, body: RunIn) -> dict[str, Message]:
        """The answers to what still waits, by call. Interrupts that no one waits for any more are left out."""
        found: dict[str, Message] = {}
        for call, message in body.tool_messages.items():
            if call in pending.calls:
                found[call] = self._result(pending.calls[call], turn_id, call, body.run_id, message)
        for entry in body.resume:
            named = pending.call_of_interrupt.get(entry.interrupt_id)
            if named is not None:
                found[named] = self._approval(pending.approvals[named][1], turn_id, named, body.run_id, entry)
        return found

    def _result(
        self, message_id: str, turn_id: str, call: str, run_id: str, message: Mapping[str, Any]
    ) -> Message:
        event, error = answer_event(run_id, call), message.get("error")
        if isinstance(error, str) and error:
            return inputs.tool_result_error(
                message_id, turn_id, call, error, event_id=event, client_id=self._client_id
            )
        return inputs.tool_result(
            message_id, turn_id, call, _output(message.get("content")), event_id=event, client_id=self._client_id
        )  # fmt: skip

    def _approval(self, message_id: str, turn_id: str, call: str, run_id: str, entry: ResumeIn) -> Message:
        payload = entry.payload if isinstance(entry.payload, Mapping) else {"approved": entry.payload}
        said = payload.get("approved")
        approved = entry.status == "resolved" and (said is None or said is True)
        reason = payload.get("reason")
        return inputs.tool_approval_response(
            message_id, turn_id, call, approved, event_id=answer_event(run_id, call), client_id=self._client_id,
            reason=reason if isinstance(reason, str) else None,
        )  # fmt: skip


def _require_all(pending: Pending, answers: Mapping[str, Message]) -> None:
    """A turn goes on with the last answer: one request gives all that are wanted."""
    if not answers:
        raise Conflict("these calls have been answered already; connect to follow the turn")
    missing = [call for call in (*pending.calls, *pending.approvals) if call not in answers]
    if missing:
        raise Conflict(f"the turn also waits for the calls {', '.join(missing)}: answer all of them at once")


def _asked(tree: SessionTree, given: set[str]) -> Node | None:
    """The newest turn that made one of these calls, or asked one of these questions."""
    found: Node | None = None
    for node in tree.nodes():
        if node.run is None or not node.run.is_started:
            continue
        for _, chunk in contents_of_turn(node):
            names = {getattr(chunk, "tool_call_id", None), getattr(chunk, "approval_id", None)}
            if names & given:
                found = node
    return found


def _parent(tree: SessionTree, before: list[str]) -> str | None:
    """What the message hangs below, where the client shows another branch than the session's; else None."""
    for message_id in before:
        node = tree.owner_of(message_id)
        if node is not None:
            shown = any(item.codec_message_id in node.messages for item in TreeView(tree).messages())
            return None if shown else next(reversed(node.messages), None)
    return None


def _output(content: Any) -> Json:
    """What a tool's message says: its JSON, where it is that."""
    if not isinstance(content, str):
        return content  # type: ignore[no-any-return]
    value = from_text(content)
    return content if isinstance(value, Absent | str) else value
