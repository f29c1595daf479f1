"""One channel message as a reader holds it: its assembled state, independent of its deliveries (section 4)."""

from __future__ import annotations

from dataclasses import dataclass, field

from selfhost_transport.turns import headers as h
from selfhost_transport.turns.chunks import Chunk
from selfhost_transport.turns.decoder import InputEvent
from selfhost_transport.turns.headers import Headers


class TextBuffer:
    """Text that grows at its end: an append costs its own length, reading joins once."""

    __slots__ = ("_chunks",)

    def __init__(self, text: str = "") -> None:
        self._chunks = [text] if text else []

    def append(self, text: str) -> None:
        """Add text at the end."""
        self._chunks.append(text)

    def __str__(self) -> str:
        if len(self._chunks) > 1:
            self._chunks = ["".join(self._chunks)]
        return self._chunks[0] if self._chunks else ""


@dataclass(slots=True, eq=False)
class Record:
    """A message in a node's log. `serial` is None while it is only our own, unconfirmed send."""

    serial: str | None
    version: str
    headers: Headers
    client_id: str | None
    codec_message_id: str
    # Exactly one of the three is set, by what the message is.
    stream: TextBuffer | None = None
    chunks: list[Chunk] = field(default_factory=list)
    input: InputEvent | None = None
    status: str | None = None
    # Its message was deleted: what it said is gone, its place in the conversation stays.
    deleted: bool = False

    @property
    def step_id(self) -> str | None:
        """The step it is output of."""
        return self.headers.get(h.STEP_ID)

    def extend(self, delta: str) -> None:
        """Add to the text of a stream."""
        if self.stream is not None:
            self.stream.append(delta)

    @property
    def is_closed(self) -> bool:
        """Whether a stream has its final status."""
        return self.status in (h.COMPLETE, h.CANCELLED)
