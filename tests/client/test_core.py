"""The connection's rules, without an event loop."""

from __future__ import annotations

import random

import pytest

from selfhost_transport.client.connection.backoff import Backoff
from selfhost_transport.client.connection.core import ConnectionCore
from selfhost_transport.client.connection.effects import (
    Answered,
    Attached,
    AttachRefused,
    Drop,
    Effect,
    NeedToken,
    Received,
    Send,
    StateChanged,
)
from selfhost_transport.client.connection.outbox import WINDOW
from selfhost_transport.client.connection.state import ChannelState, ConnectionState
from selfhost_transport.errors import (
    ErrorInfo,
    InvalidArgument,
    MessageTooLarge,
    RateLimited,
    SessionClosed,
)
from selfhost_transport.wire.actions import Action, Flag
from selfhost_transport.wire.frame import AckResult, ConnectionDetails, Frame
from selfhost_transport.wire.message import Message

LOST = ErrorInfo(80003, 400, "cut")


def make(**arguments: object) -> ConnectionCore:
    backoff = Backoff(0.1, 15.0, 1, random.Random(1))
    return ConnectionCore("c", backoff=backoff, **arguments)  # type: ignore[arg-type]


def connected(connection_id: str = "conn", *, error: ErrorInfo | None = None, idle: int = 15000) -> Frame:
    details = ConnectionDetails(client_id="me", connection_key=f"{connection_id}!1", max_idle_interval=idle)
    return Frame(Action.CONNECTED, connection_id=connection_id, connection_details=details, error=error)


def attached(serial: str, *, resumed: bool = False) -> Frame:
    flags = int(Flag.RESUMED if resumed else Flag.NONE)
    return Frame(Action.ATTACHED, channel="c", channel_serial=serial, flags=flags)


def sent(effects: list[Effect]) -> list[Frame]:
    return [effect.frame for effect in effects if isinstance(effect, Send)]


def attach(core: ConnectionCore, serial: str = "p1") -> None:
    core.dialing(0)
    core.received(connected(), 0)
    core.received(attached(serial), 0)


def text(data: str) -> list[Message]:
    return [Message(name="m", data=data)]


def test_connects_then_attaches_then_delivers() -> None:
    core = make(params={"turns": "1"})
    assert core.dialing(0) and core.state is ConnectionState.CONNECTING
    frames = sent(core.received(connected(), 0))
    assert [frame.action for frame in frames] == [Action.ATTACH]
    assert frames[0].params == {"turns": "1"} and frames[0].channel_serial is None
    assert core.client_id == "me"
    assert core.received(attached("p1"), 0) == [Attached("p1", True, False, {}, None)]
    frame = Frame(Action.MESSAGE, channel="c", channel_serial="p2", messages=text("x"))
    assert core.received(frame, 0) == [Received(frame)]
    assert core.position == "p2"


def test_messages_of_other_channels_or_before_the_attach_are_dropped() -> None:
    core = make()
    core.dialing(0)
    core.received(connected(), 0)
    assert core.received(Frame(Action.MESSAGE, channel="c", messages=text("x")), 0) == []
    core.received(attached("p1"), 0)
    assert core.received(Frame(Action.MESSAGE, channel="other", messages=text("x")), 0) == []


def test_sends_before_the_connection_wait_and_leave_before_the_attach() -> None:
    core = make()
    _, effects = core.publish(text("a"))
    assert effects == []
    core.dialing(0)
    frames = sent(core.received(connected(), 0))
    assert [(f.action, f.msg_serial) for f in frames] == [(Action.MESSAGE, 0), (Action.ATTACH, None)]


def test_a_resumed_connection_gets_unanswered_frames_under_their_old_numbers() -> None:
    core = make()
    attach(core)
    first, _ = core.publish(text("a"))
    core.publish(text("b"))
    answered = core.received(Frame(Action.ACK, msg_serial=0, count=1, res=[AckResult(["s"])]), 1)
    assert [e.outcome.outgoing for e in answered if isinstance(e, Answered)] == [first]
    core.lost(LOST, 1)
    core.publish(text("c"))
    core.dialing(2)
    frames = sent(core.received(connected(), 2))
    assert [(f.action, f.msg_serial) for f in frames] == [
        (Action.MESSAGE, 1),
        (Action.MESSAGE, 2),
        (Action.ATTACH, None),
    ]
    assert frames[-1].channel_serial == "p1"
    assert core.received(attached("p1", resumed=True), 2) == [Attached("p1", False, True, {}, None)]


def test_another_connection_gets_them_numbered_from_zero() -> None:
    core = make()
    attach(core)
    for data in "abc":
        core.publish(text(data))
    core.received(Frame(Action.ACK, msg_serial=0, count=1, res=[AckResult(["s"])]), 1)
    core.lost(LOST, 1)
    core.dialing(2)
    frames = sent(core.received(connected("other", error=ErrorInfo(80018, 400, "no")), 2))
    assert [f.msg_serial for f in frames] == [0, 1, None]
    assert [f.messages[0].data for f in frames[:2] if f.messages] == ["b", "c"]


