"""Conversations written into a real store, message by message, as agents of any kind publish them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from selfhost_transport.store.entries import Ref
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.turns import chunks as c
from selfhost_transport.turns import lifecycle
from selfhost_transport.turns.context import TurnContext, context_for_input
from selfhost_transport.turns.encoder import Append, Close, Create, Encoder, OutputOperation
from selfhost_transport.turns.inputs import InputIds, new_id, regenerate, user_message
from selfhost_transport.turns.lifecycle import RunReason, StepReason
from selfhost_transport.turns.ui import TextPart
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position, parse_position

AGENT, USER = "agent", "alice"


@dataclass(slots=True)
class Said:
    """One turn as it was written: serials of its messages in order, its question first."""

    question_id: str
    answer_id: str = field(default_factory=new_id)
    turn_id: str = ""
    serials: list[str] = field(default_factory=list)
    # The newest write to it.
    last: Position = Position.ZERO


class Talk:
    """Writes to one session and remembers what it wrote."""

    def __init__(self, sessions: SessionStore, session: str = "talk") -> None:
        self.sessions = sessions
        self.session = session
        self.turns: list[Said] = []
        # Of the application's own messages.
        self.foreign: list[str] = []
        # Everything, in order.
        self.serials: list[str] = []

    async def say(self, text: str, *, parent: str | None = None, chunks: int = 1) -> Said:
        """One whole turn, by default after the last one."""
        if parent is None and self.turns:
            parent = self.turns[-1].answer_id
        messages = user_message([TextPart(text)], InputIds(), client_id=USER, parent=parent)
        async for _ in self.turn(messages, chunks=chunks):
            pass
        return self.turns[-1]

    async def regenerate(self, said: Said) -> Said:
        """Another answer to the same question."""
        message = regenerate(InputIds(), said.answer_id, parent=said.question_id, client_id=USER)
        async for _ in self.turn([message]):
            pass
        return self.turns[-1]

    async def turn(
        self,
        messages: Sequence[Message],
        *,
        chunks: int = 1,
        reasoning: bool = False,
        reason: RunReason | None = RunReason.COMPLETE,
    ) -> AsyncIterator[None]:
        """A turn in steps, one publish each. `reason` None: it stays open."""
        context = context_for_input(messages[-1], session=self.session, agent_client_id=AGENT)
        said = Said(context.input_codec_message_id or "")
        said.turn_id = context.turn_id
        self.turns.append(said)
        await self._publish(said, *messages)
        yield
        await self._publish(said, lifecycle.run_start(context))
        yield
        step = await self._publish(said, lifecycle.step_start(context))
        yield
        async for _ in self._answer(said, context, step, chunks, reasoning):
            yield
        if reason is None:
            return
        outcome = StepReason.COMPLETE if reason is RunReason.COMPLETE else StepReason.CANCELLED
        await self._publish(said, lifecycle.step_end(context, step, outcome))
        yield
        await self._publish(said, lifecycle.run_end(context, reason))

    async def note(self, text: str, count: int = 1) -> None:
        """A publish of the application's own."""
        messages = [Message(name="note", data=text) for _ in range(count)]
        published = await self.sessions.publish(self.session, messages)
        serials = published.serials(count)
        self.foreign += serials
        self.serials += serials

    async def _answer(
        self, said: Said, context: TurnContext, step: str, deltas: int, reasoning: bool
    ) -> AsyncIterator[None]:
        encoder = Encoder(context, said.answer_id, step)
        chunks: list[c.Chunk] = [c.Start()]
        if reasoning:
            chunks += [c.ReasoningStart("r"), c.ReasoningDelta("r", "well"), c.ReasoningEnd("r")]
        texts = [c.TextDelta("t", f"{number} ") for number in range(deltas)]
        chunks += [c.TextStart("t"), *texts, c.TextEnd("t"), c.Finish("stop")]
        refs: dict[str, Ref] = {}
        for chunk in chunks:
            for op in encoder.encode(chunk):
                await self._write(said, op, refs)
                yield

    async def _write(self, said: Said, op: OutputOperation, refs: dict[str, Ref]) -> None:
        match op:
            case Create(message, key):
                await self._publish(said, message)
                if key is not None:
                    refs[key] = _ref(said.serials[-1])
            case Append(key, data, extras):
                said.last = await self.sessions.append(self.session, refs[key], data, extras=extras)
            case Close(key, extras):
                said.last = await self.sessions.append(self.session, refs[key], "", extras=extras)

    async def _publish(self, said: Said, *messages: Message) -> str:
        published = await self.sessions.publish(self.session, messages)
        serials = published.serials(len(messages))
        said.serials += serials
        said.last = published.position
        self.serials += serials
        return serials[0]


async def random_talk(talk: Talk, rng: random.Random, turns: int) -> None:
    """Concurrent turns, questions of several parts, foreign messages in between; some turns stay open."""
    running: list[AsyncIterator[None]] = []
    begun = 0
    while begun < turns or running:
        choice = rng.random()
        if begun < turns and (not running or choice < 0.15):
            parts = [TextPart(f"{begun}.{part}") for part in range(rng.choice((1, 1, 1, 3)))]
            messages = user_message(parts, InputIds(), client_id=USER)
            reason = rng.choice((RunReason.COMPLETE,) * 6 + (RunReason.CANCELLED, None))
            running.append(
                talk.turn(messages, chunks=rng.randint(0, 3), reasoning=rng.random() < 0.3, reason=reason)
            )
            begun += 1
        elif choice < 0.25:
            await talk.note("note", rng.choice((1, 1, 4)))
        else:
            one = rng.choice(running)
            if await anext(one, _DONE) is _DONE:
                running.remove(one)


_DONE = object()


def _ref(serial: str) -> Ref:
    position, _, index = parse_position(serial)
    return Ref(position, index or 0)
