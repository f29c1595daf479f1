"""The messages an agent would write for a turn, delivered through a scripted socket."""

from __future__ import annotations

from dataclasses import replace

from selfhost_transport.errors import ErrorInfo
from selfhost_transport.turns import lifecycle
from selfhost_transport.turns.encoder import Append, Close, Create, Encoder
from selfhost_transport.turns.lifecycle import RunReason, StepReason
from selfhost_transport.turns.parts import Chunk, Start, StartStep, TextDelta, TextEnd, TextStart
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message, Version
from tests.client.scripted import CHANNEL, ScriptedSocket, serial


def echo(messages: list[Message], number: int) -> list[Message]:
    """What the service delivers of a publish."""
    return [
        replace(
            message,
            serial=f"{serial(number)}:{index:03d}",
            action=MessageAction.CREATE,
            version=Version(f"{serial(number)}:{index:03d}"),
            client_id=message.client_id or "user-1",
        )
        for index, message in enumerate(messages)
    ]


class ScriptedAgent:
    """Answers one input. `at` is the position of the next entry; `log` what was delivered, for another socket."""

    def __init__(self, socket: ScriptedSocket, trigger: Message, at: int = 110) -> None:
        self.socket = socket
        self.context = lifecycle.context_for_input(trigger, session=CHANNEL, agent_client_id="assistant")
        self.at = at
        self._open: dict[str, str] = {}
        self._encoder: Encoder | None = None
        self._step = ""

    def begin(self, answer: str = "answer-1") -> None:
        """Start the turn, its step, and an answer with one text part."""
        self.create(lifecycle.run_start(self.context))
        self.attempt(answer)

    def attempt(self, answer: str) -> None:
        """Start (again) the step, and an answer."""
        self._open.clear()
        self._step = self.create(lifecycle.step_start(self.context))
        self._encoder = Encoder(self.context, answer, self._step)
        self.write(Start(answer), StartStep(), TextStart("t"))

    def say(self, *pieces: str) -> None:
        """Append text."""
        self.write(*(TextDelta("t", piece) for piece in pieces))

    def write(self, *chunks: Chunk) -> None:
        """Deliver chunks."""
        assert self._encoder is not None
        for chunk in chunks:
            for op in self._encoder.encode(chunk):
                match op:
                    case Create():
                        made = self.create(op.message)
                        if op.stream_key is not None:
                            self._open[op.stream_key] = made
                    case Append():
                        self.append(self._open[op.stream_key], op.data, op.extras)
                    case Close():
                        self.append(self._open[op.stream_key], "", op.extras)

    def complete(self) -> None:
        """End the turn well."""
        self.write(TextEnd("t"))
        self.end(RunReason.COMPLETE)

    def end(self, reason: RunReason, error: ErrorInfo | None = None) -> None:
        """The terminal."""
        step = {"complete": StepReason.COMPLETE, "cancelled": StepReason.CANCELLED}.get(
            reason.value, StepReason.FAILED
        )
        self.create(lifecycle.step_end(self.context, self._step, step))
        self.create(lifecycle.run_end(self.context, reason, error))

    def create(self, message: Message) -> str:
        """Deliver a new message; its serial."""
        (made,) = echo([replace(message, client_id="assistant")], self.at)
        self.socket.messages(self.at, made)
        self.at += 1
        assert made.serial is not None
        return made.serial

    def append(self, to: str, data: str, extras: dict[str, object]) -> None:
        """Deliver an append."""
        message = Message(
            name="ai-output",
            data=data,
            serial=to,
            action=MessageAction.APPEND,
            extras=extras,
            version=Version(f"{serial(self.at)}:000"),
            client_id="assistant",
        )
        self.socket.messages(self.at, message)
        self.at += 1
