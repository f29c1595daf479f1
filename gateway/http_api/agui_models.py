"""What AG-UI's clients send, and what they get that is no event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag
from pydantic.alias_generators import to_camel

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns.client_input import ClientInput
from selfhost_transport.turns.inputs import is_blank
from selfhost_transport.turns.ui import FilePart, TextPart

_TOOL = "tool"
# What a client keeps beside the conversation, and may send along.
_BESIDE = frozenset({"reasoning", "activity"})


class _Lenient(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class ResumeIn(_Lenient):
    """The answer to an interrupt."""

    interrupt_id: str
    status: Literal["resolved", "cancelled"]
    payload: Any = None


class RunIn(_Lenient):
    """RunAgentInput. Of `messages` only the newest count: the session is the truth."""

    thread_id: str = Field(min_length=1)
    """The session's name."""
    run_id: str = Field(min_length=1, max_length=256)
    """The same run asked for again is not started again."""
    messages: list[dict[str, Any]] = Field(default_factory=list)
    protocol_version: str | None = None
    """Absent: the client is older than AG-UI 1.0."""
    resume: list[ResumeIn] = Field(default_factory=list)
    state: Any = None
    tools: list[dict[str, Any]] = Field(default_factory=list)
    context: list[dict[str, Any]] = Field(default_factory=list)
    forwarded_props: Any = None

    @property
    def client_input(self) -> ClientInput:
        """What the agent is given beside the conversation."""
        return ClientInput(self.state, tuple(self.tools), tuple(self.context), self.forwarded_props)

    @property
    def conversation(self) -> list[dict[str, Any]]:
        """The messages without those that only a client has."""
        return [message for message in self.messages if str(message.get("role")) not in _BESIDE]

    @property
    def tool_messages(self) -> dict[str, dict[str, Any]]:
        """The tool messages at the end, by call."""
        found: dict[str, dict[str, Any]] = {}
        for message in reversed(self.conversation):
            if message.get("role") != _TOOL:
                break
            found.setdefault(str(message.get("toolCallId")), message)
        return found

    @property
    def question(self) -> tuple[str, list[TextPart | FilePart]]:
        """The newest message of the user: its id, and what it says. Raises InvalidArgument."""
        last = self.conversation[-1] if self.conversation else {}
        if last.get("role") != "user":
            raise InvalidArgument("the last of `messages` has to be the user's, or a tool's result")
        message_id = last.get("id")
        if not isinstance(message_id, str) or not message_id:
            raise InvalidArgument("the last message has no `id`")
        parts = _parts(last.get("content"))
        if is_blank(parts):
            raise InvalidArgument("the last message is empty; write something")
        return message_id, parts

    @property
    def before(self) -> list[str]:
        """The ids of the messages before the newest one, newest first."""
        ids = [message.get("id") for message in reversed(self.conversation[:-1])]
        return [found for found in ids if isinstance(found, str)]


class RouteIn(_Lenient):
    """A request of CopilotKit's single route."""

    method: Literal["info", "agent/run", "agent/connect", "agent/stop"]
    params: dict[str, Any] = Field(default_factory=dict)
    body: dict[str, Any] | None = None


def _kind(body: Any) -> str:
    return "RouteIn" if isinstance(body, Mapping) and "method" in body else "RunIn"


RouteOrRunIn = Annotated[
    Annotated[RouteIn, Tag("RouteIn")] | Annotated[RunIn, Tag("RunIn")], Discriminator(_kind)
]
"""One of the two; a refusal speaks of the one that was meant."""


class AgentStopIn(_Lenient):
    """Which run to end; with none named, the caller's running turns."""

    run_id: str | None = None


class ThreadStopIn(AgentStopIn):
    """Which run of which thread to end.

    `sent_message_id`: the client's newest message. Its turn is stopped too, also if it arrives only after the stop.
    """

    thread_id: str = Field(min_length=1)
    sent_message_id: str | None = Field(default=None, min_length=1, max_length=512)


class AgentStopOut(_Lenient):
    """What a stop did; nothing of the turns has a later position. `interrupt`: for CopilotKit."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    stopped: bool
    turn_ids: list[str] = Field(default_factory=list)
    position: str | None = None
    interrupt: dict[str, Any] | None = None
    message: str | None = None


def _parts(content: Any) -> list[TextPart | FilePart]:
    if isinstance(content, str):
        return [TextPart(content)]
    if not isinstance(content, list) or not content:
        raise InvalidArgument("the last message's `content` is a text or a list of parts")
    return [_part(part, number) for number, part in enumerate(content)]


def _part(part: Any, number: int) -> TextPart | FilePart:
    if isinstance(part, Mapping):
        source = part.get("source")
        if part.get("type") == "text" and isinstance(part.get("text", part.get("content")), str):
            return TextPart(part.get("text", part.get("content")))
        if isinstance(source, Mapping) and isinstance(value := source.get("value"), str):
            kind = str(source.get("mimeType") or "application/octet-stream")
            if source.get("type") == "data":
                return FilePart(f"data:{kind};base64,{value}", kind)
            if source.get("type") == "url":
                return FilePart(value, kind)
    raise InvalidArgument(f"content[{number}]: parts are texts, and files by `data` or `url`")
