"""What a user's message may be given as."""

from __future__ import annotations

from typing import Any

import pytest

from selfhost_transport.client.session.content import read_content
from selfhost_transport.client.session.requests import ids_for, user_message
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns.ui import (
    ConversationMessage,
    DataPart,
    FilePart,
    ReasoningPart,
    TextPart,
    UIMessage,
)

HELLO = (TextPart("hello"),)
PICTURE = FilePart("https://example.com/a.png", "image/png")
PICTURE_JSON = {"type": "file", "mediaType": "image/png", "url": "https://example.com/a.png"}
MESSAGE = UIMessage("m-1", "user", (*HELLO, PICTURE))
MESSAGE_JSON = {"id": "m-1", "role": "user", "parts": [{"type": "text", "text": "hello"}, PICTURE_JSON]}


@pytest.mark.parametrize(
    ("content", "parts", "message_id"),
    [
        ("hello", HELLO, None),
        (["hello"], HELLO, None),
        (TextPart("hello"), HELLO, None),
        ([TextPart("hello"), PICTURE], (*HELLO, PICTURE), None),
        (("hello", PICTURE_JSON), (*HELLO, PICTURE), None),
        ({"type": "text", "text": "hello"}, HELLO, None),
        ({"type": "data-place", "data": {"x": 1}}, (DataPart("data-place", {"x": 1}),), None),
        (MESSAGE, (*HELLO, PICTURE), "m-1"),
        (ConversationMessage("c-1", MESSAGE), (*HELLO, PICTURE), "m-1"),
        (MESSAGE_JSON, (*HELLO, PICTURE), "m-1"),
        ([MESSAGE_JSON], (*HELLO, PICTURE), "m-1"),
        ([MESSAGE_JSON, {"parts": ["there"]}], (*HELLO, PICTURE, TextPart("there")), "m-1"),
        ({"role": "user", "content": "hello"}, HELLO, None),
        ({"id": "m-2", "role": "user", "parts": ["hello"]}, HELLO, "m-2"),
        ([], (), None),
    ],
)
def test_every_form_of_a_users_message_is_read(content: Any, parts: Any, message_id: str | None) -> None:
    found = read_content(content)
    assert (found.parts, found.message_id) == (parts, message_id)


@pytest.mark.parametrize(
    "content",
    [
        None,
        5,
        b"bytes",
        {"text": "hello"},
        {},
        {"type": "reasoning", "text": "hm"},
        {"type": "text", "text": "hello", "parts": "none"} | {"type": "tool-x", "toolCallId": "1"},
        {"id": "m", "role": "assistant", "parts": [{"type": "text", "text": "hello"}]},
        {"id": "m", "role": "user", "parts": [{"type": "step-start"}]},
        {"id": "m", "role": "user", "parts": [5]},
        UIMessage("m", "assistant", HELLO),
        UIMessage("m", "user", (ReasoningPart("hm"),)),
        ["hello", None],
        TextPart(5),  # type: ignore[arg-type]
        FilePart("https://example.com", None),  # type: ignore[arg-type]
        DataPart("place", {}),
        {"hello"},
        pytest.param(iter(["hello"]), id="iterator"),
    ],
    ids=repr,
)
def test_anything_else_is_refused_with_what_is_accepted(content: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"a message is a text, a TextPart, .*; not "):
        read_content(content)


def test_the_applications_id_of_a_message_goes_with_it() -> None:
    messages = user_message(MESSAGE_JSON, ids_for("c-1"), client_id="u", parent=None)
    assert [message.extras["ai"]["codec"]["messageId"] for message in messages if message.extras] == [
        "m-1"
    ] * 2
    assert [message.id for message in messages] == ["c-1:0", "c-1:1"]