def test_an_ack_of_several_pairs_results_by_position() -> None:
    core = make()
    attach(core)
    for data in "abc":
        core.publish(text(data))
    results = [AckResult(["x"]), AckResult(["y"])]
    effects = core.received(Frame(Action.ACK, msg_serial=0, count=2, res=results), 0)
    assert [e.outcome.result for e in effects if isinstance(e, Answered)] == results
    assert len(core.outbox) == 1


def test_a_repeated_ack_is_ignored() -> None:
    core = make()
    attach(core)
    core.publish(text("a"))
    ack = Frame(Action.ACK, msg_serial=0, count=1, res=[AckResult(["x"])])
    assert len(core.received(ack, 0)) == 1
    assert core.received(ack, 0) == []


def test_a_nack_refuses_one_and_does_not_stop_later_ones() -> None:
    core = make()
    attach(core)
    core.publish(text("a"))
    core.publish(text("b"))
    refusal = ErrorInfo(40160, 401, "no")
    (nacked,) = core.received(Frame(Action.NACK, msg_serial=0, count=1, error=refusal), 0)
    assert isinstance(nacked, Answered) and nacked.outcome.error == refusal
    (acked,) = core.received(Frame(Action.ACK, msg_serial=1, count=1, res=[AckResult(["s"])]), 0)
    assert isinstance(acked, Answered) and acked.outcome.error is None


def test_silence_beyond_two_heartbeats_drops_the_socket() -> None:
    core = make()
    core.dialing(0)
    core.received(connected(idle=5000), 0)
    core.received(attached("p"), 0)
    core.received(Frame(Action.HEARTBEAT), 4)
    assert core.deadline() == 14
    assert core.tick(14) == [Drop(ErrorInfo(80003, 408, "the service is silent; reconnecting"))]
    effects = core.lost(LOST, 14)
    assert isinstance(effects[0], StateChanged) and effects[0].change.current is ConnectionState.DISCONNECTED


def test_no_answer_to_the_attach_repeats_it() -> None:
    core = make(attach_timeout=3.0)
    core.dialing(0)
    core.received(connected(idle=0), 0)
    assert core.deadline() == 3
    assert [f.action for f in sent(core.tick(3))] == [Action.ATTACH]
    assert core.deadline() == 6


def test_no_connected_in_time_drops_the_socket() -> None:
    core = make(connect_timeout=2.0)
    core.dialing(0)
    assert core.deadline() == 2
    (drop,) = core.tick(2)
    assert isinstance(drop, Drop) and drop.reason.code == 80000


def test_long_loss_is_called_suspended_and_still_tried() -> None:
    core = make()
    attach(core)
    core.lost(LOST, 10)
    core.dialing(100)
    core.lost(LOST, 131)
    assert core.state is ConnectionState.SUSPENDED
    core.dialing(132)
    assert core.state.value == "connecting"


def test_a_refused_channel_does_not_end_the_connection() -> None:
    core = make()
    core.dialing(0)
    core.received(connected(), 0)
    refusal = ErrorInfo(40160, 401, "no")
    assert core.received(Frame(Action.ERROR, channel="c", error=refusal), 0) == [AttachRefused(refusal)]
    assert core.state is ConnectionState.CONNECTED
    assert core.channel_state is ChannelState.FAILED


@pytest.mark.parametrize("code, status", [(40101, 401), (40300, 403), (40005, 400)])
def test_a_refusal_is_final(code: int, status: int) -> None:
    core = make()
    waiting, _ = core.publish(text("a"))
    core.dialing(0)
    effects = core.received(Frame(Action.ERROR, error=ErrorInfo(code, status, "no")), 0)
    assert core.state is ConnectionState.FAILED
    assert [e.outcome.outgoing for e in effects if isinstance(e, Answered)] == [waiting]
    with pytest.raises(Exception, match="no"):
        core.publish(text("b"))


@pytest.mark.parametrize("code, status", [(80003, 400), (50001, 500), (50003, 503)])
def test_trouble_of_the_service_is_tried_again(code: int, status: int) -> None:
    core = make()
    core.dialing(0)
    error = ErrorInfo(code, status, "later")
    assert core.received(Frame(Action.ERROR, error=error), 0) == [Drop(error)]
    core.lost(LOST, 0)
    assert core.state is ConnectionState.DISCONNECTED
    assert core.reason == error


def test_a_token_error_asks_for_another_token() -> None:
    core = make(renewable=True)
    attach(core)
    core.received(Frame(Action.DISCONNECTED, error=ErrorInfo(40142, 401, "expired")), 1)
    core.lost(LOST, 1)
    assert core.token_refused and core.state is ConnectionState.DISCONNECTED
    core.dialing(1)
    core.received(connected(), 1)
    assert not core.token_refused


