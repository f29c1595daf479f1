"""The tree beyond the transcripts: any order, optimistic sends, turns by client (SES-4, OPT, INT-7, INT-8, CON-9)."""

from __future__ import annotations

import copy
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.context import STEP_START_PLACEHOLDER, context_for_input, turn_id_for
from selfhost_transport.turns.encoder import Create, Encoder
from selfhost_transport.turns.events import CancelSeen, ChunkReceived, OutputReplaced, Promoted, TurnChanged
from selfhost_transport.turns.inputs import InputIds, cancel, regenerate, user_message
from selfhost_transport.turns.lifecycle import RunReason, run_end, run_start, run_suspend
from selfhost_transport.turns.prompt import build_prompt
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui import TextPart, messages_to_json
from selfhost_transport.turns.view import TreeView
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message, Version
from selfhost_transport.wire.serial import Position, format_item
from tests.turns.transcripts import Transcript, load, load_all

SESSION = "conversations:s"


class Log:
    """Gives messages the positions a service would give them."""

    def __init__(self) -> None:
        self._ms = 1_770_000_000_000

    def serial(self) -> str:
        self._ms += 1
        return format_item(Position(self._ms, 0), "epoch00000", 0)

    def stored(self, message: Message, client_id: str | None) -> Message:
        serial = self.serial()
        return Message(
            name=message.name, data=message.data, encoding=message.encoding, client_id=client_id,
            extras=message.extras, serial=serial, action=MessageAction.CREATE, version=Version(serial),
        )  # fmt: skip

    def appended(self, message: Message, data: str, extras: dict[str, object] | None = None) -> Message:
        return Message(
            data=data, extras=extras or message.extras, serial=message.serial, action=MessageAction.APPEND,
            version=Version(self.serial()),
        )  # fmt: skip


def said(text: str, key: str = "u1", event: str = "e1", parent: str | None = None) -> list[Message]:
    return user_message([TextPart(text)], InputIds(key, event), client_id="user-1", parent=parent)


def texts(tree: SessionTree) -> list[str]:
    return [message.message.text for message in TreeView(tree).messages()]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(load_all()), st.randoms(use_true_random=False))
def test_ses_4_history_in_any_order_gives_the_same_view(transcript: Transcript, random: Random) -> None:
    messages = transcript.history()
    random.shuffle(messages)
    tree = SessionTree()
    for message in messages:
        tree.apply(message)
    view = TreeView(tree)
    expected = transcript.raw["late_joiner"].get("view", transcript.raw["final_view"])
    assert messages_to_json(view.messages()) == expected
    assert [run.to_json() for run in view.runs()] == transcript.raw["final_runs"]


def test_chunks_leave_in_the_order_they_came() -> None:
    transcript, reported = load("03"), []
    tree = SessionTree()
    for message in transcript.live():
        reported += [e.chunk for e in tree.apply(message) if isinstance(e, ChunkReceived)]
    (stream,) = transcript.raw["agent_streams"]
    fed = [p.chunk_from_json(chunk) for chunk in stream["chunks"]]
    # On the wire a start always names its message.
    assert reported[1:] == fed[1:]


def test_opt_1_and_2_an_own_message_shows_at_once_and_is_promoted_once() -> None:
    log, tree, sent = Log(), SessionTree(SESSION), said("hello")
    tree.insert_optimistic(sent)
    assert texts(tree) == ["hello"]
    (node,) = tree.nodes()
    assert node.serial is None
    echo = log.stored(sent[0], "user-1")
    assert [e for e in tree.apply(echo) if isinstance(e, Promoted)] == [Promoted("u1")]
    assert not [e for e in tree.apply(echo) if isinstance(e, Promoted)]
    assert texts(tree) == ["hello"]
    assert tree.nodes() == [node]
    assert node.serial == echo.serial


def test_opt_1_unconfirmed_messages_come_last_in_send_order() -> None:
    log, tree = Log(), SessionTree(SESSION)
    for n in ("2", "1"):
        tree.insert_optimistic(said(f"mine {n}", f"own-{n}", f"event-{n}"))
    tree.apply(log.stored(said("theirs", "u2", "e2")[0], "user-2"))
    assert texts(tree) == ["theirs", "mine 2", "mine 1"]


def test_opt_4_a_refused_send_is_taken_back() -> None:
    tree = SessionTree(SESSION)
    tree.insert_optimistic(said("no"))
    assert tree.active_turns() == {"user-1": {turn_id_for(SESSION, "u1")}}
    tree.remove_optimistic("e1")
    assert (texts(tree), tree.nodes(), tree.active_turns()) == ([], [], {})
    assert tree.message("u1") is None


