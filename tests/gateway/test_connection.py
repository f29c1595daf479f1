"""The connection's core without I/O (protocol sections 4 to 6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.commands.commands import AppendToMessage, Publish
from gateway.fanout.subscription import AttachResult
from gateway.realtime.attachments import MAX_CHANNELS, SERVED_MODES
from gateway.realtime.connection import Phase
from gateway.realtime.effects import (
    Adjust,
    Attach,
    Authenticate,
    CloseSocket,
    Command,
    Deliver,
    Detach,
)
from selfhost_transport.errors import BadRequest, StoreUnavailable, TokenError
from selfhost_transport.wire.actions import DEFAULT_MODES, Action, Flag, MessageAction
from selfhost_transport.wire.capability import Capability
from selfhost_transport.wire.channel import RewindCount
from selfhost_transport.wire.frame import Frame, FrameError
from selfhost_transport.wire.message import Message
from tests.gateway.cores import SERIAL, attached, commit, credential, done, only, opened, publish, sent

HELLO = Message(name="n", data="hello")


def test_connected_carries_the_client_id() -> None:
    core = opened()
    with pytest.raises(RuntimeError, match="cannot be opened"):
        core.open("again")
    fresh = opened(credential(None, wildcard=True))
    again = fresh.reauthenticated(fresh.credential, "key2")
    details = sent(again)[0].connection_details
    assert details is not None
    assert (details.client_id, details.connection_key) == ("*", "key2")


def test_a_ping_is_answered_with_its_id_or_without_one() -> None:
    core = opened()
    assert sent(core.receive(Frame(Action.HEARTBEAT, id="x")))[0].id == "x"
    assert sent(core.receive(Frame(Action.HEARTBEAT)))[0].id is None


def test_close_is_answered_and_final() -> None:
    core = opened()
    effects = core.receive(Frame(Action.CLOSE))
    assert [frame.action for frame in sent(effects)] == [Action.CLOSED]
    assert only(effects, CloseSocket).final
    assert core.receive(Frame(Action.HEARTBEAT, id="x")) == []


def test_unknown_actions_are_ignored() -> None:
    assert opened().receive(Frame(99)) == []


class TestAnswers:
    def test_answers_leave_in_the_order_of_the_frames_whatever_finishes_first(self) -> None:
        core = opened()
        first, second = commit(publish(core, 0, HELLO)), commit(publish(core, 1, HELLO))
        assert core.committed(second.ticket, done("s2")) == []
        frames = sent(core.committed(first.ticket, done("s1")))
        assert [(frame.action, frame.msg_serial, frame.count) for frame in frames] == [
            (Action.ACK, 0, 1),
            (Action.ACK, 1, 1),
        ]
        assert frames[1].res is not None
        assert frames[1].res[0].serials == ["s2"]

    def test_a_refusal_waits_for_the_answers_before_it(self) -> None:
        core = opened()
        first = commit(publish(core, 0, HELLO))
        assert publish(core, 1) == []
        frames = sent(core.refused(first.ticket, StoreUnavailable("away").info))
        assert [frame.action for frame in frames] == [Action.NACK, Action.NACK]
        assert frames[0].error is not None
        assert frames[0].error.code == 50003

    def test_numbers_may_go_backwards_and_repeat(self) -> None:
        core = opened()
        tickets = [commit(publish(core, number, HELLO)).ticket for number in (2, 3, 0, 1, 2)]
        answered = [sent(core.committed(ticket, done("s")))[0].msg_serial for ticket in tickets]
        assert answered == [2, 3, 0, 1, 2]

    @given(st.permutations(range(8)))
    def test_any_order_of_completion_gives_the_order_of_arrival(self, order: list[int]) -> None:
        core = opened()
        tickets = [commit(publish(core, number, HELLO)).ticket for number in range(8)]
        answered = [
            frame.msg_serial for index in order for frame in sent(core.committed(tickets[index], done("s")))
        ]
        assert answered == list(range(8))
        assert core.unanswered == 0

    def test_a_malformed_frame_with_a_number_is_refused_in_its_place(self) -> None:
        core = opened()
        first = commit(publish(core, 4, HELLO))
        broken = FrameError(BadRequest("data must be a string", code=40013), Action.MESSAGE, 5, "c")
        assert core.receive_malformed(broken) == []
        frames = sent(core.committed(first.ticket, done("s")))
        assert [(frame.action, frame.msg_serial) for frame in frames] == [(Action.ACK, 4), (Action.NACK, 5)]

    def test_a_malformed_frame_of_a_channel_fails_that_channel_only(self) -> None:
        core = attached(opened())
        broken = FrameError(BadRequest("flags must be an integer"), Action.ATTACH, None, "c")
        frames = sent(core.receive_malformed(broken))
        assert [(frame.action, frame.channel) for frame in frames] == [(Action.ERROR, "c")]
        assert core.phase is Phase.CONNECTED

    def test_what_is_no_frame_ends_the_connection(self) -> None:
        core = opened()
        effects = core.receive_malformed(BadRequest("not JSON", code=40001))
        assert sent(effects)[0].channel is None
        assert only(effects, CloseSocket).final


class TestPublishing:
    def test_a_message_is_stamped_with_identity_connection_and_id(self) -> None:
        operation = commit(publish(opened(), 7, HELLO, Message(data=b"\x00"))).operation
        assert isinstance(operation, Publish)
        assert [message.id for message in operation.messages] == ["CONN:7:0", "CONN:7:1"]
        assert {message.client_id for message in operation.messages} == {"alice"}
        assert {message.connection_id for message in operation.messages} == {"CONN"}

    def test_the_same_frame_is_recognised_and_another_with_its_number_is_not(self) -> None:
        core = opened()
        names = []
        for text in ("a", "a", "b"):
            operation = commit(publish(core, 0, Message(data=text))).operation
            assert isinstance(operation, Publish)
            names.append(operation.publish_id)
        assert names[0] == names[1] != names[2]

    def test_client_ids_of_messages_name_the_publish(self) -> None:
        operation = commit(publish(opened(), 0, Message(id="base:0"), Message(id="base:1"))).operation
        assert isinstance(operation, Publish)
        assert operation.publish_id == "client:base"

    @pytest.mark.parametrize(
        ("message", "code"),
        [
            (Message(client_id="mallory"), 40012),
            (Message(data="x" * 1001), 40009),
            (Message(action=MessageAction.SUMMARY), 40003),
            (Message(action=MessageAction.APPEND, data="x"), 40003),
            (Message(action=MessageAction.APPEND, data="x", serial="nonsense"), 40400),
        ],
    )
    def test_refusals(self, message: Message, code: int) -> None:
        error = sent(publish(opened(), 0, message))[0].error
        assert error is not None
        assert error.code == code

    def test_a_bad_channel_name_is_refused_without_ending_anything(self) -> None:
        core = opened()
        error = sent(publish(core, 0, HELLO, channel=":x"))[0].error
        assert error is not None
        assert (error.code, core.phase) == (40010, Phase.CONNECTED)

    def test_missing_rights_and_a_missing_mode_are_different_errors(self) -> None:
        reader = opened(credential(rights='{"*":["subscribe"]}'))
        error = sent(publish(reader, 0, HELLO))[0].error
        assert error is not None
        assert error.code == 40160
        without_mode = attached(opened(), flags=Flag.SUBSCRIBE)
        error = sent(publish(without_mode, 0, HELLO))[0].error
        assert error is not None
        assert error.code == 40165

    def test_force_nack(self) -> None:
        frame = Frame(
            Action.MESSAGE, channel="c", msg_serial=1, messages=[HELLO], params={"_forceNack": "true"}
        )
        error = sent(opened().receive(frame))[0].error
        assert error is not None
        assert error.code == 40099

    def test_own_messages_only_without_the_right_to_anybodys(self) -> None:
        change = Message(action=MessageAction.APPEND, data="x", serial=f"{SERIAL}:000")
        anyone = commit(publish(opened(), 0, change)).operation
        assert isinstance(anyone, AppendToMessage)
        assert anyone.author is None
        own = opened(credential(rights='{"*":["publish","message-update-own"]}'))
        operation = commit(publish(own, 0, change)).operation
        assert isinstance(operation, AppendToMessage)
        assert operation.author == "alice"
        absent = opened(credential(None, '{"*":["message-update-own"]}'))
        error = sent(publish(absent, 0, change))[0].error
        assert error is not None
        assert error.code == 40166


class TestChannels:
    def test_attached_comes_before_delivery(self) -> None:
        core = opened()
        attach = only(core.receive(Frame(Action.ATTACH, channel="c")), Attach)
        assert attach.modes & (Flag.PUBLISH | Flag.SUBSCRIBE)
        effects = core.attach_ready("c", AttachResult(SERIAL, backlog=True))
        frame = sent(effects)[0]
        assert (frame.action, frame.channel_serial) == (Action.ATTACHED, SERIAL)
        assert frame.flags is not None
        assert frame.flags & Flag.HAS_BACKLOG
        assert isinstance(effects[1], Deliver)

    def test_only_recognised_params_are_echoed(self) -> None:
        core = opened()
        params = {"rewind": "5", "agent": "x", "modes": "SUBSCRIBE,nonsense"}
        core.receive(Frame(Action.ATTACH, channel="c", params=params))
        frame = sent(core.attach_ready("c", AttachResult(SERIAL)))[0]
        assert frame.params == {"rewind": "5", "modes": "subscribe"}

    def test_the_turns_param_names_the_agent_of_a_bound_namespace(self) -> None:
        core = opened()
        for channel, expected in (("bound:1", {"turns": "assistant"}), ("free:1", None)):
            core.receive(Frame(Action.ATTACH, channel=channel, params={"turns": "1"}))
            assert sent(core.attach_ready(channel, AttachResult(SERIAL)))[0].params == expected

    def test_a_serial_wins_over_rewind(self) -> None:
        frame = Frame(Action.ATTACH, channel="c", params={"rewind": "5"})
        assert only(opened().receive(frame), Attach).params.rewind == RewindCount(5)
        frame = Frame(Action.ATTACH, channel="c", params={"rewind": "5"}, channel_serial=SERIAL)
        attach = only(opened().receive(frame), Attach)
        assert (attach.params.rewind, attach.resume_from) == (None, SERIAL)

    def test_attaching_again_changes_the_attachment_in_place(self) -> None:
        core = attached(opened())
        frame = Frame(Action.ATTACH, channel="c", flags=Flag.SUBSCRIBE, channel_serial=SERIAL)
        adjust = only(core.receive(frame), Adjust)
        assert adjust.modes == Flag.SUBSCRIBE
        answered = sent(core.adjusted("c", AttachResult(SERIAL, resumed=adjust.resumed)))[0]
        assert answered.flags == Flag.SUBSCRIBE | Flag.RESUMED

    def test_detach_during_an_attach_waits_for_it(self) -> None:
        core = opened()
        core.receive(Frame(Action.ATTACH, channel="c"))
        assert core.receive(Frame(Action.DETACH, channel="c")) == []
        actions = [frame.action for frame in sent(core.attach_ready("c", AttachResult(SERIAL)))]
        assert actions == [Action.ATTACHED, Action.DETACHED]

    def test_a_failed_attach_is_tried_again_when_asked_meanwhile(self) -> None:
        core = opened()
        core.receive(Frame(Action.ATTACH, channel="c"))
        core.receive(Frame(Action.ATTACH, channel="c"))
        effects = core.attach_failed("c", StoreUnavailable("away").info)
        assert sent(effects)[0].action == Action.DETACHED
        assert only(effects, Attach).channel.full == "c"

    def test_detaching_what_is_not_attached_is_answered(self) -> None:
        assert sent(opened().receive(Frame(Action.DETACH, channel="c")))[0].action == Action.DETACHED

    @pytest.mark.parametrize(("channel", "code"), [("", 40010), (":x", 40010), ("a\nb", 40010)])
    def test_bad_names_fail_the_channel_as_it_was_sent(self, channel: str, code: int) -> None:
        frame = sent(opened().receive(Frame(Action.ATTACH, channel=channel)))[0]
        assert frame.error is not None
        assert (frame.action, frame.channel, frame.error.code) == (Action.ERROR, channel, code)

    def test_a_channel_without_any_right_is_refused(self) -> None:
        core = opened(credential(rights='{"other":["*"]}'))
        error = sent(core.receive(Frame(Action.ATTACH, channel="c")))[0].error
        assert error is not None
        assert error.code == 40160

    def test_channels_of_a_connection_are_bounded(self) -> None:
        core = opened()
        for number in range(MAX_CHANNELS):
            attached(core, f"c{number}")
        error = sent(core.receive(Frame(Action.ATTACH, channel="more")))[0].error
        assert error is not None
        assert error.code == 90010


class TestCredentials:
    def test_a_new_token_narrows_silently_or_fails_the_channel(self) -> None:
        core = attached(attached(opened(), "kept"), "lost")
        narrower = credential(rights='{"kept":["subscribe"]}')
        effects = core.reauthenticated(narrower, "key2")
        assert only(effects, Adjust).answer is False
        assert only(effects, Detach).channel == "lost"
        assert [frame.action for frame in sent(effects)] == [Action.ERROR, Action.CONNECTED]
        error = sent(publish(core, 0, HELLO, channel="kept"))[0].error
        assert error is not None
        assert error.code == 40160

    def test_a_new_token_widens_to_the_modes_that_were_asked_for(self) -> None:
        core = attached(attached(opened(credential(rights='{"*":["subscribe"]}'))), "d", Flag.SUBSCRIBE)
        effects = core.reauthenticated(credential(), "key2")
        adjusts = [effect for effect in effects if isinstance(effect, Adjust)]
        assert [(adjust.channel, adjust.answer, adjust.resumed) for adjust in adjusts] == [("c", True, True)]
        assert adjusts[0].modes == DEFAULT_MODES
        assert isinstance(commit(publish(core, 0, HELLO)).operation, Publish)
        assert sent(publish(core, 1, HELLO, channel="d")) == []
        narrowed = core.reauthenticated(credential(rights='{"*":["publish"]}'), "key3")
        assert [effect.modes for effect in narrowed if isinstance(effect, Adjust)] == [Flag.PUBLISH]
        assert only(core.reauthenticated(credential(), "key4"), Adjust).modes == DEFAULT_MODES

    def test_occupancy_that_was_asked_for_comes_with_the_right_to_it(self) -> None:
        core = opened(credential(rights='{"*":["subscribe"]}'))
        core.receive(Frame(Action.ATTACH, channel="c", params={"occupancy": "metrics"}))
        assert sent(core.attach_ready("c", AttachResult(SERIAL)))[0].params is None
        assert only(core.reauthenticated(credential(), "key2"), Adjust).params.occupancy == "metrics"
        fewer = only(core.reauthenticated(credential(rights='{"*":["subscribe"]}'), "key3"), Adjust)
        assert fewer.params.occupancy is None

    @pytest.mark.parametrize("rights", ['{"*":["subscribe"]}', '{"*":["*"]}'])
    def test_an_attach_on_its_way_begins_anew_with_the_rights_of_a_new_token(self, rights: str) -> None:
        core = opened(credential(rights='{"*":["subscribe","publish"]}'))
        core.receive(Frame(Action.ATTACH, channel="veiled", channel_serial=SERIAL))
        effects = core.reauthenticated(credential(rights=rights), "key2")
        assert [type(effect) for effect in effects[:2]] == [Detach, Attach]
        again = only(effects, Attach)
        allowed = Capability.parse(rights).modes("veiled") & SERVED_MODES & DEFAULT_MODES
        assert (again.modes, again.resume_from) == (allowed, SERIAL)
        assert bool(again.hidden) == (rights != '{"*":["*"]}')
        assert sent(core.attach_ready("veiled", AttachResult(SERIAL)))[0].flags == allowed

    def test_a_token_of_another_ends_the_connection(self) -> None:
        core = opened()
        effects = core.reauthenticated(credential("bob"), "key2")
        error = sent(effects)[0].error
        assert error is not None
        assert error.code == 40102

    def test_a_refused_token_never_answers_with_a_token_error(self) -> None:
        effects = opened().authentication_failed(TokenError("bad", code=40144))
        error = sent(effects)[0].error
        assert error is not None
        assert error.code == 40101

    def test_auth_frames_are_verified(self) -> None:
        effects = opened().receive(Frame(Action.AUTH, access_token="t"))
        assert only(effects, Authenticate).token == "t"
        assert opened().receive(Frame(Action.AUTH))[-1] == CloseSocket(final=True)


def test_commits_after_the_end_are_still_answered_to_no_one() -> None:
    core = opened()
    ticket = commit(publish(core, 0, HELLO)).ticket
    core.disconnect(StoreUnavailable("restart").info)
    assert not any(isinstance(effect, Command) for effect in core.committed(ticket, done("s")))
    assert core.disconnect(StoreUnavailable("again").info) == []