def test_a_token_error_without_a_callback_is_final() -> None:
    core = make(renewable=False)
    core.dialing(0)
    core.received(Frame(Action.ERROR, error=ErrorInfo(40142, 401, "expired")), 0)
    assert core.state is ConnectionState.FAILED
    assert core.reason is not None and core.reason.code == 40171


def test_the_service_may_ask_for_a_token_while_connected() -> None:
    core = make(renewable=True)
    attach(core)
    assert core.received(Frame(Action.AUTH), 1) == [NeedToken()]
    (auth,) = sent(core.reauthorise("t2"))
    assert (auth.action, auth.access_token) == (Action.AUTH, "t2")
    assert core.received(connected(), 1) == []
    assert make().received(Frame(Action.AUTH), 1) == []


def test_detached_by_the_service_is_attached_again_at_the_position() -> None:
    core = make()
    attach(core, "p7")
    (again,) = sent(core.received(Frame(Action.DETACHED, channel="c", error=ErrorInfo(1, 400, "x")), 1))
    assert (again.action, again.channel_serial) == (Action.ATTACH, "p7")


def test_closing_fails_what_waits_and_refuses_more() -> None:
    core = make()
    attach(core)
    waiting, _ = core.publish(text("a"))
    effects = core.close()
    assert sent(effects)[0].action is Action.CLOSE
    (answer,) = [e.outcome for e in effects if isinstance(e, Answered)]
    assert answer.outgoing is waiting and answer.error is not None and answer.error.code == 104004
    with pytest.raises(SessionClosed):
        core.publish(text("b"))
    assert core.close() == [] and core.lost(LOST, 1) == []
    with pytest.raises(InvalidArgument):
        core.dialing(2)


def test_the_outbox_is_bounded() -> None:
    core = make(outbox_limit=2)
    core.publish(text("a"))
    core.publish(text("b"))
    with pytest.raises(RateLimited):
        core.publish(text("c"))


def test_a_window_of_frames_is_on_the_wire_and_answers_let_the_next_out() -> None:
    core = make()
    attach(core)
    frames = [frame for number in range(WINDOW + 3) for frame in sent(core.publish(text(str(number)))[1])]
    assert [frame.msg_serial for frame in frames] == list(range(WINDOW))
    ack = Frame(Action.ACK, msg_serial=0, count=2, res=[AckResult(["s"]), AckResult(["s"])])
    assert [frame.msg_serial for frame in sent(core.received(ack, 0))] == [WINDOW, WINDOW + 1]
    core.lost(LOST, 1)
    core.dialing(2)
    repeated = sent(core.received(connected("other"), 2))[:-1]
    assert [frame.msg_serial for frame in repeated] == list(range(WINDOW))
    assert [frame.messages[0].data for frame in repeated[:1] if frame.messages] == ["2"]
    assert len(core.outbox) == WINDOW + 1


def test_unknown_frames_are_ignored() -> None:
    core = make()
    attach(core)
    assert core.received(Frame(99), 0) == []
    assert core.received(Frame(Action.ERROR, channel="other", error=LOST), 0) == []
    assert core.state is ConnectionState.CONNECTED


def test_backoff_tries_every_endpoint_before_it_waits() -> None:
    backoff = Backoff(1.0, 8.0, 3, random.Random(2))
    first = [backoff.next_delay() for _ in range(3)]
    assert all(delay <= 1.0 for delay in first)
    later = [backoff.next_delay() for _ in range(12)]
    assert all(0.5 <= delay <= 8.0 for delay in later)
    assert max(later) > 4.0
    backoff.reset()
    assert backoff.next_delay() <= 1.0


def test_a_frame_that_is_too_large_is_refused_alone_before_and_after_the_service_names_its_limit() -> None:
    """The service closes the socket over such a frame, for good, and everything else would fail with it."""
    core = make()
    early, _ = core.publish([Message(name="early")], 600)
    small, _ = core.publish([Message(name="small")], 500)
    core.dialing(0)
    details = ConnectionDetails(client_id="me", connection_key="conn!1", max_frame_size=500)
    effects = core.received(Frame(Action.CONNECTED, connection_id="conn", connection_details=details), 0)
    (answered,) = [effect.outcome for effect in effects if isinstance(effect, Answered)]
    assert answered.outgoing is early
    assert answered.error is not None
    assert answered.error.code == 40009
    with pytest.raises(MessageTooLarge):
        core.publish([Message(name="late")], 501)
    assert [frame.messages for frame in sent(effects) if frame.action is Action.MESSAGE] == [small.messages]
    assert core.state is ConnectionState.CONNECTED
    assert len(core.outbox) == 1
