"""What plain `useChat` pages send and get over HTTP, without any SDK of a session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag
from pydantic.alias_generators import to_camel

from gateway.http_api.models import WakeIn
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns.inputs import is_blank
from selfhost_transport.turns.ui import DataPart, FilePart, Part, TextPart, UIMessage


class ChatIn(BaseModel):
    """A request of `DefaultChatTransport`. Of `messages` only the last one counts: the session is the truth.

    Pages that send the last message alone give it as `message`. Further fields are the application's.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    id: str | None = None
    """The chat: the session's name, where the path has none."""
    messages: list[dict[str, Any]] | None = None
    message: dict[str, Any] | None = None
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: str | None = None
    """The message that is edited, or answered again."""

    @property
    def last(self) -> UIMessage:
        """The newest message the page holds. Raises InvalidArgument without one, and for one of the system."""
        found = self.message or (self.messages[-1] if self.messages else None)
        if found is None:
            raise InvalidArgument("send the conversation as `messages`, or its last message as `message`")
        message = UIMessage.from_json(found)
        if message.role not in ("user", "assistant"):
            raise InvalidArgument(f"the last message is of the {message.role}; it has to be the user's")
        if not message.id:
            raise InvalidArgument("the last message has no `id`")
        return message

    @property
    def before_last(self) -> str | None:
        """The id of the message before it, where the page sent that."""
        if self.messages is None or len(self.messages) < 2:
            return None
        found = self.messages[-2].get("id")
        return found if isinstance(found, str) else None


def _kind(body: Any) -> str:
    is_wake = isinstance(body, Mapping) and {"inputEventId", "sessionName"} <= body.keys()
    return "WakeIn" if is_wake else "ChatIn"


WakeOrChatIn = Annotated[
    Annotated[WakeIn, Tag("WakeIn")] | Annotated[ChatIn, Tag("ChatIn")], Discriminator(_kind)
]
"""One of the two; a refusal speaks of the one that was meant."""


class ChatStopIn(BaseModel):
    """What to stop: one turn, the turn of one answer, or, with neither, all of the caller's own.

    `sent_message_id`: the newest message of the page. Its turn is stopped too, also if it arrives only after the stop.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    turn_id: str | None = None
    message_id: str | None = None
    sent_message_id: str | None = Field(default=None, min_length=1, max_length=512)


class StopOut(BaseModel):
    """What a stop did: nothing of the matched turns has a later position."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    matched: list[str] = Field(default_factory=list)
    already_ended: list[str] = Field(default_factory=list)
    position: str | None = None


def user_parts(message: UIMessage) -> list[TextPart | FilePart | DataPart]:
    """What a user's message says. Raises InvalidArgument for a part that a user cannot send."""
    parts = [_user_part(part, number) for number, part in enumerate(message.parts)]
    if not parts:
        raise InvalidArgument("the message has no parts; send at least one of the type `text`")
    if is_blank(parts):
        raise InvalidArgument("the message is empty; write something")
    return parts


def _user_part(part: Part, number: int) -> TextPart | FilePart | DataPart:
    if isinstance(part, TextPart | FilePart | DataPart):
        return part
    raise InvalidArgument(f"parts[{number}]: a user's message consists of text, file and data- parts")
