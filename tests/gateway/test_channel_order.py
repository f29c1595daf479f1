"""Operations of a connection on a channel take effect in the order in which they were sent (protocol section 6.2)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.commands.commands import Publish
from gateway.fanout.subscription import AttachResult
from gateway.realtime.connection import Connection
from gateway.realtime.effects import (
    Adjust,
    Attach,
    CloseSocket,
    Command,
    Deliver,
    Detach,
    Effect,
    SendFrame,
)
from selfhost_transport.errors import BadRequest, StoreUnavailable
from selfhost_transport.wire.actions import Action, Flag, PresenceAction
from selfhost_transport.wire.annotation import Annotation
from selfhost_transport.wire.frame import Frame, FrameError
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.presence import PresenceMessage
from tests.gateway.cores import SERIAL, attached, commit, credential, done, only, opened, publish, sent

HELLO = Message(name="n", data="hello")
READY = AttachResult(SERIAL)


def actions(effects: list[Effect]) -> list[int]:
    return [frame.action for frame in sent(effects)]


def attaching(core: Connection, channel: str = "c") -> Connection:
    only(core.receive(Frame(Action.ATTACH, channel=channel)), Attach)
    return core


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Action.MESSAGE, channel="c", msg_serial=0, messages=[HELLO]),
        Frame(Action.PRESENCE, channel="c", msg_serial=0, presence=[PresenceMessage(PresenceAction.ENTER)]),
        Frame(
            Action.ANNOTATION,
            channel="c",
            msg_serial=0,
            annotations=[Annotation(message_serial=f"{SERIAL}:000", type="likes:total.v1")],
        ),
    ],
    ids=["publish", "presence", "annotation"],
)
def test_an_operation_begins_once_the_attach_before_it_has_ended(frame: Frame) -> None:
    core = attaching(opened())
    assert core.receive(frame) == []
    assert core.postponed == 1
    effects = core.attach_ready("c", READY)
    assert [type(effect) for effect in effects] == [SendFrame, Deliver, Command]
    assert core.postponed == 0


def test_other_channels_go_past_it_but_are_answered_behind_it() -> None:
    core = attaching(opened())
    publish(core, 0, HELLO)
    other = commit(publish(core, 1, HELLO, channel="d"))
    assert core.committed(other.ticket, done("s1")) == []
    own = commit(core.attach_ready("c", READY))
    answers = sent(core.committed(own.ticket, done("s0")))
    assert [frame.msg_serial for frame in answers] == [0, 1]


def test_what_waited_is_judged_when_it_is_its_turn() -> None:
    core = opened()
    only(core.receive(Frame(Action.ATTACH, channel="c", flags=Flag.SUBSCRIBE)), Attach)
    publish(core, 0, HELLO)
    refusal = sent(core.attach_ready("c", READY))[-1]
    assert refusal.action is Action.NACK and refusal.error is not None and refusal.error.code == 40165


def test_a_publish_behind_an_attach_that_failed_goes_on_without_it() -> None:
    core = attaching(opened())
    publish(core, 0, HELLO)
    effects = core.attach_failed("c", StoreUnavailable("away").info)
    assert actions(effects) == [Action.DETACHED]
    assert isinstance(commit(effects).operation, Publish)


def test_a_publish_behind_an_attach_whose_channel_fails_goes_on_without_it() -> None:
    core = attaching(opened())
    publish(core, 0, HELLO)
    broken = FrameError(BadRequest("flags must be an integer"), Action.ATTACH, None, "c")
    effects = core.receive_malformed(broken)
    assert actions(effects) == [Action.ERROR]
    assert isinstance(commit(effects).operation, Publish)


def test_detach_waits_for_the_answers_before_it() -> None:
    core = attached(opened())
    own = commit(publish(core, 0, HELLO))
    assert core.receive(Frame(Action.DETACH, channel="c")) == []
    assert publish(core, 1, HELLO) == []
    effects = core.committed(own.ticket, done("s"))
    assert actions(effects) == [Action.ACK, Action.DETACHED]
    assert [type(effect) for effect in effects] == [SendFrame, Detach, SendFrame, Command]


def test_attach_waits_for_what_was_published_before_it() -> None:
    core = opened()
    own = commit(publish(core, 0, HELLO))
    assert core.receive(Frame(Action.ATTACH, channel="c")) == []
    effects = core.refused(own.ticket, StoreUnavailable("away").info)
    assert actions(effects) == [Action.NACK]
    only(effects, Attach)


def test_attaching_again_does_not_wait() -> None:
    core = attached(opened())
    publish(core, 0, HELLO)
    only(core.receive(Frame(Action.ATTACH, channel="c", flags=Flag.SUBSCRIBE)), Adjust)


def test_close_lets_what_waited_take_effect_first() -> None:
    core = attaching(opened())
    publish(core, 0, HELLO)
    effects = core.receive(Frame(Action.CLOSE))
    assert [type(effect) for effect in effects] == [Command, SendFrame, CloseSocket]
    assert core.postponed == 0


def test_what_waits_on_a_lost_socket_is_forgotten() -> None:
    core = attaching(opened())
    publish(core, 0, HELLO)
    core.disconnect(StoreUnavailable("away").info)
    assert core.postponed == 0


def test_many_frames_that_fail_one_by_one_need_no_stack() -> None:
    core = opened(credential(rights='{"c":["publish"]}'))
    own = commit(publish(core, 0, HELLO, channel="c"))
    for _ in range(5000):
        core.receive(Frame(Action.ATTACH, channel="c", params={"rewind": "nonsense"}))
    assert actions(core.committed(own.ticket, done("s"))) == [Action.ACK, *[Action.ERROR] * 5000]


@dataclass
class _Store:
    """Carries effects out at times of its own, and notes what became of each channel in order."""

    core: Connection
    operations: list[Command] = field(default_factory=list)
    attaches: list[str] = field(default_factory=list)
    happened: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    answered: list[int] = field(default_factory=list)

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Command(_, Publish() as operation):
                    self.operations.append(effect)
                    self.happened[operation.session].append(f"publish {operation.messages[0].data!r}")
                case Attach():
                    self.attaches.append(effect.channel.full)
                    self.happened[effect.channel.full].append("attach")
                case SendFrame(frame) if frame.action == Action.DETACHED:
                    self.happened[frame.channel or ""].append("detach")
                case SendFrame(frame) if frame.action == Action.ACK:
                    self.answered.append(frame.msg_serial or 0)

    def finish_operation(self, index: int) -> None:
        if self.operations:
            ticket = self.operations.pop(index % len(self.operations)).ticket
            self.take(self.core.committed(ticket, done("s")))

    def finish_attach(self, index: int) -> None:
        if self.attaches:
            full = self.attaches.pop(index % len(self.attaches))
            self.take(self.core.attach_ready(full, READY))


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["attach", "publish", "publish", "detach", "stored", "attached"]),
        st.sampled_from(["a", "b"]),
        st.integers(0, 5),
    ),
    max_size=60,
)


@given(_STEPS)
def test_whatever_finishes_when_each_channel_sees_the_order_of_sending(
    steps: list[tuple[str, str, int]],
) -> None:
    store = _Store(opened())
    wanted: defaultdict[str, list[str]] = defaultdict(list)
    is_attached: dict[str, bool] = {}
    count = 0
    for step, channel, index in steps:
        match step:
            case "publish":
                store.take(publish(store.core, count, Message(data=str(count)), channel=channel))
                wanted[channel].append(f"publish {str(count)!r}")
                count += 1
            case "attach":
                store.take(store.core.receive(Frame(Action.ATTACH, channel=channel)))
                if not is_attached.get(channel):
                    wanted[channel].append("attach")
                is_attached[channel] = True
            case "detach":
                store.take(store.core.receive(Frame(Action.DETACH, channel=channel)))
                wanted[channel].append("detach")
                is_attached[channel] = False
            case "stored":
                store.finish_operation(index)
            case _:
                store.finish_attach(index)
    while store.operations or store.attaches:
        store.finish_attach(0)
        store.finish_operation(0)
    assert store.happened == wanted
    assert store.answered == list(range(count))
    assert store.core.postponed == store.core.unanswered == 0
