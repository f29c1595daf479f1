"""Where the messages of another service are put: one order, one publish each, positions that the store accepts."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfhost_transport.errors import InvalidArgument, ServiceError
from selfhost_transport.importer.importer import parse_channels
from selfhost_transport.importer.placing import Placed, Placer, following
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message, Version
from selfhost_transport.wire.serial import Position

SERIES = "abcdefghij"


def placed(*messages: Message, after: Position = Position.ZERO) -> list[Placed]:
    placer = Placer(SERIES, after)
    return [one for message in messages for one in placer.take(message)] + list(placer.finish())


def message(serial: str, **fields: object) -> Message:
    return Message(serial=serial, **fields)  # type: ignore[arg-type]


def test_a_publish_of_several_messages_stays_one() -> None:
    found = placed(*(message(serial) for serial in ("01-002@x:000", "01-002@x:001", "01-003@x:000")))
    assert [(one.position, len(one.messages), one.serial) for one in found] == [
        (Position(1, 2), 2, "01-002@x:001"),
        (Position(1, 3), 1, "01-003@x:000"),
    ]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 999), st.sampled_from("ab"))))
def test_positions_grow_and_keep_away_from_where_the_store_moves_on(
    serials: list[tuple[int, int, str]],
) -> None:
    names = [f"{ms:014d}-{counter:03d}@{epoch}:000" for ms, counter, epoch in sorted(set(serials))]
    positions = [one.position for one in placed(*map(message, names))]
    assert len(positions) == len(names)
    assert all(before < after for before, after in itertools.pairwise(positions))
    assert all(position.counter < 990 for position in positions)


def test_an_import_that_goes_on_stays_behind_what_it_has() -> None:
    (one,) = placed(message("05-000@x:000"), after=Position(7, 989))
    assert one.position == following(Position(7, 989)) == Position(8, 0)


def test_outputs_follow_their_step_start_to_its_new_serial() -> None:
    start = message("01-002@Xy:000", name=h.AI_STEP_START, extras=h.make_extras({h.RUN_ID: "t"}))
    outputs = [
        message(f"01-00{number}@Xy:000", name=h.AI_OUTPUT, extras=h.make_extras({h.STEP_START_SERIAL: step}))
        for number, step in ((3, "01-002@Xy:000"), (4, "00-007@Xy:001"))
    ]
    _, *found = placed(start, *outputs)
    headers = [h.read_headers(one.messages[0].message) for one in found]
    assert [one.get(h.STEP_START_SERIAL) if one else None for one in headers] == [
        f"00000000000001-002@{SERIES}:000",
        f"00000000000000-007@{SERIES}:001",
    ]


def test_a_changed_message_keeps_its_version_and_who_changed_it() -> None:
    changed = Version("09-001@x:000", 9, client_id="ann", description="why")
    (one,) = placed(message("01-000@x:000", data="text", action=MessageAction.UPDATE, version=changed))
    (past,) = one.messages
    assert (past.version, past.operation.client_id, past.operation.description) == (
        Position(9, 1),
        "ann",
        "why",
    )
    (one,) = placed(message("01-000@x:000", action=MessageAction.CREATE, version=Version("01-000@x:000", 1)))
    assert one.messages[0].version is None


@pytest.mark.parametrize("serial", [None, "", "108-abc"])
def test_messages_without_an_order_are_refused(serial: str | None) -> None:
    with pytest.raises(ServiceError, match="its order is unknown"):
        placed(Message(serial=serial))


def test_a_file_of_channels() -> None:
    assert parse_channels("# a\n\n one:1 \ntwo\tother\n") == [("one:1", None), ("two", "other")]
    with pytest.raises(InvalidArgument, match="line 2"):
        parse_channels("one\na\tb\tc\n")
