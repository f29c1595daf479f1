"""Server-sent events as bytes: chunks of a response's body in, whole events out. No I/O.

The providers' libraries make a validated object of every event, which costs 25 to 80 us of CPU for each token. The
adapters decode the same bytes themselves, and leave everything else to the library: configuration, authentication,
retries, time-outs, addresses.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from agent_worker.adapters.failures import Failure, agent_error

MAX_PENDING_BYTES: Final = 16 * 1024 * 1024
"""How much of one event is kept before it is whole."""

ServerEvent: TypeAlias = tuple[bytes, bytes]
"""The event's name, empty without one, and its data."""


class EventStreamDecoder:
    """Splits a body into events, however it is cut into chunks. An event without its blank line is not whole."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that this chunk completes. Raises AgentError for an event beyond MAX_PENDING_BYTES."""
        text = self._pending + chunk if self._pending else chunk
        if b"\r" in text:
            text = _with_plain_ends(text)
        *blocks, self._pending = text.split(b"\n\n")
        if len(self._pending) > MAX_PENDING_BYTES:
            raise agent_error(Failure.UNUSABLE)
        return [event for block in blocks if (event := _event(block)) is not None]


def _with_plain_ends(text: bytes) -> bytes:
    """Each line's end as LF. A CR at the very end stays: its LF may follow in the next chunk."""
    last = b"\r" if text.endswith(b"\r") else b""
    body = text[:-1] if last else text
    return body.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + last


def _event(block: bytes) -> ServerEvent | None:
    # What OpenAI and most servers send; then what Anthropic and the Responses API send.
    if block.startswith(b"data: ") and b"\n" not in block:
        return b"", block[6:]
    head, found, data = block.partition(b"\ndata: ")
    if found and head.startswith(b"event: ") and b"\n" not in head and b"\n" not in data:
        return head[7:], data
    return _any_event(block)


def _any_event(block: bytes) -> ServerEvent | None:
    """An event in any form that the format allows: comments, several lines of data, other fields."""
    name, data = b"", None
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data = value if data is None else data + b"\n" + value
        elif field == b"event":
            name = value
    return None if data is None else (name, data)
