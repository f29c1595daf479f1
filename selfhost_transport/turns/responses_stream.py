"""A response as the events of OpenAI's Responses, numbered by what the log says and nothing else.

Every event that is not a delta has a number of its own, and so has every character of a text: a delta's number is that
of its last character. So the same number means the same place for every reader, on every gateway, however the text was
cut into deltas. Items are sent one after the other, in the order in which they began.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

from selfhost_transport.turns.responses_object import ItemJson, item_id, item_json
from selfhost_transport.turns.responses_units import ResponseKind, ResponseUnit, ResponseUnits
from selfhost_transport.turns.run_spans import RunSpan

EventJson: TypeAlias = dict[str, Any]

_DISCRETE: Final = (ResponseKind.RESULT, ResponseKind.APPROVAL)
_DELTA: Final = {
    ResponseKind.TEXT: "response.output_text.delta",
    ResponseKind.REFUSAL: "response.refusal.delta",
    ResponseKind.REASONING: "response.reasoning_summary_text.delta",
    ResponseKind.CALL: "response.function_call_arguments.delta",
}
_TERMINAL: Final = {"completed": "response.completed", "failed": "response.failed"}


class ResponseStream:
    """What one reader was sent of one response. `after`: the number of the last event that it has."""

    def __init__(self, base: str, after: int = -1) -> None:
        # What the items' ids are made of.
        self._base = base
        self._after = after
        self._units = ResponseUnits(None, RunSpan())
        # The number of the next event, the item that it is of, whether that was begun, and what of its text was sent.
        self._next = 0
        self._index = 0
        self._begun = False
        self._sent_text = ""

    @property
    def number(self) -> int:
        """The number of the last event."""
        return self._next - 1

    @property
    def state(self) -> tuple[int, int, bool, str, int]:
        """Where the reader is. Two with equal states go on alike."""
        ahead = self._after if self._after >= self._next else -1
        return self._next, self._index, self._begun, self._sent_text, ahead

    def begin(self, response: ItemJson) -> Iterator[EventJson]:
        """The first event. `response`: as it was before anything was said."""
        yield from self._event("response.created", response=response)

    def start(self, response: ItemJson) -> Iterator[EventJson]:
        """The turn has begun; nothing if that was sent."""
        if self._next == 1:
            yield from self._event("response.in_progress", response={**response, "status": "in_progress"})

    def advance(self, units: ResponseUnits | None = None, *, each: bool = False) -> Iterator[EventJson]:
        """What is new; `units` where more than texts has changed. Has to be read to its end.

        `each`: cut texts between all characters, for a reader that may have any part of them and does not say which.
        """
        if units is not None:
            self._units = units
        yield from self._advance(each=each, final=False)

    def finish(self, units: ResponseUnits, response: ItemJson, *, each: bool = False) -> Iterator[EventJson]:
        """The rest: what is open is closed, and the last event has the whole response."""
        self._units = units
        yield from self._advance(each=each, final=True)
        yield from self._event(_TERMINAL.get(response["status"], "response.incomplete"), response=response)

    def _advance(self, *, each: bool, final: bool) -> Iterator[EventJson]:
        units = self._units.all
        while self._index < len(units):
            unit = units[self._index]
            if not self._begun:
                self._begun = True
                yield from self._open(unit)
            if unit.kind not in _DISCRETE:
                yield from self._grow(unit, each=each)
            if not unit.closed and not final:
                return
            yield from self._close(unit)
            self._index, self._begun, self._sent_text = self._index + 1, False, ""

    def _grow(self, unit: ResponseUnit, *, each: bool) -> Iterator[EventJson]:
        text, sent = unit.text, self._sent_text
        new = len(text) - len(sent)
        if new <= 0 or not text.startswith(sent):
            # Its author has replaced the text. The event that ends it has it as it is.
            return
        first, self._next = self._next, self._next + new
        start, self._sent_text = len(sent) + max(0, self._after + 1 - first), text
        if start >= len(text):
            return
        number = self._next - len(text)
        head = {"type": _DELTA[unit.kind], **self._place(unit)}
        for at in range(start, len(text)) if each else (start,):
            end = at + 1 if each else len(text)
            event = {**head, "delta": text[at:end], "sequence_number": number + end - 1}
            if unit.kind is ResponseKind.TEXT:
                event["logprobs"] = []
            yield event

    # Around a text

    def _open(self, unit: ResponseUnit) -> Iterator[EventJson]:
        yield from self._item("response.output_item.added", unit, "in_progress", "")
        match unit.kind:
            case ResponseKind.TEXT | ResponseKind.REFUSAL:
                yield from self._event(
                    "response.content_part.added", **self._place(unit), part=_part(unit, "")
                )
            case ResponseKind.REASONING:
                name = "response.reasoning_summary_part.added"
                yield from self._event(name, **self._place(unit), part=_part(unit, ""))

    def _close(self, unit: ResponseUnit) -> Iterator[EventJson]:
        text, place = unit.text, self._place(unit)
        if unit.kind not in _DISCRETE:
            self._next += max(0, len(text) - len(self._sent_text))
        match unit.kind:
            case ResponseKind.TEXT:
                yield from self._event("response.output_text.done", **place, text=text, logprobs=[])
            case ResponseKind.REFUSAL:
                yield from self._event("response.refusal.done", **place, refusal=text)
            case ResponseKind.REASONING:
                yield from self._event("response.reasoning_summary_text.done", **place, text=text)
                name = "response.reasoning_summary_part.done"
                yield from self._event(name, **place, part=_part(unit, text))
            case ResponseKind.CALL:
                name = "response.function_call_arguments.done"
                yield from self._event(name, **place, arguments=text)
        if unit.kind in (ResponseKind.TEXT, ResponseKind.REFUSAL):
            yield from self._event("response.content_part.done", **place, part=_part(unit, text))
        is_whole = unit.closed and not unit.incomplete
        yield from self._item(
            "response.output_item.done", unit, "completed" if is_whole else "incomplete", text
        )

    def _item(self, name: str, unit: ResponseUnit, status: str, text: str) -> Iterator[EventJson]:
        if unit.kind in _DISCRETE:
            status, text = "incomplete" if unit.incomplete else "completed", unit.text
        index = self._index
        item = item_json(self._units, index, self._base, status, text, has_content=name.endswith("done"))
        yield from self._event(name, output_index=index, item=item)

    def _place(self, unit: ResponseUnit) -> dict[str, Any]:
        place: dict[str, Any] = {
            "item_id": item_id(unit, self._base, self._index),
            "output_index": self._index,
        }
        if unit.kind in (ResponseKind.TEXT, ResponseKind.REFUSAL):
            place["content_index"] = 0
        elif unit.kind is ResponseKind.REASONING:
            place["summary_index"] = 0
        return place

    def _event(self, name: str, /, **fields: Any) -> Iterator[EventJson]:
        number = self._next
        self._next += 1
        if number > self._after:
            yield {"type": name, **fields, "sequence_number": number}


def _part(unit: ResponseUnit, text: str) -> dict[str, Any]:
    if unit.kind is ResponseKind.REFUSAL:
        return {"type": "refusal", "refusal": text}
    if unit.kind is ResponseKind.REASONING:
        return {"type": "summary_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
