"""Branches, selection, pinning and windows of views (protocol sections 7.3, 7.4 and 7.6; BRA, HIS)."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import pytest

from selfhost_transport.turns import headers as h
from selfhost_transport.turns.anchors import Anchor
from selfhost_transport.turns.events import ChunkReceived, MessageChanged
from selfhost_transport.turns.inputs import InputIds, branch_selected, user_message
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui import TextPart, messages_to_json
from selfhost_transport.turns.view import MessagesChanged, TreeView
from selfhost_transport.wire.message import Message
from tests.turns.transcripts import load, transport


def fold(messages: Iterable[Message], view: TreeView) -> None:
    """Deliver messages one by one to a view that is watching."""
    for message in messages:
        view.update(view.tree.apply(message))


def watched(name: str) -> TreeView:
    view = TreeView(SessionTree())
    fold(load(name).live(), view)
    return view


def folded(name: str) -> TreeView:
    """A view that first looked after everything had arrived."""
    tree = SessionTree()
    for message in load(name).live():
        tree.apply(message)
    return TreeView(tree)


def ids(view: TreeView) -> list[str]:
    return [message.codec_message_id for message in view.messages()]


@pytest.mark.parametrize("name", ["16", "17", "18"])
def test_bra_8_the_newest_is_selected_and_siblings_are_listed_oldest_first(name: str) -> None:
    expected, view = load(name).raw["branch"], folded(name)
    found = view.branch_selection(expected["anchor"])
    siblings = [s.message.to_json() for s in found.siblings if s]
    assert (found.has_siblings, found.index, siblings) == (True, expected["index"], expected["siblings"])


def test_forks_of_a_suspended_run_are_siblings() -> None:
    found = folded("28").branch_selection("MSG-FORK-2")
    assert [s.message.id for s in found.siblings if s] == load("28").raw["branch"]["siblings"]
    assert found.index == 1


def test_bra_1_the_original_can_be_selected_again() -> None:
    view = folded("16")
    assert view.select("MSG-ASST-2", 0) == [MessagesChanged()]
    assert messages_to_json(view.messages()) == load("16").raw["view_with_index_0_selected"]
    assert view.branch_selection("MSG-ASST-1").index == 0
    assert view.select("MSG-ASST-1", 1) == [MessagesChanged()]
    assert ids(view)[-1] == "MSG-ASST-2"


def test_a_selection_outlives_the_loading_of_an_older_sibling() -> None:
    messages, view = load("16").live(), TreeView(SessionTree())
    again = said("", "x", "01767225600900-000@vectors:000")
    again.name = h.AI_RUN_START
    again.extras = h.make_extras(
        {h.RUN_ID: "RUN-3", h.PARENT: "MSG-USER-1", h.MSG_REGENERATE: "MSG-ASST-1", h.INVOCATION_ID: "INV-3"}
    )
    fold([messages[0], *messages[12:], again], view)
    assert view.runs()[-1].run_id == "RUN-3"
    view = TreeView(view.tree)
    view.select("MSG-ASST-2", 0)
    assert view.runs()[-1].run_id == "RUN-3"
    answer = said("three", "a3", "01767225600910-000@vectors:000")
    answer.name, answer.extras = (
        h.AI_OUTPUT,
        h.make_extras({h.CODEC_MESSAGE_ID: "a3", h.RUN_ID: "RUN-3", h.STREAM: "false"}, {h.KIND: "data-x"}),
    )
    fold([answer], view)
    view.select("a3", 0)
    assert ids(view)[-1] == "MSG-ASST-2"
    fold(messages[1:12], view)
    assert ids(view)[-1] == "MSG-ASST-2"
    assert view.branch_selection("MSG-ASST-2").index == 1


def test_bra_4_unknown_ids_are_safe_and_the_index_is_clamped() -> None:
    view = folded("16")
    assert view.branch_selection("no-one").siblings == ()
    assert not view.branch_selection("MSG-USER-1").has_siblings
    assert view.select("no-one", 0) == []
    view.select("MSG-ASST-2", -7)
    assert ids(view)[-1] == "MSG-ASST-1"
    view.select("MSG-ASST-1", 99)
    assert ids(view)[-1] == "MSG-ASST-2"


def test_a_view_that_showed_a_message_stays_with_it_when_another_edits() -> None:
    view, expected = watched("18"), load("18").raw["other_client_view"]
    assert messages_to_json(view.messages()) == expected["messages"]
    assert [run.to_json() for run in view.runs()] == expected["runs"]


def test_the_editor_jumps_to_the_edit() -> None:
    messages, view = load("18").live(), TreeView(SessionTree())
    edit = next(n for n, m in enumerate(messages) if transport(m).get(h.FORK_OF))
    fold(messages[: edit + 1], view)
    assert ids(view)[-1] == "MSG-ASST-2"
    assert view.select_own("MSG-USER-3") == [MessagesChanged()]
    fold(messages[edit + 1 :], view)
    assert ids(view) == ["MSG-USER-1", "MSG-ASST-1", "MSG-USER-3", "MSG-ASST-3"]


@pytest.mark.parametrize("name", ["12", "13", "28"])
def test_a_second_client_sees_the_recorded_view(name: str) -> None:
    view, expected = watched(name), load(name).raw["other_client_view"]
    assert messages_to_json(view.messages()) == expected["messages"]
    assert [run.to_json() for run in view.runs()] == expected["runs"]


@pytest.mark.parametrize("name", ["26", "29", "43", "44", "73"])
def test_the_view_while_a_turn_is_suspended(name: str) -> None:
    view, expected = TreeView(SessionTree()), load(name).raw["view_while_suspended"]
    for message in load(name).live():
        fold([message], view)
        if message.name == h.AI_RUN_SUSPEND:
            break
    assert messages_to_json(view.messages()) == expected["messages"]
    assert [run.to_json() for run in view.runs()] == expected["runs"]


def test_dur_2_a_new_attempt_takes_the_failed_output_away_at_once() -> None:
    transcript, view = load("22"), TreeView(SessionTree())
    messages = transcript.live()
    fold(messages[:8], view)
    assert messages_to_json(view.messages()) == transcript.raw["view_after_failed_attempt"]
    fold(messages[8:9], view)
    assert messages_to_json(view.messages()) == transcript.raw["view_after_second_step_start"]


def test_bra_5_views_of_one_tree_choose_independently() -> None:
    first = folded("16")
    second = TreeView(first.tree)
    first.select("MSG-ASST-2", 0)
    assert (ids(first)[-1], ids(second)[-1]) == ("MSG-ASST-1", "MSG-ASST-2")


def said(text: str, key: str, serial: str, **anchor: Any) -> Message:
    (message,) = user_message([TextPart(text)], InputIds(key, f"event-{key}"), client_id="user-1", **anchor)
    message.serial, message.client_id = serial, "user-1"
    return message


def test_bra_15_what_hung_below_a_replaced_tail_goes_with_it() -> None:
    view = folded("17")
    fold([said("more", "u2", "01767225600900-000@vectors:000", parent="MSG-ASST-2")], view)
    assert ids(view) == ["MSG-USER-1", "MSG-ASST-1", "MSG-ASST-3"]
    view.select("MSG-ASST-3", 0)
    assert ids(view) == ["MSG-USER-1", "MSG-ASST-1", "MSG-ASST-2", "u2"]


def test_bra_17_a_hidden_branch_makes_no_view_events() -> None:
    messages, view = load("16").live(), TreeView(SessionTree())
    fold(messages[:17], view)
    view.select("MSG-ASST-2", 0)
    (append,) = [m for m in messages[17:] if m.data == "Joke two."]
    reported: list[Any] = []
    for message in messages[17:]:
        events = view.tree.apply(message)
        reported += view.update(events)
        if message is append:
            assert any(isinstance(event, ChunkReceived) for event in events)
    assert not [
        event for event in reported if isinstance(event, ChunkReceived | MessageChanged | MessagesChanged)
    ]


def test_tokens_of_the_visible_branch_are_reported() -> None:
    view, reported = TreeView(SessionTree()), ""
    for message in load("01").live():
        for event in view.update(view.tree.apply(message)):
            if isinstance(event, ChunkReceived) and event.chunk.type == "text-delta":
                reported += getattr(event.chunk, "delta", "")
    assert reported == "The capital of France is Paris."


def test_his_1_older_messages_are_revealed_newest_first_in_steps() -> None:
    tree = SessionTree()
    for message in load("35").history():
        tree.apply(message)
    view = TreeView(tree, live_after="01767225600360-000@vectors")
    assert (ids(view), view.hidden_count, view.runs()) == ([], 6, [])
    for step in load("35").raw["joiner"]["steps"][1:]:
        assert [m.codec_message_id for m in view.reveal(2)] == step["revealed"]
        assert ids(view) == step["view"]
    assert view.reveal(2) == []


def test_his_2_live_messages_need_no_revealing() -> None:
    messages = load("02").live()
    second = next(n for n, m in enumerate(messages) if transport(m).get(h.CODEC_MESSAGE_ID) == "MSG-USER-2")
    attached_at = (messages[second - 1].serial or "").rpartition(":")[0]
    view = TreeView(SessionTree(), live_after=attached_at)
    fold(load("02").history()[: second - 1], view)
    fold(messages[second:], view)
    assert ids(view) == ["MSG-USER-2", "MSG-ASST-2"]
    assert [run.run_id for run in view.runs()] == ["RUN-2"]
    view.reveal(10)
    assert messages_to_json(view.messages()) == load("02").raw["final_view"]


def test_rec_3_joining_in_the_middle_of_an_answer_shows_nothing_until_its_prompt_is_loaded() -> None:
    transcript, view = load("25"), TreeView(SessionTree())
    live = transcript.live()
    fold(live[-5:], view)
    assert ids(view) == []
    fold(transcript.history(), view)
    assert messages_to_json(view.messages()) == transcript.raw["final_view"]


def test_unchanged_messages_are_the_same_objects() -> None:
    view = folded("02")
    before = view.messages()
    fold([said("x", "u9", "01767225609000-000@vectors:000", parent="MSG-ASST-2")], view)
    assert all(a is b for a, b in zip(before, view.messages(), strict=False))


def test_anchors_name_parent_and_target() -> None:
    view = folded("18")
    assert view.send_anchor() == Anchor("MSG-ASST-3")
    assert view.edit_anchor("MSG-USER-3") == Anchor("MSG-ASST-1", fork_of="MSG-USER-3")
    assert view.edit_anchor("MSG-USER-1") == Anchor(None, fork_of="MSG-USER-1")
    assert view.regenerate_anchor("MSG-ASST-3") == Anchor("MSG-USER-3", regenerates="MSG-ASST-3")
    assert TreeView(SessionTree()).send_anchor() == Anchor(None)


def test_regenerating_a_regenerated_head_names_the_original_target() -> None:
    assert folded("16").regenerate_anchor("MSG-ASST-2") == Anchor("MSG-USER-1", regenerates="MSG-ASST-1")
    assert folded("17").regenerate_anchor("MSG-ASST-3") == Anchor("MSG-ASST-1", regenerates="MSG-ASST-2")


def test_bra_9_concurrent_edits_make_siblings() -> None:
    view = folded("01")
    for n, key in enumerate(("a", "b")):
        fold([said(key, key, f"0176722560{n}900-000@vectors:000", fork_of="MSG-USER-1")], view)
    view = TreeView(view.tree)
    assert [s.message.text for s in view.branch_selection("b").siblings if s] == [
        "What is the capital of France?", "a", "b",
    ]  # fmt: skip


def answer(run_id: str, parent: str, at: int, regenerates: str | None = None) -> Message:
    """The start of a run with an answer called `<run>-answer`."""
    message = said("", "", f"{at:014d}-000@vectors:000")
    message.name, message.data = h.AI_OUTPUT, "…"
    transport_headers = h.header_map(
        (h.ROLE, h.ROLE_ASSISTANT), (h.CODEC_MESSAGE_ID, f"{run_id}-answer"), (h.RUN_ID, run_id),
        (h.PARENT, parent), (h.MSG_REGENERATE, regenerates), (h.STREAM, "true"), (h.STATUS, h.COMPLETE),
        (h.STREAM_ID, "t"), (h.INPUT_CODEC_MESSAGE_ID, f"for-{run_id}"),
    )  # fmt: skip
    message.extras = h.make_extras(transport_headers, {h.KIND: "text"})
    return message


def test_another_answer_for_one_that_is_not_shown_stands_beside_it() -> None:
    view = TreeView(SessionTree())
    fold(
        [
            said("one", "m1", serial(1)),
            answer("r1", "m1", 2),
            said("below", "m2", serial(3), parent="r1-answer"),
        ],
        view,
    )
    fold([answer("r2", "m1", 4, "r1-answer"), said("else", "m3", serial(5), parent="r2-answer")], view)
    assert ids(view) == ["m1", "r2-answer", "m3"]
    assert view.regenerate_anchor("r1-answer") == Anchor("m1", regenerates="r1-answer")
    assert view.edit_anchor("m2") == Anchor("r1-answer", fork_of="m2")
    fold([answer("r3", "m1", 6, "r1-answer")], view)
    assert len(view.branch_selection("r3-answer").siblings) == 3


def test_an_answer_asked_for_here_is_shown_whatever_was_selected() -> None:
    view = TreeView(SessionTree())
    fold([said("one", "m1", serial(1)), answer("r1", "m1", 2), answer("r2", "m1", 3, "r1-answer")], view)
    view.select("r2-answer", 0)
    # Another's does not move a view that has chosen; its own user's does.
    fold([answer("r3", "m1", 4, "r1-answer")], view)
    assert ids(view) == ["m1", "r1-answer"]
    view.expect_answer("for-r4")
    assert ids(view) == ["m1", "r1-answer"]
    fold([answer("r4", "m1", 5, "r1-answer")], view)
    assert ids(view) == ["m1", "r4-answer"]


def chosen(key: str, at: int) -> Message:
    message = branch_selected(key, event_id=f"chosen-{at}")
    message.serial = serial(at)
    return message


def test_bra_7_a_choice_for_all_moves_every_view_until_its_user_chooses() -> None:
    tree = SessionTree()
    views = [TreeView(tree), TreeView(tree)]

    def deliver(*messages: Message) -> None:
        for message in messages:
            events = tree.apply(message)
            for view in views:
                view.update(events)

    deliver(said("one", "m1", serial(1)), answer("r1", "m1", 2), answer("r2", "m1", 3, "r1-answer"))
    views[0].select("r2-answer", 0)
    deliver(chosen("r2-answer", 4))
    assert [ids(view)[-1] for view in views] == ["r2-answer", "r2-answer"]
    views[0].select("r2-answer", 0)
    deliver(answer("r3", "m1", 5, "r1-answer"))
    assert [ids(view)[-1] for view in views] == ["r1-answer", "r2-answer"]
    deliver(chosen("r3-answer", 6))
    views.append(TreeView(tree))
    assert [ids(view)[-1] for view in views] == ["r3-answer"] * 3
    views[1].expect_answer("for-r4")
    deliver(answer("r4", "m1", 7, "r1-answer"))
    assert [ids(view)[-1] for view in views] == ["r3-answer", "r4-answer", "r3-answer"]


def serial(at: int) -> str:
    return f"{at:014d}-000@vectors:000"


def test_bra_13_depth_and_breadth() -> None:
    """200 exchanges deep, each with another answer, and 50 answers to the last question: one rendering in 50 ms."""
    view, at = TreeView(SessionTree()), 0
    parent: str | None = None
    for depth in range(200):
        question, first, second = f"q{depth}", f"r{depth}a", f"r{depth}b"
        fold(
            [
                said("…", question, serial(at), parent=parent),
                answer(first, question, at + 1),
                answer(second, question, at + 2, f"{first}-answer"),
            ],
            view,
        )
        parent, at = f"{second}-answer", at + 3
    fold([answer(f"s{n}", "q199", at + n, "r199a-answer") for n in range(48)], view)
    assert len(ids(view)) == 400
    assert len(view.branch_selection("s47-answer").siblings) == 50
    took = []
    for n in range(5):
        began = time.perf_counter()
        view.select("s47-answer" if n % 2 == 0 else "r199a-answer", 0 if n % 2 == 0 else 49)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.05, f"fastest of {took}"


def test_a_message_whose_alternative_is_shown_still_names_the_group() -> None:
    view = folded("16")
    view.select("MSG-ASST-2", 0)
    assert view.branch_selection("MSG-ASST-2") == view.branch_selection("MSG-ASST-1")
    assert view.alternative("MSG-ASST-2", 0) == "MSG-ASST-1"
    view.select("MSG-ASST-2", 1)
    assert ids(view)[-1] == "MSG-ASST-2"
