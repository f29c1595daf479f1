"""Random conversations, written through the store entry by entry as clients and workers write them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

from selfhost_transport.store.appends import MessageAppend
from selfhost_transport.store.entries import MessageOperation, Ref
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.turns import chunks as c
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import inputs, lifecycle
from selfhost_transport.turns.anchors import Anchor
from selfhost_transport.turns.context import TurnContext, context_for_input
from selfhost_transport.turns.encoder import Append, Close, Create, Encoder
from selfhost_transport.turns.inputs import InputIds
from selfhost_transport.turns.lifecycle import RunReason, StepReason
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui import FilePart, TextPart
from selfhost_transport.turns.view import TreeView
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message, Version
from selfhost_transport.wire.serial import Position, parse_position

PEOPLE = ("user-1", "user-2")


@dataclass(eq=False)
class Turn:
    """A turn on its way. `parent`: what its question follows, or what its answer follows where it asks nothing."""

    context: TurnContext
    trigger: str
    position: Position
    script: AsyncIterator[None]
    outputs: list[str] = field(default_factory=list)
    encoder: Encoder | None = None
    step_start: str = ""
    is_over: bool = False


class Talk:
    """One session: who writes, and a live reader that has seen every delivery.

    The live reader is the device that acts: its view goes where its edits and regenerates go.
    """

    def __init__(self, sessions: SessionStore, session: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.session = session
        self.tree = SessionTree(session)
        self.view = TreeView(self.tree)
        # Every question's own chain: what the model is given for it, as ids of messages, by a model of our own.
        self.turns: list[Turn] = []
        self._sessions = sessions
        self._open: list[Turn] = []
        self._streams: dict[str, Ref] = {}
        # Questions that can be deleted: of one part.
        self._asked: dict[str, Ref] = {}
        self._ids = 0

    async def run(self, turns: int, *, foreign: int) -> None:
        """So many turns, and what happens beside them: up to `foreign` messages of the application at a time."""
        started = 0
        while started < turns or self._open:
            if self.random.random() < 0.1:
                await self._speak_of_something_else(foreign)
            if started < turns and (not self._open or self.random.random() < 0.15):
                started += 1
                await self._ask()
            elif self.random.random() < 0.03:
                await self._cancel(self.random.choice(self._open))
            elif self.random.random() < 0.05:
                await self._steer(self.random.choice(self._open))
            elif self.random.random() < 0.02:
                await self._delete()
            else:
                await self._advance(self.random.choice(self._open))
        # Last, for what is sent from then on would be on another branch than that of who joins late.
        if self.random.random() < 0.2:
            await self._choose_for_all()

    # What people do

    async def _ask(self) -> None:
        shown = self.view.messages()
        questions = [m.codec_message_id for m in shown if m.message.role == h.ROLE_USER]
        answers = [m.codec_message_id for m in shown if m.message.role == h.ROLE_ASSISTANT]
        dice = self.random.random()
        if questions and dice < 0.12:
            await self._send(self.view.edit_anchor(self.random.choice(questions)))
        elif answers and dice < 0.24:
            await self._regenerate(self.random.choice(answers))
        else:
            await self._send(self.view.send_anchor())

    async def _send(self, anchor: Anchor) -> None:
        parts: list[TextPart | FilePart] = [TextPart(self._id("question"))]
        if self.random.random() < 0.1:
            parts.append(FilePart("https://example.org/picture.png", "image/png"))
        ids = InputIds(self._id("m"), self._id("e"))
        sent = inputs.user_message(
            parts, ids, client_id=PEOPLE[0], parent=anchor.parent, fork_of=anchor.fork_of
        )
        written = await self._start(sent)
        if len(written) == 1:
            position, _, index = parse_position(written[0].serial or "")
            self._asked[ids.codec_message_id] = Ref(position, index or 0)
        if anchor.fork_of is not None:
            self.view.select_own(ids.codec_message_id)

    async def _regenerate(self, target: str) -> None:
        anchor = self.view.regenerate_anchor(target)
        ids = InputIds(self._id("m"), self._id("e"))
        self.view.expect_answer(ids.codec_message_id)
        await self._start(
            [inputs.regenerate(ids, anchor.regenerates or target, parent=anchor.parent, client_id=PEOPLE[0])]
        )

    async def _start(self, messages: list[Message]) -> list[Message]:
        written = await self._publish([replace(message, client_id=PEOPLE[0]) for message in messages])
        context = context_for_input(written[-1], session=self.session, agent_client_id="assistant")
        position = parse_position(written[-1].serial or "")[0]
        turn = Turn(context, context.input_codec_message_id or "", position, _NOTHING)
        turn.script = self._work(turn)
        self._open.append(turn)
        self.turns.append(turn)
        return written

    async def _steer(self, turn: Turn) -> None:
        if turn.encoder is None:
            return
        ids = InputIds(self._id("m"), self._id("e"))
        run_id = turn.context.turn_id
        steer = inputs.user_message([TextPart(self._id("steer"))], ids, client_id=PEOPLE[1], run_id=run_id)
        await self._publish([replace(one, client_id=PEOPLE[1]) for one in steer], run_id)

    async def _cancel(self, turn: Turn) -> None:
        run_id = turn.context.turn_id
        cancel = inputs.cancel(event_id=self._id("e"), run_id=run_id)
        await self._publish([replace(cancel, client_id=PEOPLE[1])])
        if turn.encoder is None:
            await self._write(turn, lifecycle.run_start(turn.context))
        else:
            await self._encoded(turn, turn.encoder.cancel())
            await self._write(turn, lifecycle.step_end(turn.context, turn.step_start, StepReason.CANCELLED))
        await self._end(turn, RunReason.CANCELLED)

    async def _delete(self) -> None:
        """Someone deletes what they asked."""
        asked = [(key, ref) for key, ref in self._asked.items() if self.tree.message(key) is not None]
        if not asked:
            return
        key, ref = self.random.choice(asked)
        del self._asked[key]
        await self._sessions.replace(
            self.session, ref, MessageAction.DELETE, Message(), MessageOperation(client_id=PEOPLE[0])
        )
        self._deliver([await self._sessions.history.message(self.session, ref)])

    async def _choose_for_all(self) -> None:
        """Someone shows another alternative to all."""
        for shown in self.view.messages():
            choice = self.view.branch_selection(shown.codec_message_id)
            heads = [head.codec_message_id for head in choice.siblings if head is not None]
            if len(heads) > 1 and self.random.random() < 0.5:
                head = self.random.choice(heads)
                chosen = inputs.branch_selected(head, event_id=self._id("e"))
                await self._publish([replace(chosen, client_id=PEOPLE[0])])
                return

    async def _speak_of_something_else(self, foreign: int) -> None:
        notes = [
            Message(name="note", data=f"{n}", client_id=PEOPLE[1])
            for n in range(self.random.randint(1, max(1, foreign)))
        ]
        await self._publish(notes)

    # What the agent does

    async def _advance(self, turn: Turn) -> None:
        await anext(turn.script, None)

    async def _work(self, turn: Turn) -> AsyncIterator[None]:
        await self._write(turn, lifecycle.run_start(turn.context))
        yield
        if self.random.random() < 0.1:
            async for _ in self._ask_a_person(turn):
                yield
        attempts = 2 if self.random.random() < 0.1 else 1
        for attempt in range(attempts):
            turn.step_start = await self._write(turn, lifecycle.step_start(turn.context))
            for _ in range(self.random.choice((1, 1, 1, 2, 3))):
                turn.outputs.append(self._id("m"))
                turn.encoder = Encoder(turn.context, turn.outputs[-1], turn.step_start)
                for chunk in self._chunks():
                    await self._encoded(turn, turn.encoder.encode(chunk))
                    yield
                if attempt + 1 < attempts:
                    break
        await self._write(turn, lifecycle.step_end(turn.context, turn.step_start, StepReason.COMPLETE))
        await self._end(turn, RunReason.COMPLETE if self.random.random() < 0.95 else RunReason.ERROR)

    async def _ask_a_person(self, turn: Turn) -> AsyncIterator[None]:
        """The turn waits for the result of a client's tool, and goes on with it."""
        turn.step_start = await self._write(turn, lifecycle.step_start(turn.context))
        call, asking = self._id("call"), self._id("m")
        turn.outputs.append(asking)
        turn.encoder = Encoder(turn.context, asking, turn.step_start)
        for chunk in (c.Start(), c.StartStep(), c.ToolInputAvailable(call, "where", {}), c.FinishStep()):
            await self._encoded(turn, turn.encoder.encode(chunk))
        yield
        await self._write(turn, lifecycle.step_end(turn.context, turn.step_start, StepReason.COMPLETE))
        await self._write(turn, lifecycle.run_suspend(turn.context))
        yield
        run_id = turn.context.turn_id
        answer = inputs.tool_result(
            asking, run_id, call, {"city": "Ulm"}, event_id=self._id("e"), client_id=PEOPLE[1]
        )
        (written,) = await self._publish([replace(answer, client_id=PEOPLE[1])], run_id)
        turn.context = context_for_input(
            written, session=self.session, agent_client_id="assistant", invocation=1, previous=turn.context
        )
        yield
        await self._write(turn, lifecycle.run_resume(turn.context))

    def _chunks(self) -> list[c.Chunk]:
        found: list[c.Chunk] = [c.Start(), c.StartStep()]
        if self.random.random() < 0.4:
            found += [c.ReasoningStart("r"), c.ReasoningDelta("r", "hm "), c.ReasoningEnd("r")]
        if self.random.random() < 0.3:
            call = self._id("call")
            found += [
                c.ToolInputStart(call, "weather"), c.ToolInputDelta(call, '{"city": "Ulm"}'),
                c.ToolInputAvailable(call, "weather", {"city": "Ulm"}), c.ToolOutputAvailable(call, {"sun": True}),
            ]  # fmt: skip
        text = self._id("answer")
        return [
            *found,
            c.TextStart("t"),
            c.TextDelta("t", text),
            c.TextEnd("t"),
            c.FinishStep(),
            c.Finish("stop"),
        ]

    async def _end(self, turn: Turn, reason: RunReason) -> None:
        await self._write(turn, lifecycle.run_end(turn.context, reason))
        turn.is_over = True
        self._open.remove(turn)

    # Writing

    async def _write(self, turn: Turn, message: Message) -> str:
        (written,) = await self._publish([message], turn.context.turn_id)
        return written.serial or ""

    async def _encoded(self, turn: Turn, operations: Sequence[Create | Append | Close]) -> None:
        for operation in operations:
            match operation:
                case Create():
                    serial = await self._write(turn, operation.message)
                    if operation.stream_key is not None:
                        position, _, index = parse_position(serial)
                        self._streams[operation.stream_key] = Ref(position, index or 0)
                case Append():
                    await self._append(operation.stream_key, operation.data, operation.extras)
                case Close():
                    await self._append(operation.stream_key, "", operation.extras)

    async def _publish(self, messages: Sequence[Message], *groups: str) -> list[Message]:
        published = await self._sessions.publish(self.session, messages, groups=groups)
        serials = published.serials(len(messages))
        written = [
            replace(message, serial=serial, action=MessageAction.CREATE, version=Version(serial))
            for message, serial in zip(messages, serials, strict=True)
        ]
        self._deliver(written)
        return written

    async def _append(self, stream_key: str, data: str, extras: dict[str, object]) -> None:
        ref = self._streams[stream_key]
        (version,) = await self._sessions.append_all(self.session, ref, [MessageAppend(data, extras=extras)])
        epoch = (await self._sessions.open(self.session)).epoch
        self._deliver(
            [
                Message(
                    serial=ref.serial(epoch), action=MessageAction.APPEND, data=data, extras=extras,
                    version=Version(version.serial(epoch)),
                )
            ]
        )  # fmt: skip

    def _deliver(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.view.update(self.tree.apply(message))

    def _id(self, kind: str) -> str:
        self._ids += 1
        return f"{kind}-{self._ids}"


async def _nothing() -> AsyncIterator[None]:
    return
    yield


_NOTHING = _nothing()