def test_opt_4_taking_back_after_the_echo_changes_nothing() -> None:
    log, tree, sent = Log(), SessionTree(SESSION), said("kept")
    tree.insert_optimistic(sent)
    tree.apply(log.stored(sent[0], "user-1"))
    tree.remove_optimistic("e1")
    assert texts(tree) == ["kept"]
    assert [turn.status for turn in tree.turns()] == [TurnStatus.PENDING]


def test_opt_6_an_echo_with_another_event_id_confirms_nothing() -> None:
    log, tree = Log(), SessionTree(SESSION)
    tree.insert_optimistic(said("mine"))
    events = tree.apply(log.stored(said("mine", "u1", "other")[0], "user-2"))
    assert not [e for e in events if isinstance(e, Promoted)]


def test_opt_7_a_steer_is_confirmed_inside_its_run() -> None:
    log, tree = Log(), SessionTree(SESSION)
    for message in load("14").live()[:7]:
        tree.apply(message)
    steer = user_message([TextPart("faster")], InputIds("s1", "es"), client_id="user-1", run_id="RUN-1")
    tree.insert_optimistic(steer)
    assert texts(tree)[-1] == "faster"
    tree.apply(log.stored(steer[0], "user-1"))
    assert texts(tree).count("faster") == 1
    assert tree.turn_of("s1") == "RUN-1"


def started(log: Log, tree: SessionTree) -> tuple[Message, Encoder]:
    """A turn of agent-1 for user-1 that has begun."""
    trigger = log.stored(said("go")[0], "user-1")
    tree.apply(trigger)
    ctx = context_for_input(trigger, session=SESSION, agent_client_id="agent-1")
    tree.apply(log.stored(run_start(ctx), "agent-1"))
    return trigger, Encoder(ctx, "a1", STEP_START_PLACEHOLDER)


def test_trn_3_and_int_7_and_int_8_a_turn_is_active_from_its_send_to_its_end() -> None:
    log, tree = Log(), SessionTree(SESSION)
    turn_id = turn_id_for(SESSION, "u1")
    trigger = log.stored(said("go")[0], "user-1")
    (changed,) = [e for e in tree.apply(trigger) if isinstance(e, TurnChanged)]
    assert (changed.turn.run_id, changed.turn.status) == (turn_id, TurnStatus.PENDING)
    assert tree.active_turns() == {"user-1": {turn_id}}
    ctx = context_for_input(trigger, session=SESSION, agent_client_id="agent-1")
    tree.apply(log.stored(run_start(ctx), "agent-1"))
    assert tree.active_turns() == {"user-1": {turn_id}, "agent-1": {turn_id}}
    tree.apply(log.stored(run_suspend(ctx), "agent-1"))
    assert [turn.status for turn in tree.turns()] == [TurnStatus.SUSPENDED]
    tree.apply(log.stored(run_end(ctx, RunReason.CANCELLED), "agent-1"))
    assert tree.active_turns() == {}
    found = tree.turn(turn_id)
    assert found is not None
    assert (found.status, found.client_id, found.agent_client_id) == (
        TurnStatus.CANCELLED,
        "user-1",
        "agent-1",
    )


def test_a_turn_that_ends_without_a_start_is_no_longer_pending() -> None:
    log, tree = Log(), SessionTree(SESSION)
    trigger = log.stored(said("go")[0], "user-1")
    ctx = context_for_input(trigger, session=SESSION, agent_client_id="agent-1")
    end = log.stored(run_end(ctx, RunReason.CANCELLED), "agent-1")
    for order in ((trigger, end), (end, trigger)):
        tree = SessionTree(SESSION)
        for message in order:
            tree.apply(message)
        assert [turn.status for turn in tree.turns()] == [TurnStatus.CANCELLED]
        assert tree.active_turns() == {}


def test_a_regenerate_is_a_pending_turn_although_it_has_no_message() -> None:
    log, tree = Log(), SessionTree(SESSION)
    tree.apply(log.stored(regenerate(InputIds("r1", "er"), "a1", parent="u1", client_id="user-1"), "user-1"))
    assert tree.active_turns() == {"user-1": {turn_id_for(SESSION, "r1")}}
    assert tree.nodes() == []


