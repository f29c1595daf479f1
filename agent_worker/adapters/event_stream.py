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
    """Splits a body into events, however it is cut into chunks. An event without its blank line is not whole.

    Each byte is read once: an event in many small chunks costs no more than in one.
    """

    def __init__(self) -> None:
        # The event that is not whole yet; its lines end with LF.
        self._pending = bytearray()
        # The last chunk ended with CR: the LF that belongs to it may follow.
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that this chunk completes. Raises AgentError for an event beyond MAX_PENDING_BYTES."""
        text = self._with_plain_ends(chunk) if self._after_cr or b"\r" in chunk else chunk
        if self._pending:
            ends = b"\n\n" in text or (self._pending.endswith(b"\n") and text.startswith(b"\n"))
            self._pending += text
            if not ends:
                return self._waiting()
            text = bytes(self._pending)
            self._pending = bytearray()
        blocks = text.split(b"\n\n")
        if rest := blocks.pop():
            self._pending += rest
            self._waiting()
        return [event for block in blocks if (event := _event(block)) is not None]

    def _waiting(self) -> list[ServerEvent]:
        if len(self._pending) > MAX_PENDING_BYTES:
            raise agent_error(Failure.UNUSABLE)
        return []

    def _with_plain_ends(self, chunk: bytes) -> bytes:
        """Each line's end as LF. A CR at the very end waits for the next chunk."""
        text = b"\r" + chunk if self._after_cr else chunk
        self._after_cr = text.endswith(b"\r")
        body = text[:-1] if self._after_cr else text
        return body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


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
