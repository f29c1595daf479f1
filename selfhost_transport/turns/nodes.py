"""A node of the conversation tree: its log of records and the messages they fold to (protocol sections 7.1, 7.2)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from enum import StrEnum

from selfhost_transport.turns import decoder as d
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.chunks import Chunk
from selfhost_transport.turns.codec import Codec
from selfhost_transport.turns.codecs import UI_MESSAGES
from selfhost_transport.turns.fold import MessageState, Projection
from selfhost_transport.turns.record import Record
from selfhost_transport.turns.runs import RunState


class NodeKind(StrEnum):
    """What made the node."""

    INPUT = "input"
    RUN = "run"
    # A client's answer that forks a suspended run; becomes the run that an agent opens for it (section 8.11).
    FORK = "fork"


class Node:
    """One input, run or client fork."""

    def __init__(
        self, kind: NodeKind, key: str, run: RunState | None = None, codec: Codec = UI_MESSAGES
    ) -> None:
        self.kind = kind
        self.key = key
        self.run = run
        # The run hidden by this fork.
        self.supersedes: str | None = None
        # Lowest serial of any message of the node; None while nothing of it is confirmed.
        self.serial: str | None = None
        # Order of unconfirmed sends.
        self.send_order = 0
        self.codec = codec
        self.projection = Projection(codec)
        # Known only by life-cycle messages that do not create a node (section 7.7): not shown yet.
        self.is_shown = kind is not NodeKind.RUN
        self._parent: str | None = None
        self._fork_of: str | None = None
        self._log: list[Record] = []
        self._serials: list[str] = []
        self._optimistic: list[Record] = []
        # The projection still shows unconfirmed records that are gone.
        self._is_stale = False

    @property
    def parent(self) -> str | None:
        """Codec-message-id of the parent, as the agent wrote it, or the input."""
        return self.run.parent or self._parent if self.run else self._parent

    @property
    def fork_of(self) -> str | None:
        """The edited message."""
        return self.run.fork_of if self.run else self._fork_of

    @property
    def regenerates(self) -> str | None:
        """The message this run is another answer for."""
        return self.run.regenerates if self.run else None

    @property
    def order(self) -> tuple[bool, str, int]:
        """Sort key: by serial, unconfirmed ones last in send order (section 7.2)."""
        return self.serial is None, self.serial or "", self.send_order

    @property
    def messages(self) -> dict[str, MessageState]:
        """Folded messages by codec-message-id."""
        return self.projection.messages

    def saw(self, serial: str) -> bool:
        """Take note of a message's serial; whether it moves the node."""
        if self.serial is None or serial < self.serial:
            self.serial = serial
            return True
        return False

    def set_structure(self, headers: h.Headers) -> None:
        """Structure of an input or fork, from the input itself."""
        self._parent = headers.parent
        self._fork_of = headers.get(h.FORK_OF)
        self.supersedes = headers.get(h.SUPERSEDES)

    def add(self, record: Record) -> list[Chunk] | None:
        """Take a record. The chunks it amounts to, or None when the node was folded again."""
        if record.serial is None:
            self._optimistic.append(record)
            return self.projection.add(record)
        at = bisect_right(self._serials, record.serial)
        self._serials.insert(at, record.serial)
        self._log.insert(at, record)
        if at < len(self._log) - 1 or self._optimistic or self._is_stale:
            self.refold()
            return None
        return [] if self._is_dropped(record) else self.projection.add(record)

    def grow(self, record: Record, delta: str, *, closing: bool) -> list[Chunk] | None:
        """A stream of the log has grown. The chunks, or None when the node was folded again."""
        if self._is_dropped(record):
            return []
        chunks = self.projection.grow(record, delta, closing=closing)
        if chunks is None:
            self.refold()
        return chunks

    def refold(self) -> None:
        """Fold the whole log again, in serial order, without superseded attempts; then our own unconfirmed sends."""
        self.projection, self._is_stale = Projection(self.codec), False
        for record in self.records():
            if not self._is_dropped(record):
                self.projection.add(record)

    def records(self) -> Iterator[Record]:
        """All records in order."""
        yield from self._log
        yield from self._optimistic

    def confirm(self, codec_message_id: str, event_id: str | None) -> bool:
        """Drop unconfirmed records that this echo confirms; the caller adds the echo next (section 7.5)."""
        kept = [r for r in self._optimistic if not _is_echo(r, codec_message_id, event_id)]
        confirmed = len(kept) < len(self._optimistic)
        self._optimistic = kept
        self._is_stale |= confirmed
        return confirmed

    def discard(self, event_id: str) -> list[str]:
        """Drop unconfirmed records of a send that failed; the codec-message-ids they were for."""
        dropped = [r for r in self._optimistic if r.headers.event_id == event_id]
        if dropped:
            self._optimistic = [r for r in self._optimistic if r.headers.event_id != event_id]
            self.refold()
        return [r.codec_message_id for r in dropped]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left of the node."""
        return not self._log and not self._optimistic and self.serial is None

    def absorb(self, other: Node) -> None:
        """Take over a fork's log: an agent opened this run for it."""
        for record in other.records():
            self.add(record)
        if other.serial is not None:
            self.saw(other.serial)
        self._parent, self._fork_of, self.supersedes = other._parent, other._fork_of, other.supersedes

    def has_output_of(self, step_id: str | None) -> bool:
        """Whether the log holds output of this step."""
        return step_id is not None and any(r.step_id == step_id for r in self._log)

    def steers(self, trigger: str | None) -> list[str]:
        """User messages of the run other than its trigger, in order (section 8.8)."""
        found = {
            r.codec_message_id: None
            for r in self.records()
            if isinstance(r.input, d.UserPart) and r.codec_message_id != trigger
        }
        return list(found)

    def answered_steers(self) -> set[str]:
        """Steers that some output of the run is stamped with."""
        found: set[str] = set()
        for record in self._log:
            text = record.headers.get(h.STEER_IDS)
            if text is not None and not self._is_dropped(record):
                found.update(h.read_ids(text))
        return found

    def _is_dropped(self, record: Record) -> bool:
        if self.run is None or record.input is not None:
            return False
        return self.run.is_superseded(record.step_id, record.headers.get(h.STEP_START_SERIAL))


def _is_echo(record: Record, codec_message_id: str, event_id: str | None) -> bool:
    same_event = event_id is None or record.headers.event_id in (None, event_id)
    return record.codec_message_id == codec_message_id and same_event
