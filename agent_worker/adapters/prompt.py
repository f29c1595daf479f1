"""The conversation in the form that all providers share: who spoke, what was called, what came of it.

Providers insist that every tool call is followed by its result, and most have no word for an answer that was cut
off; both are decided here, once (CAN-23, INT-25).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from selfhost_transport.turns import ui
from selfhost_transport.turns.headers import ROLE_USER
from selfhost_transport.turns.prompt import CLOSED_CALL, PromptMessage, close_tool_calls
from selfhost_transport.turns.values import Absent, Json, as_text

PartT = TypeVar("PartT")

INTERRUPTED: Final = "[Your previous answer was interrupted here, before it was complete.]"
"""Said on the user's side, after the partial answer: what a model reads as its own words it tends to repeat."""

BEGIN: Final = "[The conversation begins with a message of the assistant.]"
"""Stands in for the user's message where a provider wants one first."""

_DENIED: Final = "The user did not allow this tool call."


@dataclass(slots=True, frozen=True)
class Attachment:
    """A file of the user's, by its URL, which may be a `data:` URL."""

    url: str
    media_type: str

    @property
    def is_image(self) -> bool:
        """Whether models may be able to see it."""
        return self.media_type.startswith("image/")

    @property
    def is_pdf(self) -> bool:
        """Whether models that read documents may be able to read it."""
        return self.media_type == "application/pdf"

    @property
    def base64(self) -> str | None:
        """The content, where a `data:` URL holds it as base64."""
        head, comma, data = self.url.partition(",")
        return data if comma and head.startswith("data:") and head.endswith(";base64") else None

    @property
    def mention(self) -> str:
        """Words for models that cannot be given it."""
        url = self.url if not self.url.startswith("data:") else "inline"
        return f"[attached file: {url} ({self.media_type or 'unknown type'})]"


@dataclass(slots=True, frozen=True)
class Call:
    """A tool call with its result; every call has one."""

    id: str
    name: str
    input: dict[str, Json]
    result: str
    failed: bool = False


@dataclass(slots=True, frozen=True)
class User:
    """What the user's side said: text and files in order. Never empty."""

    content: tuple[str | Attachment, ...]

    def written(self, part: Callable[[str | Attachment], PartT]) -> str | list[PartT]:
        """One text where it is nothing else, since not every server takes a list; else its parts, each by `part`."""
        if all(isinstance(item, str) for item in self.content):
            return "\n\n".join(str(item) for item in self.content)
        return [part(item) for item in self.content]


@dataclass(slots=True, frozen=True)
class Assistant:
    """One model call: its text, then its tool calls. Never both empty."""

    text: str
    calls: tuple[Call, ...] = ()


Turn: TypeAlias = User | Assistant


def conversation(prompt: Iterable[PromptMessage], *, interrupted: str = INTERRUPTED) -> list[Turn]:
    """What was said, oldest first; messages of the user that follow one another are one.

    Reasoning, sources, application data and tools that the provider ran itself are left out. `interrupted` is
    what shows the model that an answer was cut off.
    """
    found: list[Turn] = []
    for entry in prompt:
        if entry.role == ROLE_USER:
            _add_user(found, _user_content(entry.message))
            continue
        found += _steps(close_tool_calls(entry.message))
        if entry.interrupted:
            _add_user(found, [interrupted])
    return found


def chat_part(item: str | Attachment) -> dict[str, Any]:
    """A part of what the user said in the form of OpenAI's Chat Completions, which LangChain takes too."""
    if isinstance(item, Attachment) and item.is_image:
        return {"type": "image_url", "image_url": {"url": item.url}}
    return {"type": "text", "text": item if isinstance(item, str) else item.mention}


def _add_user(found: list[Turn], content: Sequence[str | Attachment]) -> None:
    if not content:
        return
    last = found[-1] if found else None
    if isinstance(last, User):
        found[-1] = User((*last.content, *content))
    else:
        found.append(User(tuple(content)))


def _user_content(message: ui.UIMessage) -> list[str | Attachment]:
    content: list[str | Attachment] = []
    for part in message.parts:
        if isinstance(part, ui.TextPart) and part.text.strip():
            content.append(part.text)
        elif isinstance(part, ui.FilePart):
            content.append(Attachment(part.url, part.media_type))
    return content


def _steps(message: ui.UIMessage) -> list[Assistant]:
    """One entry per model call: a new one begins at a step's start, and with text after tool calls."""
    steps: list[Assistant] = []
    texts: list[str] = []
    calls: list[Call] = []

    def close() -> None:
        text = "".join(texts)
        if text.strip() or calls:
            steps.append(Assistant(text if text.strip() else "", tuple(calls)))
        texts.clear()
        calls.clear()

    for part in message.parts:
        if isinstance(part, ui.StepStartPart) or (isinstance(part, ui.TextPart) and calls):
            close()
        if isinstance(part, ui.TextPart):
            texts.append(part.text)
        elif isinstance(part, ui.ToolPart) and not part.provider_executed:
            calls.append(_call(part))
    close()
    return steps


def _call(part: ui.ToolPart) -> Call:
    result, failed = _result(part)
    return Call(part.tool_call_id, part.tool_name, _arguments(part.input), result, failed)


def _arguments(value: Json | Absent) -> dict[str, Json]:
    """Providers want an object; what a model cut short is not one."""
    if isinstance(value, dict):
        return value
    return {} if isinstance(value, Absent) or value is None else {"value": value}


def _result(part: ui.ToolPart) -> tuple[str, bool]:
    match part.state:
        case ui.OUTPUT_AVAILABLE:
            return as_text(part.output), False
        case ui.OUTPUT_DENIED:
            reason = part.approval.reason if part.approval else None
            return part.error_text or (f"{_DENIED} {reason}" if reason else _DENIED), True
        case _:
            return part.error_text or CLOSED_CALL, True