def test_con_9_messages_know_their_turn() -> None:
    tree = SessionTree()
    for message in load("12").live():
        tree.apply(message)
    keys = ("MSG-USER-1", "MSG-ASST-1", "MSG-USER-2", "MSG-ASST-2", "no-one")
    assert [tree.turn_of(key) for key in keys] == ["RUN-1", "RUN-1", "RUN-2", "RUN-2", None]


def test_a_cancel_is_reported_and_marks_its_turn() -> None:
    log, tree = Log(), SessionTree(SESSION)
    started(log, tree)
    events = tree.apply(log.stored(cancel(event_id="c", input_codec_message_id="u1"), "user-2"))
    assert events[0] == CancelSeen(None, "u1", "user-2")
    assert [turn.cancel_requested for turn in tree.turns()] == [True]


def test_str_16_text_is_exact_and_an_append_does_not_fold_again() -> None:
    log, tree = Log(), SessionTree(SESSION)
    _, encoder = started(log, tree)
    (create,) = encoder.encode(p.TextStart("t"))
    assert isinstance(create, Create)
    stream = log.stored(create.message, "agent-1")
    tree.apply(stream)
    node = tree.owner_of("a1")
    assert node is not None
    projection, version = node.projection, tree.structure_version
    chunks = ["\U0001f468", "‍", "\U0001f469", "é", "\0", "語"] * 50
    for chunk in chunks:
        tree.apply(log.appended(stream, chunk))
    assert node.projection is projection
    assert tree.structure_version == version
    assert texts(tree)[-1] == "".join(chunks)


def test_str_11_a_full_update_continues_or_replaces_the_text() -> None:
    log, tree = Log(), SessionTree(SESSION)
    _, encoder = started(log, tree)
    (create,) = encoder.encode(p.TextStart("t"))
    assert isinstance(create, Create)
    stream = log.stored(create.message, "agent-1")
    tree.apply(stream)
    tree.apply(log.appended(stream, "one "))
    full = log.appended(stream, "one two")
    full.action = MessageAction.UPDATE
    deltas = [e.chunk for e in tree.apply(full) if isinstance(e, ChunkReceived)]
    assert deltas == [p.TextDelta("t", "two")]
    other = log.appended(stream, "else")
    other.action = MessageAction.UPDATE
    assert any(isinstance(e, OutputReplaced) for e in tree.apply(other))
    assert texts(tree)[-1] == "else"
    assert tree.apply(full) == []


JUNK: st.SearchStrategy[object] = st.sampled_from(
    ["", "true", "RUN-1", "MSG-USER-1", "MSG-ASST-1", "[", '["x"]', None, 7, [], {}, "tool-input"]
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(load_all()), st.data())
def test_ses_13_no_mixture_of_headers_breaks_the_tree(transcript: Transcript, data: st.DataObject) -> None:
    tree = SessionTree(SESSION)
    view = TreeView(tree)
    for message in copy.deepcopy(transcript.live()):
        tiers = (message.extras or {}).get("ai", {})
        for tier in data.draw(st.lists(st.sampled_from(sorted(tiers)), max_size=2)) if tiers else ():
            header = data.draw(st.sampled_from([*sorted(tiers[tier]), h.FORK_OF, h.RUN_ID, h.SUPERSEDES]))
            tiers[tier][header] = data.draw(JUNK)
        message.data = data.draw(
            st.sampled_from([message.data, None, "{", b"\xff", '{"output":1,"forkSeed":[]}'])
        )
        view.update(tree.apply(message))
    for shown in view.messages():
        view.branch_selection(shown.codec_message_id)
        build_prompt(tree, shown.codec_message_id)
    assert len(view.runs()) <= len(tree.turns())


@pytest.mark.parametrize(
    "extras",
    [
        None,
        {},
        {"ai": 1},
        {"ai": {"transport": []}},
        {"ai": {"transport": {"run-id": 5, "codec-message-id": None}, "codec": {"kind": {}}}},
        {
            "ai": {
                "transport": {"run-id": "R", "codec-message-id": "c", "stream": "true"},
                "codec": {"kind": "?"},
            }
        },
    ],
)
@pytest.mark.parametrize("name", [h.AI_INPUT, h.AI_OUTPUT, h.AI_RUN_START, h.AI_STEP_END, "other", None])
def test_ses_15_foreign_messages_do_no_harm(name: str | None, extras: dict[str, object] | None) -> None:
    tree = SessionTree(SESSION)
    for action in MessageAction:
        message = Message(
            name=name, data='{"a":', encoding="json", extras=extras, serial=f"s{action}", action=action
        )
        tree.apply(message)
    assert TreeView(tree).messages() == []
