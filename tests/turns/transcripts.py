"""The golden transcripts as typed values (format: tests/vectors/ai-transport/README.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfhost_transport.turns import headers as h
from selfhost_transport.turns.context import TurnContext
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.view import TreeView
from selfhost_transport.wire.message import Format, Message, decode_message

FOLDER = Path(__file__).parent.parent / "vectors" / "ai-transport"
VERCEL = "vercel-ui-message"


@dataclass(slots=True)
class Operation:
    """One line of `wire`: what was done, and the message as a subscriber received it."""

    op: str
    message: Message
    raw: dict[str, Any]


@dataclass(slots=True)
class Transcript:
    name: str
    codec: str
    raw: dict[str, Any]

    def operations(self) -> Iterator[Operation]:
        """Everything in `wire`, refused operations included."""
        for line in self.raw["wire"]:
            yield Operation(line["op"], decode_message(line, Format.JSON), line)

    def live(self) -> list[Message]:
        """What a subscriber attached from the start received."""
        return [operation.message for operation in self.operations() if operation.op != "nacked"]

    def history(self) -> list[Message]:
        return [decode_message(line, Format.JSON) for line in self.raw["history"]]

    def triggers(self) -> list[tuple[Message, list[Message]]]:
        """For every run-start and run-resume: it, and what was on the wire before it."""
        live = self.live()
        opening = (h.AI_RUN_START, h.AI_RUN_RESUME)
        return [(message, live[:n]) for n, message in enumerate(live) if message.name in opening]


def context_of(message: Message) -> TurnContext:
    """The context that gives the recorded headers of a message of a run."""
    found = transport(message)
    return TurnContext(
        session="conversations:vec",
        turn_id=found["run-id"],
        invocation_id=found["invocation-id"],
        agent_client_id=message.client_id or "",
        step_id=found.get("step-id", ""),
        owner_client_id=found.get("run-client-id"),
        input_client_id=found.get("input-client-id"),
        input_codec_message_id=found.get("input-codec-message-id"),
        parent=found.get("parent"),
        fork_of=found.get("fork-of"),
        msg_regenerate=found.get("msg-regenerate"),
        step_client_id=found.get("step-client-id", ""),
    )


def view_of(messages: Iterable[Message]) -> TreeView:
    """What a reader of these messages sees."""
    tree = SessionTree()
    for message in messages:
        tree.apply(message)
    return TreeView(tree)


def load(name: str) -> Transcript:
    """The transcript whose file name begins with `name`."""
    (path,) = FOLDER.glob(f"{name}-*.json")
    raw = json.loads(path.read_text())
    return Transcript(path.stem, raw["codec"], raw)


def names(codec: str = VERCEL) -> list[str]:
    """File names (without suffix) of the transcripts of one codec."""
    found = [path for path in sorted(FOLDER.glob("*.json")) if json.loads(path.read_text())["codec"] == codec]
    return [path.stem for path in found]


def load_all(codec: str = VERCEL) -> list[Transcript]:
    return [Transcript(n, codec, json.loads((FOLDER / f"{n}.json").read_text())) for n in names(codec)]


def transport(message: Message) -> dict[str, str]:
    """The transport headers, or {}."""
    extras = message.extras or {}
    found: dict[str, str] = extras.get("ai", {}).get("transport", {})
    return found
