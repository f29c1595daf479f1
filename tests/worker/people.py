"""What people do to a turn that exists: steer it, answer its calls; and what a reader makes of its session."""

from __future__ import annotations

from selfhost_transport.store.turn_inputs import InputAccepted, TurnInputs
from selfhost_transport.store.turn_request import continuation_for, unpack_context
from selfhost_transport.store.turn_store import TurnRecord
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import inputs, ui
from selfhost_transport.turns.calls import answered_call
from selfhost_transport.turns.context import context_for_input
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.wire.message import Message
from tests.processes import wait_until
from tests.worker.session import Room, run_of


class People:
    """Participants of a room, by client id."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.inputs = TurnInputs(room.turns.redis, room.turns.keys)

    async def steer(self, turn: str, text: str, client_id: str = "alice", steer_id: str = "") -> str:
        """Send a text into a turn; its codec message id. Raises TurnEnded."""
        ids = inputs.InputIds(codec_message_id=steer_id) if steer_id else inputs.InputIds()
        messages = inputs.user_message([ui.TextPart(text)], ids, client_id=client_id, run_id=turn)
        for message in messages:
            message.client_id = client_id
        await self.inputs.steer(
            self.room.name, turn, messages, publish_id=f"steer:{turn}:{ids.codec_message_id}"
        )
        return ids.codec_message_id

    async def answer(self, turn: str, message: Message, client_id: str = "alice") -> InputAccepted:
        """Publish an answer to a call. Raises Conflict, TurnEnded."""
        message.client_id = client_id
        call = answered_call(message)
        assert call is not None
        packed = await self.inputs.context(self.room.name, turn)
        # Of a turn that is over nothing is known any more; the store refuses the answer all the same.
        context = (
            unpack_context(packed) if packed else context_for_input(message, session="", agent_client_id="")
        )
        return await self.inputs.answer(
            self.room.name, turn, [message], call, continuation_for(message, context)
        )

    async def approve(
        self,
        turn: str,
        approved: bool = True,
        *,
        client_id: str = "alice",
        call_id: str = "",
        reason: str = "",
    ) -> InputAccepted:
        """Answer the newest approval request, or that of one call."""
        part, message_id = await self.open_call(turn, call_id)
        answer = inputs.tool_approval_response(
            message_id, turn, part.tool_call_id, approved, event_id=inputs.new_id(), client_id=client_id,
            reason=reason or None,
        )  # fmt: skip
        return await self.answer(turn, answer, client_id)

    async def result(
        self, turn: str, output: str, *, client_id: str = "alice", call_id: str = ""
    ) -> InputAccepted:
        """Give the result of the newest client tool call, or of one call."""
        part, message_id = await self.open_call(turn, call_id)
        answer = inputs.tool_result(
            message_id, turn, part.tool_call_id, output, event_id=inputs.new_id(), client_id=client_id
        )
        return await self.answer(turn, answer, client_id)

    async def open_call(self, turn: str, call_id: str = "") -> tuple[ui.ToolPart, str]:
        """The newest call of a turn, or the named one, and the message it is in."""
        node = (await self.tree()).run_node(turn)
        assert node is not None
        found = [
            (part, key)
            for key, state in node.messages.items()
            for part in state.snapshot().message.parts
            if isinstance(part, ui.ToolPart) and call_id in ("", part.tool_call_id)
        ]
        return found[-1]

    async def tree(self) -> SessionTree:
        """The session as a late joiner sees it."""
        tree = SessionTree(self.room.name)
        for message in await self.room.history():
            tree.apply(message)
        return tree

    async def parts(self, turn: str) -> list[ui.Part]:
        """The parts of a turn's assistant messages, in order."""
        node = (await self.tree()).run_node(turn)
        messages = [] if node is None else [s.snapshot().message for s in node.messages.values()]
        return [part for m in messages if m.role == h.ROLE_ASSISTANT for part in m.parts]

    async def suspended(self, turn: str) -> TurnRecord:
        """Wait until a turn waits for people."""

        async def look() -> TurnRecord | None:
            record = await self.room.record(turn)
            return record if record.status == "suspended" else None

        record = await wait_until(look, what=f"the suspension of turn {turn}")
        assert record is not None
        return record

    async def lifecycle(self, turn: str) -> list[str]:
        """The life-cycle messages of a turn, without its steps."""
        names = [m.name or "" for m in await self.room.history() if run_of(m) == turn]
        return [name for name in names if name in h.RUN_LIFECYCLE]
