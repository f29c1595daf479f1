"""Presence in a connection's core, without I/O (protocol section 8)."""

from __future__ import annotations

import pytest

from gateway.commands.commands import ChangePresence, Done, LeavePresence
from gateway.commands.presence import MAX_REMAIN_MS, remain_ms
from gateway.fanout.presence_frames import SYNC_PAGE, sync_frames
from gateway.fanout.subscription import AttachResult
from gateway.realtime.connection import Connection
from gateway.realtime.effects import Adjust, Command, Detach, Effect, SendFrame, Sync
from selfhost_transport.store.presence import MIN_REMAIN_MS, Holder
from selfhost_transport.wire.actions import Action, Flag, PresenceAction
from selfhost_transport.wire.frame import AckResult, Frame
from selfhost_transport.wire.presence import PresenceMessage
from selfhost_transport.wire.serial import Position
from tests.gateway.cores import SERIAL, TERMS, attached, credential, only, opened

ENTER, LEAVE, UPDATE = PresenceAction.ENTER, PresenceAction.LEAVE, PresenceAction.UPDATE


def announce(
    core: Connection, *messages: PresenceMessage, serial: int = 0, channel: str = "c"
) -> list[Effect]:
    return core.receive(Frame(Action.PRESENCE, channel=channel, msg_serial=serial, presence=list(messages)))


def announced(core: Connection, *messages: PresenceMessage, channel: str = "c") -> None:
    """The same, carried out."""
    ticket = only(announce(core, *messages, channel=channel), Command).ticket
    core.committed(ticket, Done(AckResult([]), Position.ZERO, ""))


def change(effects: list[Effect]) -> ChangePresence:
    operation = only(effects, Command).operation
    assert isinstance(operation, ChangePresence)
    return operation


def refusal(effects: list[Effect]) -> int:
    frame = only(effects, SendFrame).frame
    assert frame.action is Action.NACK and frame.error is not None
    return frame.error.code


def left(effects: list[Effect]) -> list[str | None]:
    operations = [effect.operation for effect in effects if isinstance(effect, Command)]
    return [operation.session for operation in operations if isinstance(operation, LeavePresence)]


def test_an_operation_gets_identity_and_id_from_the_connection() -> None:
    core = attached(opened())
    operation = change(
        announce(
            core, PresenceMessage(ENTER, data="x"), PresenceMessage(UPDATE, "CONN:0:0", "alice"), serial=7
        )
    )
    assert operation.session == "c" and operation.publish_id.startswith("frame:CONN%3A7:")
    assert [(item.id, item.client_id) for item in operation.changes] == [
        ("CONN:7:0", "alice"),
        ("CONN:0:0", "alice"),
    ]


def test_an_id_of_another_connection_is_replaced() -> None:
    core = attached(opened())
    operation = change(announce(core, PresenceMessage(ENTER, "OTHER:0:0")))
    assert operation.changes[0].id == "CONN:0:0"


def test_the_answer_is_an_ack_without_serials_in_the_order_of_frames() -> None:
    core = attached(opened())
    first = only(announce(core, PresenceMessage(ENTER), serial=0), Command)
    second = only(announce(core, PresenceMessage(UPDATE), serial=1), Command)
    assert core.committed(second.ticket, Done(AckResult([]), Position.ZERO, "")) == []
    answers = core.committed(first.ticket, Done(AckResult([]), Position.ZERO, ""))
    frames = [effect.frame for effect in answers if isinstance(effect, SendFrame)]
    assert [(frame.action, frame.msg_serial, frame.res) for frame in frames] == [
        (Action.ACK, 0, None),
        (Action.ACK, 1, None),
    ]


@pytest.mark.parametrize(
    ("core", "message", "code"),
    [
        (opened(), PresenceMessage(ENTER), 91001),
        (attached(opened(), flags=Flag.SUBSCRIBE), PresenceMessage(ENTER), 40160),
        (attached(opened(credential(rights='{"*":["subscribe"]}'))), PresenceMessage(ENTER), 40160),
        (attached(opened(credential(None))), PresenceMessage(ENTER), 91000),
        (attached(opened(credential(None, wildcard=True))), PresenceMessage(ENTER), 91000),
        (attached(opened()), PresenceMessage(ENTER, client_id="bob"), 40012),
        (attached(opened(credential(None))), PresenceMessage(ENTER, client_id="bob"), 40012),
        (attached(opened()), PresenceMessage(PresenceAction.PRESENT), 40003),
        (attached(opened()), PresenceMessage(ENTER, data="x" * 1001), 40009),
    ],
)
def test_what_may_not_be_announced_is_refused(core: Connection, message: PresenceMessage, code: int) -> None:
    assert refusal(announce(core, message)) == code


