"""Checks every turn while it streams: numbered tokens, one order, final cancels, one terminal. No I/O.

One `SessionCheck` per viewer; the `AskedTurn` is shared by all viewers of a session, because what was asked for,
and which cancel was acknowledged, is known to the sender only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from selfhost_transport.loadtest.incoming import FormatReader, Incoming, IncomingMessage
from selfhost_transport.loadtest.recorder import ViolationKind
from selfhost_transport.loadtest.tokens import NumberedText, first_number
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.actions import MessageAction

# A serial begins with its position: 14 digits, a dash, 3 digits (wire.serial); positions compare as text.
_POSITION = slice(0, 18)
_MS = 14
_APPEND = MessageAction.APPEND.value
_CREATE = MessageAction.CREATE.value
_KEPT_SERIALS = 64

TEXT = NumberedText()


def position_ms(serial: str) -> int:
    """Redis' time of a position or item, ms since the epoch; 0 for a serial of another service."""
    try:
        return int(serial[:_MS])
    except ValueError:
        return 0


@dataclass(slots=True, eq=False)
class AskedTurn:
    """What was asked for, and what every viewer has to see. Times in seconds since the epoch."""

    run_id: str
    tokens: int
    # Tokens per second of the model; 0 = as fast as possible.
    rate: float
    scheduled: float
    outcomes: frozenset[str] = frozenset({h.COMPLETE})
    # Seconds between two tokens of the model's schedule.
    spacing: float = field(init=False)
    # Viewers that have not seen the terminal.
    waiting: int = 0
    # When token 0 was due, by the earliest evidence; None before the first chunk.
    due: float | None = None
    sent_position: str = ""
    # Where its work began.
    start_position: str = ""
    cancel_called: float | None = None
    # Cancels without an answer: until they have one, what was seen of the turn is still needed.
    cancelling: int = 0
    # After this no content may come; '' until the cancel is acknowledged.
    cancel_position: str = ""
    outcome: str = ""
    # Turns that its send cancelled in the same step.
    interrupted: tuple[str, ...] = ()
    # At the sender: when its content came, how many words, and whether that was in the measured window.
    first_at: float = 0.0
    last_at: float = 0.0
    words: int = 0
    measured: bool = False

    @property
    def any_text(self) -> bool:
        """Whether the answer may say anything."""
        return self.tokens < 0

    def __post_init__(self) -> None:
        self.spacing = 1 / self.rate if self.rate else 0.0


class Observer(Protocol):
    """Receives what a viewer sees."""

    def tokens_arrived(self, view: TurnView, count: int, total: int, serial: str) -> None:
        """`count` more tokens, `total` until now; `serial` is the version that brought them."""

    def turn_started(self, turn: AskedTurn, serial: str) -> None:
        """The start of a turn's work, at `serial`."""

    def turn_ended(self, turn: AskedTurn, reason: str) -> None:
        """A terminal, the first this viewer sees of the turn."""

    def broken(self, kind: ViolationKind, turn: str, detail: str) -> None:
        """A promise was broken."""


@dataclass(slots=True, eq=False)
class TurnView:
    """A turn as one viewer has seen it."""

    turn: AskedTurn
    tokens: int = 0
    terminal: str = ""
    # Position of the newest content.
    content: str = ""
    arrived: float = 0.0
    text: TextView | None = None


@dataclass(slots=True, eq=False)
class TextView:
    """One message of numbered tokens: characters and tokens seen, and the version they came with."""

    view: TurnView
    offset: int = 0
    tokens: int = 0
    version: str = ""


