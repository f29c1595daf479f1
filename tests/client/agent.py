"""The messages an agent would write for a turn, delivered through a scripted socket."""

from __future__ import annotations

from dataclasses import replace

from selfhost_transport.client.session import requests
from selfhost_transport.errors import ErrorInfo
from selfhost_transport.turns import lifecycle
from selfhost_transport.turns.chunks import Chunk, Start, StartStep, TextDelta, TextEnd, TextStart
from selfhost_transport.turns.encoder import Append, Close, Create, Encoder
from selfhost_transport.turns.lifecycle import RunReason, StepReason
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


def user_messages(count: int, at: int = 10) -> list[Message]:
    """A conversation of user messages, each below the one before, from position `at` on."""
    found: list[Message] = []
    for number in range(count):
        parent = f"m{number - 1}" if number else None
        sent = requests.user_message(
            f"text {number}", requests.ids_for(f"m{number}"), client_id="user-1", parent=parent
        )
        found += echo(sent, at + number)
    return found


class ScriptedAgent:
    """Answers one input. `at` is the position of the next entry; `log` what was delivered, for another socket."""

    def __init__(self, socket: ScriptedSocket, trigger: Message, at: int = 110) -> None:
        self.socket = socket
        self.context = lifecycle.context_for_input(trigger, session=CHANNEL, agent_client_id="assistant")
        self.at = at
        # True: what is written is not delivered.
        self.deaf = False
        self._log: dict[str, Message] = {}
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

    def say(self, *chunks: str) -> None:
        """Append text."""
        self.write(*(TextDelta("t", chunk) for chunk in chunks))

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
        assert made.serial is not None
        self._log[made.serial] = made
        self._deliver(made)
        return made.serial

    def written(self) -> list[Message]:
        """What the history holds: each message once, in its newest state."""
        return list(self._log.values())

    def append(self, to: str, data: str, extras: dict[str, object]) -> None:
        """Deliver an append."""
        version = Version(f"{serial(self.at)}:000")
        whole = self._log[to]
        self._log[to] = replace(
            whole, data=str(whole.data) + data, extras=extras, action=MessageAction.UPDATE, version=version
        )
        self._deliver(
            Message(
                name="ai-output",
                data=data,
                serial=to,
                action=MessageAction.APPEND,
                extras=extras,
                version=version,
                client_id="assistant",
            )
        )

    def _deliver(self, message: Message) -> None:
        if not self.deaf:
            self.socket.messages(self.at, message)
        self.at += 1
