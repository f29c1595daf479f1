"""Checks answers of any text while they stream: one order, nothing twice, final cancels, one terminal. No I/O.

What the text should have been is not known. So everything that came is kept, and compared with the history in the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

from selfhost_transport.loadtest.incoming import IncomingMessage
from selfhost_transport.loadtest.recorder import ViolationKind
from selfhost_transport.loadtest.verify import AskedTurn, SessionCheck, TextView, TurnView
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.actions import MessageAction

_APPEND = MessageAction.APPEND.value
_CREATE = MessageAction.CREATE.value
SUSPENDED = "suspended"
"""The outcome of a turn that waits for people."""

Difference: TypeAlias = tuple[ViolationKind, str, str]
"""A kind, the turn, and the detail."""
Row: TypeAlias = Mapping[str, Any]
"""A message of the history, as JSON."""


@dataclass(slots=True, eq=False)
class AnyTextView(TextView):
    """A message that grows, with what it has said."""

    said: list[str] = field(default_factory=list)


@dataclass(slots=True)
class AnyTextCheck(SessionCheck):
    """Everything one viewer receives of one session, kept until it is compared."""

    # By turn: what a failed one said of it.
    errors: dict[str, str] = field(default_factory=dict)
    # By serial: the turn of each message of an answer; and by turn: how it ended.
    _outputs: dict[str, str] = field(default_factory=dict)
    _ended: dict[str, str] = field(default_factory=dict)
    _expected: set[str] = field(default_factory=set)

    def expect(self, turn: AskedTurn) -> None:
        """A turn is about to be sent."""
        SessionCheck.expect(self, turn)
        self._expected.add(turn.run_id)

    def forget(self, turn: AskedTurn) -> None:
        """The turn is over everywhere. Its text is kept for the comparison."""
        self._turns.pop(turn.run_id, None)

    def differences(self, rows: Sequence[Row]) -> Iterator[Difference]:
        """What this viewer saw otherwise than the history has it."""
        stored = {row.get("serial", ""): row for row in rows}
        for serial, run_id in self._outputs.items():
            row = stored.get(serial)
            if row is None:
                yield ViolationKind.WRONG_TEXT, run_id, f"{serial} was delivered, and is not in the history"
            elif isinstance(text := self._texts.get(serial), AnyTextView):
                yield from _compared(run_id, serial, "".join(text.said), row.get("data") or "")
        for serial, row in stored.items():
            transport = headers_of(row, "transport")
            run_id = transport.get(h.RUN_ID, "")
            if run_id not in self._ended or run_id not in self._expected:
                continue
            if row.get("name") == h.AI_OUTPUT and serial not in self._outputs:
                yield ViolationKind.LOST, run_id, f"{serial} is in the history, and was not delivered"
            reason = transport.get(h.RUN_REASON)
            if row.get("name") == h.AI_RUN_END and reason != self._ended[run_id]:
                yield (
                    ViolationKind.WRONG_TERMINAL,
                    run_id,
                    f"delivered {self._ended[run_id]}, stored {reason}",
                )

    def _content(self, text: TextView, message: IncomingMessage) -> None:
        assert isinstance(text, AnyTextView)
        chunk, version = message.data or "", message.version.serial or message.serial
        appended = message.action == _APPEND
        if appended and version <= text.version:
            self._broken(text, ViolationKind.DUPLICATE, f"version {version} came again")
            return
        if not appended:
            known = "".join(text.said)
            if not chunk.startswith(known):
                self._broken(text, ViolationKind.WRONG_TEXT, f"an aggregate of {len(chunk)} characters")
                return
            chunk = chunk[len(known) :]
        text.version = version
        if chunk:
            self._more(text, chunk, version, appended=appended)

    def _more(self, text: AnyTextView, chunk: str, version: str, *, appended: bool) -> None:
        view = text.view
        if appended:
            # The version of an aggregate may be that of the closing entry: it does not date the text in it.
            view.content = version
            if view.turn.cancel_position or view.terminal:
                self._check_end(view, version)
        text.said.append(chunk)
        words = len(chunk.split()) or 1
        text.tokens += words
        view.tokens += words
        self.observer.tokens_arrived(view, words, view.tokens, version)

    def _open(self, view: TurnView, message: IncomingMessage) -> None:
        text = AnyTextView(view)
        view.text = text
        self._texts[message.serial] = text
        if message.data:
            self._content(text, message)
        text.version = max(text.version, message.version.serial or message.serial)

    def _other(self, message: IncomingMessage) -> None:
        headers = self.reader.headers(message)
        run_id = headers.get(h.RUN_ID, "")
        view = self._turns.get(run_id)
        if message.name == h.AI_OUTPUT and run_id in self._expected:
            self._outputs[message.serial] = run_id
        elif message.name == h.AI_RUN_END and headers.get(h.RUN_REASON) == h.ERROR:
            self.errors[run_id] = (
                f"{headers.get(h.ERROR_CODE, '')} {headers.get(h.ERROR_MESSAGE, '')}".strip()
            )
        elif message.name == h.AI_RUN_SUSPEND and message.action == _CREATE and view is not None:
            self._terminal(view, SUSPENDED)
            return
        SessionCheck._other(self, message)

    def _terminal(self, view: TurnView, reason: str) -> None:
        turn = view.turn
        if view.terminal:
            detail = f"{reason} after {view.terminal}"
            self.observer.broken(ViolationKind.SECOND_TERMINAL, turn.run_id, detail)
            return
        view.terminal = self._ended[turn.run_id] = reason
        if reason not in turn.outcomes:
            expected = " or ".join(sorted(turn.outcomes))
            self.observer.broken(ViolationKind.WRONG_TERMINAL, turn.run_id, f"{reason} instead of {expected}")
        self.observer.turn_ended(turn, reason)


def _compared(run_id: str, serial: str, live: str, stored: str) -> Iterator[Difference]:
    if live == stored:
        return
    at = next((index for index, pair in enumerate(zip(live, stored, strict=False)) if pair[0] != pair[1]), -1)
    if at >= 0:
        yield ViolationKind.WRONG_TEXT, run_id, f"{serial} differs from the history at character {at}"
    elif len(live) < len(stored):
        yield ViolationKind.LOST, run_id, f"{serial}: {len(live)} of {len(stored)} characters were delivered"
    else:
        yield (
            ViolationKind.WRONG_TEXT,
            run_id,
            f"{serial}: the history has {len(stored)} of {len(live)} characters",
        )


def headers_of(row: Row, tier: str) -> dict[str, str]:
    """The headers of a stored message in one tier; empty where it has none."""
    extras = row.get("extras")
    ai = extras.get("ai") if isinstance(extras, dict) else None
    found = ai.get(tier) if isinstance(ai, dict) else None
    return found if isinstance(found, dict) else {}


def usage_by_turn(rows: Sequence[Row]) -> dict[str, tuple[int, int]]:
    """Input and output tokens of the turns whose agents report them, from the messages' metadata."""
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        metadata = headers_of(row, "codec").get("messageMetadata")
        if metadata is None:
            continue
        try:
            usage = msgspec.json.decode(metadata, type=_Metadata).usage
        except msgspec.MsgspecError:
            continue
        if usage is not None:
            found[headers_of(row, "transport").get(h.RUN_ID, "")] = usage.input_tokens, usage.output_tokens
    return found


class _Usage(msgspec.Struct, rename="camel"):
    input_tokens: int = 0
    output_tokens: int = 0


class _Metadata(msgspec.Struct):
    usage: _Usage | None = None
