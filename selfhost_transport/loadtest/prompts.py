"""Files with what people say: one conversation a line, as text or as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from selfhost_transport.errors import InvalidArgument

Conversation: TypeAlias = tuple[str, ...]

DEFAULT: Final[tuple[Conversation, ...]] = (
    ("Explain in a few sentences how a bicycle stays upright.", "And why is it harder when it goes slowly?"),
    ("Suggest three titles for a talk about streaming.",),
    ("What should I pay attention to when I buy a used car?", "Make a short checklist of it.", "Thank you!"),
)
"""What is said with answers of any text and no file."""


def read_prompts(path: Path) -> tuple[Conversation, ...]:
    """The conversations of a file. Empty lines, and lines of text that begin with `#`, are left out.

    As text, the messages of a conversation are separated by tabs. As JSON (`.jsonl`, `.ndjson`), a line is a string, a list of
    strings, or an object with `prompt`, `turns` or `messages`; of messages, those with role `user`. Raises InvalidArgument.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    read = _from_json if path.suffix in (".jsonl", ".ndjson") else _from_text
    found = tuple(_conversations(path, lines, read))
    if not found:
        raise InvalidArgument(f"{path} has no conversation in it")
    return found


def _conversations(path: Path, lines: list[str], read: Any) -> Iterator[Conversation]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        said = read(line)
        if said is None:
            raise InvalidArgument(
                f"{path}, line {number}: a line of JSON is a string, a list of strings, or an object with `prompt`, `turns` or "
                "`messages`"
            )
        if said:
            yield said


def _from_text(line: str) -> Conversation:
    if line.lstrip().startswith("#"):
        return ()
    return tuple(text.strip() for text in line.split("\t") if text.strip())


def _from_json(line: str) -> Conversation | None:
    try:
        value = msgspec.json.decode(line)
    except msgspec.MsgspecError:
        return None
    if isinstance(value, dict):
        value = value.get("prompt", value.get("turns", value.get("messages")))
    items = value if isinstance(value, list) else [value]
    texts = [
        _text(item) for item in items if not (isinstance(item, dict) and item.get("role", "user") != "user")
    ]
    return tuple(text for text in texts if text) if texts and all(texts) else None


def _text(item: Any) -> str:
    """The text of a message; '' for what has none."""
    if isinstance(item, dict):
        item = item.get("content", item.get("text"))
    if isinstance(item, list):
        item = "\n".join(
            part["text"] for part in item if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return item.strip() if isinstance(item, str) else ""