@dataclass(slots=True)
class SessionCheck:
    """Everything one viewer receives of one session, in order."""

    reader: FormatReader
    observer: Observer
    _last: str = ""
    _texts: dict[str, TextView] = field(default_factory=dict)
    _turns: dict[str, TurnView] = field(default_factory=dict)

    @property
    def last_serial(self) -> str:
        """The channelSerial to resume from; '' before anything came."""
        return self._last

    def expect(self, turn: AskedTurn) -> None:
        """A turn is about to be sent."""
        self._turns[turn.run_id] = TurnView(turn)
        turn.waiting += 1

    def view(self, turn: AskedTurn) -> TurnView | None:
        """What this viewer has seen of a turn that is not forgotten."""
        return self._turns.get(turn.run_id)

    def attached(self, serial: str | None, *, resumed: bool) -> None:
        """Where delivery starts; without continuity the order starts anew."""
        if serial and (not resumed or not self._last):
            self._last = serial

    def deliver(self, frame: Incoming) -> None:
        """One MESSAGE frame."""
        serial = frame.channel_serial
        if serial is None or serial < self._last:
            self.observer.broken(
                ViolationKind.REORDERED, "", f"channelSerial {serial} came after {self._last}"
            )
        else:
            self._last = serial
        for message in frame.messages:
            text = self._texts.get(message.serial)
            if text is not None:
                self._content(text, message)
            elif message.extras:
                self._other(message)

    def cancelled(self, turn: AskedTurn, position: str) -> None:
        """A cancel that matched the turn was acknowledged: look back for content after its position (P2)."""
        view = self._turns.get(turn.run_id)
        if view is not None and view.content[_POSITION] > position[_POSITION]:
            self._after_cancel(view, view.content)

    def forget(self, turn: AskedTurn) -> None:
        """The turn is over everywhere. Its last messages are remembered a while, to notice what follows."""
        self._turns.pop(turn.run_id, None)
        while len(self._texts) > _KEPT_SERIALS:
            oldest = next(iter(self._texts))
            if self._texts[oldest].view.turn.run_id in self._turns:
                break
            del self._texts[oldest]

    def give_up(self, turn: AskedTurn) -> None:
        """No terminal came in time."""
        view = self._turns.get(turn.run_id)
        if view is not None and not view.terminal:
            self.observer.broken(
                ViolationKind.MISSING_TERMINAL, turn.run_id, f"no terminal after {view.tokens} tokens"
            )

    def _content(self, text: TextView, message: IncomingMessage) -> None:
        chunk, version = message.data, message.version.serial or message.serial
        appended = message.action == _APPEND
        if not appended:
            chunk = self._beyond(text, chunk or "")
        elif version <= text.version:
            self._broken(text, ViolationKind.DUPLICATE, f"version {version} came again")
            return
        text.version = version
        if not chunk:
            return
        view, offset = text.view, text.offset
        if not TEXT.text.startswith(chunk, offset) and not TEXT.matches(chunk, offset):
            self._mismatch(text, chunk)
            offset = text.offset
        if appended:
            # The version of an aggregate may be that of the closing entry: it does not date the text in it.
            view.content = version
            if view.turn.cancel_position or view.terminal:
                self._check_end(view, version)
        count = chunk.count(" ")
        text.offset = offset + len(chunk)
        text.tokens += count
        if text is view.text:
            view.tokens = text.tokens
        self.observer.tokens_arrived(view, count, text.tokens, version)

    def _check_end(self, view: TurnView, version: str) -> None:
        """Content has come at a position: was it still allowed?"""
        turn = view.turn
        if turn.cancel_position and version[_POSITION] > turn.cancel_position[_POSITION]:
            self._after_cancel(view, version)
        elif view.terminal:
            self.observer.broken(
                ViolationKind.AFTER_TERMINAL, turn.run_id, f"content {version} after the terminal"
            )

    def _beyond(self, text: TextView, whole: str) -> str:
        """What an aggregate adds to what was seen (section 7.4)."""
        if not TEXT.matches(whole, 0) or len(whole) < text.offset:
            self._broken(text, ViolationKind.WRONG_TEXT, f"an aggregate of {len(whole)} characters")
            return ""
        return whole[text.offset :]

    def _mismatch(self, text: TextView, chunk: str) -> None:
        number = first_number(chunk)
        if number is None or number == text.tokens:
            kind = ViolationKind.WRONG_TEXT
        else:
            kind = ViolationKind.LOST if number > text.tokens else ViolationKind.DUPLICATE
        self._broken(text, kind, f"token {text.tokens} was due, {chunk[:24]!r} came")
        # Continue from there, so that one hole is one violation.
        if number is not None:
            text.tokens, text.offset = number, TEXT.length(number)

    def _other(self, message: IncomingMessage) -> None:
        headers = self.reader.headers(message)
        view = self._turns.get(headers.get(h.RUN_ID, ""))
        if view is None:
            return
        if message.name == h.AI_OUTPUT and headers.get(h.STREAM) == "true":
            self._open(view, message)
        elif message.name == h.AI_RUN_START:
            self.observer.turn_started(view.turn, message.serial)
        elif message.name == h.AI_RUN_END and message.action == _CREATE:
            self._terminal(view, headers.get(h.RUN_REASON, h.COMPLETE))

    def _open(self, view: TurnView, message: IncomingMessage) -> None:
        """A message of tokens. A second one in a turn is another attempt, which begins at 0 (section 8.3)."""
        text = TextView(view, version="")
        view.text, view.tokens = text, 0
        self._texts[message.serial] = text
        if message.data:
            self._content(text, message)
        text.version = max(text.version, message.version.serial or message.serial)

    def _terminal(self, view: TurnView, reason: str) -> None:
        turn = view.turn
        if view.terminal:
            self.observer.broken(
                ViolationKind.SECOND_TERMINAL, turn.run_id, f"{reason} after {view.terminal}"
            )
            return
        view.terminal = reason
        if reason not in turn.outcomes:
            expected = " or ".join(sorted(turn.outcomes))
            self.observer.broken(ViolationKind.WRONG_TERMINAL, turn.run_id, f"{reason} instead of {expected}")
        if reason == h.COMPLETE and view.tokens != turn.tokens:
            self.observer.broken(
                ViolationKind.LOST, turn.run_id, f"complete with {view.tokens} of {turn.tokens} tokens"
            )
        self.observer.turn_ended(turn, reason)

    def _after_cancel(self, view: TurnView, serial: str) -> None:
        self.observer.broken(
            ViolationKind.AFTER_CANCEL,
            view.turn.run_id,
            f"content at {serial}, cancel at {view.turn.cancel_position}",
        )

    def _broken(self, text: TextView, kind: ViolationKind, detail: str) -> None:
        self.observer.broken(kind, text.view.turn.run_id, detail)
