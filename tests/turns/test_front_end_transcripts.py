"""Every golden transcript as its front ends see it: each chunk and event is one that the published schemas describe."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from ag_ui.core import Event
from pydantic import TypeAdapter

from selfhost_transport.turns import chunks as c
from selfhost_transport.turns.agui_messages import messages_of
from selfhost_transport.turns.agui_stream import AguiStream
from selfhost_transport.turns.events import ChunkReceived, OutputReplaced
from selfhost_transport.turns.run_spans import (
    Pending,
    RunSpan,
    chunks_of_run,
    finished,
    pending_calls,
    started,
    usage_of_run,
)
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui_stream import UIMessageStream, chunks_of_turn
from tests.turns.transcripts import Transcript, load_all

JS = Path(__file__).parent.parent / "js"
_EVENTS: TypeAdapter[Any] = TypeAdapter(Event)
TRANSCRIPTS = {transcript.name: transcript for transcript in load_all()}


class Watcher:
    """Follows each turn of a transcript live, as a page and as an AG-UI client."""

    def __init__(self, transcript: Transcript) -> None:
        self.ui: list[dict[str, Any]] = []
        self.agui: list[dict[str, Any]] = []
        # The last events for clients older than 1.0.
        self.old: list[dict[str, Any]] = []
        self._transcript = transcript
        self._tree = SessionTree(transcript.raw["channel"])
        self._pages: dict[str, UIMessageStream] = {}
        self._clients: dict[str, AguiStream] = {}

    def watch(self) -> Watcher:
        """All of it, then what readers get who come late."""
        for message in self._transcript.live():
            for event in self._tree.apply(message):
                if isinstance(event, ChunkReceived):
                    self._notify(event.turn_id, event.codec_message_id, event.chunk)
                elif isinstance(event, OutputReplaced):
                    self._send_again(event.turn_id)
        for run in self._tree.turns():
            self._end(run.run_id)
        self.agui.append({"type": "MESSAGES_SNAPSHOT", "messages": messages_of(self._tree)})
        return self

    def _streams(self, turn: str) -> tuple[UIMessageStream, AguiStream]:
        if turn not in self._pages:
            self.agui.append(started("t", "r", turn))
        return self._pages.setdefault(turn, UIMessageStream(turn)), self._clients.setdefault(
            turn, AguiStream()
        )

    def _notify(self, turn: str, message: str, chunk: c.Chunk) -> None:
        page, client = self._streams(turn)
        if page.is_behind:
            self._send_again(turn)
            return
        self.ui += page.feed(message, chunk)
        self.agui += [event for _, event in client.feed(message, chunk)]

    def _send_again(self, turn: str) -> None:
        page, client = self._streams(turn)
        node = self._tree.run_node(turn)
        self.ui += page.replay(chunks_of_turn(node))
        self.agui += [event for _, event in client.sync(chunks_of_run(node, RunSpan()))]
        if client.must_restart:
            self.agui += [event for _, event in client.close()]
            client.adopt(chunks_of_run(node, RunSpan()))

    def _end(self, turn: str) -> None:
        run, node = self._tree.turn(turn), self._tree.run_node(turn)
        assert run is not None
        page, client = self._streams(turn)
        suspended = run.status is TurnStatus.SUSPENDED
        pending = pending_calls(node) if suspended else Pending()
        late = UIMessageStream(turn)
        self.ui += late.replay(chunks_of_turn(node))
        if run.status.is_terminal or suspended:
            error = run.error.message if run.error is not None else None
            self.ui += page.end(run.status, error)
            self.agui += [event for _, event in client.close()]
            usage = usage_of_run(node, RunSpan())
            for old, events in ((False, self.agui), (True, self.old)):
                events.append(finished("t", "r", run, pending, suspended=suspended, old=old, usage=usage))


@pytest.fixture(scope="module")
def watched() -> dict[str, Watcher]:
    return {name: Watcher(transcript).watch() for name, transcript in TRANSCRIPTS.items()}


def _null_in(value: Any) -> bool:
    children: Iterable[Any] = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    return value is None or any(map(_null_in, children))


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_agu_3_the_python_models_take_each_event_as_it_is(watched: dict[str, Watcher], name: str) -> None:
    events = [*watched[name].agui, *watched[name].old]
    assert events
    for event in events:
        read = _EVENTS.validate_python(event)
        assert read.model_dump(by_alias=True, exclude_unset=True, mode="json") == event
        assert event["type"] == "CUSTOM" or not _null_in(event)


def test_uim_28_agu_30_the_schemas_of_the_npm_packages_take_them_too(watched: dict[str, Watcher]) -> None:
    ui = [chunk for watcher in watched.values() for chunk in watcher.ui]
    agui = [event for watcher in watched.values() for event in watcher.agui]
    old = [event for watcher in watched.values() for event in watcher.old]
    assert len(ui) > 300 and len(agui) > 300 and len(old) > 20
    checked = subprocess.run(
        ["node", str(JS / "validate-transcripts.mjs")],
        input=json.dumps({"ui": ui, "agui": agui, "old": old}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
