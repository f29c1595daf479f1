"""The handles of a session's turns: one for each turn, for as long as it is referenced."""

from __future__ import annotations

from weakref import WeakValueDictionary

from selfhost_transport.client.session.turn import Turn
from selfhost_transport.turns.events import ChunkReceived, OutputReplaced, TreeEvent, TurnChanged
from selfhost_transport.turns.runs import RunInfo


class TurnHandles:
    """Handles by turn id, and by the message that asked for the turn while it has no id yet."""

    def __init__(self) -> None:
        self._by_id: WeakValueDictionary[str, Turn] = WeakValueDictionary()
        self._by_input: WeakValueDictionary[str, Turn] = WeakValueDictionary()

    def of_id(self, turn_id: str | None) -> Turn | None:
        """The handle of a turn, if there is one."""
        return None if turn_id is None else self._by_id.get(turn_id)

    def of_input(self, codec_message_id: str) -> Turn | None:
        """The handle of the turn that a message asked for."""
        return self._by_input.get(codec_message_id)

    def add(self, turn: Turn, codec_message_id: str | None = None) -> None:
        """Remember a handle under its id, and under the message that asked for it."""
        if turn.turn_id is not None:
            self._by_id[turn.turn_id] = turn
        if codec_message_id is not None:
            self._by_input[codec_message_id] = turn

    def forget(self, turn: Turn) -> None:
        """There is no such turn."""
        self._by_input.pop(turn.input_codec_message_id or "", None)
        self._by_id.pop(turn.turn_id or "", None)

    def update(self, event: TreeEvent) -> None:
        """What changed in the tree, to the handle that it concerns."""
        match event:
            case ChunkReceived():
                turn = self._by_id.get(event.turn_id)
                if turn is not None:
                    turn.feed(event.chunk)
            case TurnChanged():
                self._update(event.turn)
            case OutputReplaced():
                turn = self._by_id.get(event.turn_id)
                if turn is not None:
                    turn.restart()

    def restart(self) -> None:
        """The reported output of every turn is no longer valid."""
        for turn in self._all():
            turn.restart()

    def abandon(self, error: Exception) -> None:
        """No more events of any of them will arrive."""
        for turn in self._all():
            turn.abandon(error)
        self._by_id.clear()
        self._by_input.clear()

    def abandon_unknown(self, known: set[str], error: Exception) -> None:
        """Give up those whose turn is not among the known ones."""
        for turn_id, turn in list(self._by_id.items()):
            if turn_id not in known:
                turn.abandon(error)
                del self._by_id[turn_id]

    def _update(self, info: RunInfo) -> None:
        turn = self._by_id.get(info.run_id)
        if turn is None and info.input_codec_message_id is not None:
            turn = self._by_input.get(info.input_codec_message_id)
            if turn is not None:
                self._by_id[info.run_id] = turn
        if turn is not None:
            turn.update(info)

    def _all(self) -> set[Turn]:
        return {*self._by_id.values(), *self._by_input.values()}
