"""What OpenAI's clients send to have a response, and what of it is the conversation's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from gateway.http_api.responses_errors import refused
from selfhost_transport.turns.client_input import ClientInput
from selfhost_transport.turns.inputs import UserPart, is_blank
from selfhost_transport.turns.responses_object import ECHOED
from selfhost_transport.turns.ui import FilePart, TextPart

_PREAMBLE: Final = ("system", "developer")
_MAX_ITEMS: Final = 200


@dataclass(frozen=True, slots=True)
class ApprovalAnswer:
    """The answer to an approval request."""

    request_id: str
    approved: bool
    reason: str | None


@dataclass(slots=True)
class Said:
    """The input of a request: a message, or answers to what the turn waits for."""

    parts: list[UserPart] = field(default_factory=list)
    message_id: str | None = None
    instructions: list[str] = field(default_factory=list)
    # The outputs of calls, by call.
    outputs: dict[str, Any] = field(default_factory=dict)
    approvals: list[ApprovalAnswer] = field(default_factory=list)
    # What it says to the agent beside that.
    asked: dict[str, Any] = field(default_factory=dict)

    @property
    def client_input(self) -> ClientInput:
        """What the agent is given beside the conversation."""
        others = {name: value for name, value in self.asked.items() if name != "tools"}
        return ClientInput(tools=tuple(self.asked.get("tools", ())), forwarded_props=others or None)

    @property
    def answers(self) -> bool:
        """Whether it answers, rather than asks."""
        return bool(self.outputs or self.approvals)


class CreateIn(BaseModel):
    """A request of `responses.create`. Further fields are accepted and have no effect."""

    model_config = ConfigDict(extra="allow")

    input: str | list[Any] | None = None
    """A text, or items: messages of the user, outputs of functions, answers to approval requests."""
    model: str | None = None
    """The agent. Absent: the one of the conversation."""
    stream: bool | None = None
    background: bool | None = None
    """Whether to answer at once. The turn goes on without the caller in any case."""
    store: bool | None = None
    conversation: str | dict[str, Any] | None = None
    """The session's name, or `{id}`."""
    previous_response_id: str | None = None
    instructions: Any = None
    metadata: dict[str, Any] | None = None
    tools: list[Any] | None = None

    @property
    def session(self) -> str | None:
        """The session that is named. Raises InvalidArgument."""
        given = self.conversation
        if given is None:
            return None
        if self.previous_response_id is not None:
            raise refused("`conversation` and `previous_response_id` exclude each other", "conversation")
        name = given if isinstance(given, str) else given.get("id")
        if not isinstance(name, str) or not name:
            raise refused("`conversation` is the id of a conversation, or an object with it", "conversation")
        return name

    def said(self) -> Said:
        """What it says. Raises InvalidArgument, with the field that cannot be served."""
        if self.store is False:
            raise refused("a response is part of its conversation and so always stored", "store")
        said = read_input(self.input)
        if said.answers and said.parts:
            raise refused("answer the turn's calls first; send the message in a request of its own", "input")
        if not said.answers and not said.parts:
            raise refused("say something: `input` is a text or a list of items", "input")
        if said.parts and is_blank(said.parts):
            raise refused("the message is empty; write something", "input")
        said.asked = self._asked(said)
        return said

    def _asked(self, said: Said) -> dict[str, Any]:
        """What the agent is given beside the message, and what the response repeats."""
        given = {"instructions": self.instructions, "metadata": self.metadata, "tools": self.tools}
        given |= self.model_extra or {}
        asked = {name: given[name] for name in ECHOED if given.get(name) not in (None, [], {})}
        first = [asked["instructions"]] if isinstance(asked.get("instructions"), str) else []
        if said.instructions:
            asked["instructions"] = "\n\n".join([*first, *said.instructions])
        return asked


def read_input(given: str | list[Any] | None) -> Said:
    """The items of an input. Raises InvalidArgument."""
    said = Said()
    if isinstance(given, str):
        said.parts.append(TextPart(given))
        return said
    if given is not None and len(given) > _MAX_ITEMS:
        raise refused(f"an input has at most {_MAX_ITEMS} items", "input")
    for number, item in enumerate(given or ()):
        _take(said, item, f"input[{number}]")
    return said


def _take(said: Said, item: Any, where: str) -> None:
    if not isinstance(item, Mapping):
        raise refused("an item is an object", where)
    kind = item.get("type", "message")
    if kind == "message":
        _take_message(said, item, where)
    elif kind == "function_call_output":
        call = item.get("call_id")
        if not isinstance(call, str) or not call:
            raise refused("a function_call_output needs its `call_id`", f"{where}.call_id")
        said.outputs[call] = _output(item.get("output"), f"{where}.output")
    elif kind == "mcp_approval_response":
        asked, reason, approve = item.get("approval_request_id"), item.get("reason"), item.get("approve")
        if not isinstance(asked, str) or not isinstance(approve, bool):
            raise refused("an approval needs `approval_request_id`, and `approve`: true or false", where)
        said.approvals.append(ApprovalAnswer(asked, approve, reason if isinstance(reason, str) else None))
    else:
        raise refused(f"items of the type {str(kind)[:64]!r} cannot be sent; {_ALREADY}", f"{where}.type")


_ALREADY: Final = "what the agent said is in the session: name its response as `previous_response_id`, or its `conversation`"


def _take_message(said: Said, item: Mapping[str, Any], where: str) -> None:
    role, content = item.get("role"), item.get("content")
    parts = [TextPart(content)] if isinstance(content, str) else _parts(content, f"{where}.content")
    if str(role) in _PREAMBLE:
        said.instructions += [part.text for part in parts if isinstance(part, TextPart)]
        return
    if role != "user":
        raise refused(f"a message of the role {str(role)[:64]!r} cannot be sent; {_ALREADY}", f"{where}.role")
    named = item.get("id")
    if isinstance(named, str) and named:
        said.message_id = named[:128]
    said.parts += parts


def _parts(content: Any, where: str) -> list[TextPart | FilePart]:
    if not isinstance(content, list) or not content:
        raise refused("`content` is a text or a list of parts", where)
    return [_part(part, f"{where}[{number}]") for number, part in enumerate(content)]


def _part(part: Any, where: str) -> TextPart | FilePart:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in ("input_text", "text") and isinstance(part.get("text"), str):
        return TextPart(part["text"])
    if kind == "input_image" and isinstance(url := part.get("image_url"), str):
        return FilePart(url, _media_type(url, "image/*"))
    if kind == "input_file" and isinstance(url := part.get("file_url") or part.get("file_data"), str):
        return FilePart(url, _media_type(url, "application/octet-stream"))
    raise refused("a part is an input_text, or an input_image or input_file with its URL or data", where)


def _media_type(url: str, unknown: str) -> str:
    head = url.partition(",")[0]
    named = head.removeprefix("data:").partition(";")[0] if head.startswith("data:") else ""
    return named or unknown


def _output(value: Any, where: str) -> Any:
    """A function's output: a text, or content parts, of which the texts count."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise refused("`output` is a text or a list of parts", where)
    texts = [part.get("text") for part in value if isinstance(part, Mapping)]
    if len(texts) != len(value) or not all(isinstance(text, str) for text in texts):
        raise refused("parts of an output are texts", where)
    return "".join(str(text) for text in texts)
