"""Who cancelled a turn, read off the history: the newest cancel before its end that names it."""

from __future__ import annotations

import pytest

from selfhost_transport.commands.ended import EndedLine, ended_turns
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.message import Message


def cancel(client_id: str | None, **headers: str) -> Message:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Message(name=h.AI_CANCEL, client_id=client_id, extras=h.make_extras(named))


def end(turn: str, owner: str, reason: str = "cancelled", **headers: str) -> Message:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    extras = h.make_extras(
        {
            h.RUN_ID: turn,
            h.RUN_CLIENT_ID: owner,
            h.RUN_REASON: reason,
            h.INPUT_CODEC_MESSAGE_ID: f"of-{turn}",
            **named,
        }
    )
    return Message(name=h.AI_RUN_END, client_id="assistant", serial="1-0@s:000", extras=extras)


@pytest.mark.parametrize(
    ("cancels", "by"),
    [
        ([cancel("carol", run_id="t1"), cancel("eve", run_id="t2")], "carol"),
        (
            [cancel("carol", input_codec_message_id="of-t1"), cancel("eve", input_codec_message_id="of-t2")],
            "carol",
        ),
        ([cancel("carol", cancel_client_id="ann"), cancel("eve", cancel_client_id="bob")], "carol"),
        ([cancel("ann", cancel_own="true"), cancel("eve", cancel_own="true")], "ann"),
        ([cancel("carol", cancel_all="true"), cancel("eve", cancel_own="true")], "carol"),
        ([cancel("carol", cancel_all="true"), cancel("dan", run_id="t1")], "dan"),
        ([cancel(None, run_id="t1")], "(anonymous)"),
        ([cancel("eve", run_id="t2")], None),
        ([], None),
    ],
)
def test_the_newest_cancel_that_names_the_turn_counts(cancels: list[Message], by: str | None) -> None:
    (line,) = ended_turns([*cancels, end("t1", "ann"), cancel("late", run_id="t1")])
    assert line.cancelled_by == by


def test_a_failed_turn_carries_its_reason_but_no_people() -> None:
    failed = end("t1", "ann", "error", error_code="104008", error_message="the model is away")
    (line,) = ended_turns([cancel("carol", cancel_all="true"), Message(name="other"), failed])
    assert line == EndedLine(
        "t1", "error", "ann", "assistant", "1-0@s:000", None, 104008, "the model is away"
    )