def test_a_wildcard_connection_enters_whom_it_names() -> None:
    core = attached(opened(credential(None, wildcard=True)))
    operation = change(
        announce(core, PresenceMessage(ENTER, client_id="a"), PresenceMessage(ENTER, client_id="b"))
    )
    assert [item.client_id for item in operation.changes] == ["a", "b"]


def test_detach_takes_the_members_of_that_channel_out_once() -> None:
    core = attached(attached(opened(), "c"), "d")
    announced(core, PresenceMessage(ENTER))
    announced(core, PresenceMessage(ENTER), channel="d")
    effects = core.receive(Frame(Action.DETACH, channel="c"))
    assert left(effects) == ["c"]
    assert isinstance(effects[0], Detach) and isinstance(effects[-1], SendFrame)
    attached(core, "c")
    assert left(core.receive(Frame(Action.DETACH, channel="c"))) == []
    assert left(core.receive(Frame(Action.CLOSE))) == [None]


def test_members_stay_while_the_session_is_attached_under_another_name() -> None:
    core = attached(attached(opened(), "c"), "[?rewind=1]c")
    announced(core, PresenceMessage(ENTER))
    assert left(core.receive(Frame(Action.DETACH, channel="c"))) == []
    assert left(core.receive(Frame(Action.DETACH, channel="[?rewind=1]c"))) == ["c"]


def test_a_client_without_members_leaves_nothing_to_the_store() -> None:
    core = attached(opened())
    announced(core, PresenceMessage(ENTER))
    announced(core, PresenceMessage(LEAVE))
    assert not core.members
    assert left(core.receive(Frame(Action.CLOSE))) == []


def test_a_resumed_connection_takes_out_what_it_inherited() -> None:
    core = attached(opened())
    core.members.inherited = True
    assert left(core.receive(Frame(Action.DETACH, channel="c"))) == ["c"]
    assert left(core.receive(Frame(Action.CLOSE))) == [None]


def test_has_presence_is_followed_by_a_sync_on_every_attached() -> None:
    core = attached(opened())
    again = core.receive(Frame(Action.ATTACH, channel="c", channel_serial=SERIAL))
    assert only(again, Adjust).answer
    frame, sync = core.adjusted("c", AttachResult(SERIAL, resumed=True, presence=True))
    assert isinstance(frame, SendFrame) and isinstance(sync, Sync)
    assert Flag(frame.frame.flags or 0) & Flag.HAS_PRESENCE


def test_a_client_may_ask_for_a_sync_of_a_channel_it_may_see() -> None:
    core = attached(attached(opened(), "c"), "mute", flags=Flag.PUBLISH)
    assert core.receive(Frame(Action.SYNC, channel="c")) == [Sync("c")]
    assert core.receive(Frame(Action.SYNC, channel="mute")) == []
    assert core.receive(Frame(Action.SYNC, channel="elsewhere")) == []


@pytest.mark.parametrize("count", [0, 1, SYNC_PAGE, SYNC_PAGE + 1, 3 * SYNC_PAGE])
def test_sync_pages_hold_every_member_and_end_with_an_empty_cursor(count: int) -> None:
    members = [PresenceMessage(PresenceAction.PRESENT, client_id=str(n)) for n in range(count)]
    frames = sync_frames("c", members)
    assert [member for frame in frames for member in frame.presence or []] == members
    assert all(len(frame.presence or []) <= SYNC_PAGE for frame in frames)
    sequences, cursors = zip(*((frame.channel_serial or "").split(":") for frame in frames), strict=True)
    assert len(set(sequences)) == 1 and sequences[0].isalnum()
    assert cursors[-1] == "" and all(cursors[:-1])
    assert sync_frames("c", members)[0].channel_serial != frames[0].channel_serial


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, 15_000),
        ("3000", 3000),
        ("1", MIN_REMAIN_MS),
        ("9" * 12, MAX_REMAIN_MS),
        ("soon", 15_000),
        ("", 15_000),
    ],
)
def test_remain_present_for_is_kept_within_bounds(given: str | None, expected: int) -> None:
    query = {} if given is None else {"remainPresentFor": given}
    assert remain_ms(query, 15_000) == expected


def test_a_connection_answers_for_its_members_under_its_socket() -> None:
    holder = Holder("CONN", "socket", "gw-1")
    core = Connection("CONN", credential(), TERMS, lambda session: None, holder)
    core.open("key")
    attached(core)
    assert change(announce(core, PresenceMessage(ENTER))).holder is holder
