"""The lanes of the accelerator give each websocket the very bytes of the long way, in its order (P1, P10)."""

from __future__ import annotations

import gc
import os
import random
import socket
import sys
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from gateway.background import Background
from gateway.fanout import append_path, inbox
from gateway.fanout.delivery import Variant
from gateway.fanout.feed import SessionFeed
from gateway.fanout.inbox import Inbox
from gateway.websocket import protocol, write_batch
from gateway.websocket.protocol import RawSocket
from gateway.websocket.write_batch import WriteBatch
from selfhost_transport import accelerator
from selfhost_transport.accelerator import plain_fan_out
from selfhost_transport.redis_io.subscriptions import pass_on
from selfhost_transport.store.session_store import SessionStore
from tests.gateway.ears import Ear, Wire
from tests.gateway.scenarios import LongWay, Reader, Scenario, Side

LONG = os.environ.get("SELFHOST_TRANSPORT_LONG") == "1"
STEPS = 5_000 if LONG else 400
CHANNEL = b"channel"
Form = Any


@pytest.fixture(
    params=[
        plain_fan_out,
        pytest.param(
            accelerator.native,
            marks=pytest.mark.skipif(
                accelerator.native is None, reason=f"the compiled accelerator: {accelerator.STATUS}"
            ),
        ),
    ],
    ids=["python", "compiled"],
)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Form]:
    form = request.param
    monkeypatch.setattr(append_path, "Lane", form.Lane)
    monkeypatch.setattr(append_path, "SendBuffer", form.SendBuffer)
    monkeypatch.setattr(write_batch, "send_all", form.send_all)
    monkeypatch.setattr(inbox, "hand_out", form.hand_out)
    yield form


class Websocket(Reader):
    """A reader whose frames leave through a buffer, in an order with those that are written at once."""

    def __init__(self, form: Form, write_batch: WriteBatch, variant: Variant, mute: str | None) -> None:
        super().__init__(variant, mute)
        self._write_batch = write_batch
        self.buffer = form.SendBuffer(self.frames.append)

    def write(self, frame: bytes) -> None:
        if self._write_batch.open:
            self.buffer.add(frame, self._write_batch.buffers)
        else:
            self.frames.append(frame)

    @property
    def congested(self) -> bool:
        return self._full

    @congested.setter
    def congested(self, congested: bool) -> None:
        self._full = congested
        if hasattr(self, "buffer"):
            self.buffer.congested = congested


class Socketed(Side):
    """A side whose notifications come as the replies of one read, with those of a channel without a lane."""

    def __init__(self, form: Form, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._form = form
        self.inbox = Inbox(self.feed.write_batch, self.metrics)
        self.way = self.feed.way = form.Way(partial(self.inbox.add, self.follower))
        self.in_lanes = 0

    def reader(self, variant: Variant, mute: str | None) -> Reader:
        return Websocket(self._form, self.feed.write_batch, variant, mute)

    def notify(self, payload: bytes) -> None:
        ways = {CHANNEL: self.way}
        replies = [[b"subscribe", b"other", 1], [b"message", CHANNEL, payload], b"PONG"]

        def on_reply(reply: Any) -> None:
            if isinstance(reply, list) and reply[0] == b"message":
                self.in_lanes -= 1
                ways[reply[1]](reply[2])

        self.in_lanes += 1
        pass_on(replies, self.inbox, ways, on_reply)


@pytest.mark.parametrize("seed", range(2))
async def test_each_websocket_gets_the_bytes_of_the_long_way(
    store: SessionStore, form: Form, seed: int
) -> None:
    source = random.Random(seed)
    tasks = Background("test")
    lanes, long = Socketed(form, store, tasks, SessionFeed), Side(store, tasks, LongWay)
    scenario = Scenario(source, [lanes, long])
    await scenario.play(STEPS, tasks)
    for one, other in zip(lanes.readers, long.readers, strict=True):
        assert b"".join(one.frames) == b"".join(other.frames)
        assert one.subscription.state is other.subscription.state
    assert lanes.feed.position == long.feed.position == scenario.last
    for side in (lanes, long):
        side.metrics.collect()
    assert lanes.metrics.deliveries._value.get() == long.metrics.deliveries._value.get()
    assert lanes.in_lanes > STEPS / 4


# The parts


def replies_of(*payloads: bytes) -> list[Any]:
    return [[b"message", CHANNEL, payload] for payload in payloads]


TEMPLATES = ((True, b"{", b"}"), (False, b"\x81", b"\x82"))
NOTIFICATION = b"5-1 5-0 A1-0:0\n\x91\xa1x"
NEXT = b"5-2 5-1 A1-0:0\n\x91\xa1y"


def lane_to(form: Form, *buffers: Any) -> Any:
    return form.Lane(b"5-0", b"A1-0:0\n", b"abc0123xyz", TEMPLATES, (tuple(buffers), ()))


def test_what_is_handed_out_stops_where_something_has_to_be_looked_at(form: Form) -> None:
    sent: list[bytes] = []
    touched: list[Any] = []
    buffer = form.SendBuffer(sent.append)
    way = form.Way(lambda payload: None)
    ways = {CHANNEL: way, b"other": lambda payload: None}
    replies = replies_of(NOTIFICATION, NEXT)
    assert form.hand_out(replies, 0, 9, ways, touched) == (0, 0, 0)
    way.lane = lane_to(form, buffer)
    way.waiting = True
    assert form.hand_out(replies, 0, 9, ways, touched) == (0, 0, 0)
    way.waiting = False
    assert form.hand_out([[b"message", b"other", NOTIFICATION]], 0, 9, ways, touched) == (0, 0, 0)
    assert form.hand_out([[b"message", b"unknown", NOTIFICATION]], 0, 9, ways, touched) == (0, 0, 0)
    assert form.hand_out([b"PONG", *replies], 0, 9, ways, touched) == (0, 0, 0)
    assert form.hand_out(replies, 0, 1, ways, touched) == (1, 1, 5)
    assert (way.lane.last, touched, sent) == (b"5-1", [buffer], [])
    assert form.hand_out([[b"pmessage", *reply[1:]] for reply in replies], 1, 9, ways, touched) == (1, 0, 0)
    # As those of a Cluster's shard.
    assert form.hand_out([[b"smessage", *reply[1:]] for reply in replies], 1, 9, ways, touched) == (2, 1, 5)
    assert form.hand_out(replies, 1, 9, ways, touched) == (1, 0, 0)
    assert touched == [buffer]
    form.send_all(touched)
    assert len(sent) == 1 and sent[0].count(b'"x"') == sent[0].count(b'"y"') == 1
    buffer.congested = True
    assert way.lane.take(b"5-3 5-2 A1-0:0\n\x91\xa1z", touched) is None


def test_what_is_written_to_a_closed_socket_is_forgotten(form: Form) -> None:
    sent: list[bytes] = []
    touched: list[Any] = []
    buffer = form.SendBuffer(sent.append)
    buffer.add(b"before", touched)
    buffer.closed = True
    assert lane_to(form, buffer).take(NOTIFICATION, touched) == (0, 5)
    buffer.add(b"after", touched)
    form.send_all(touched)
    assert sent == [b"before"]
    buffer.closed = False
    buffer.add(b"more", touched)
    buffer.end()
    form.send_all(touched)
    assert sent == [b"before"] and buffer.size == 0


def test_what_a_socket_does_not_take_is_spilled_with_all_that_follows(form: Form) -> None:
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    spilled: list[bytes] = []
    with near, far:

        def spill(rest: bytes) -> None:
            spilled.append(rest)
            buffer.fd = -1

        touched: list[Any] = []
        buffer = form.SendBuffer(spill)
        buffer.fd = near.fileno()
        whole = b""
        for number in range(2000):
            frame = b"%d " % number * 10
            whole += frame
            buffer.add(frame, touched)
            if number % 7 == 0:
                form.send_all(touched)
                touched.clear()
        form.send_all(touched)
        far.setblocking(False)
        received = b""
        while True:
            try:
                received += far.recv(65536)
            except BlockingIOError:
                break
        # The Python form leaves all sending to the transport.
        assert bool(received) is (form is not plain_fan_out)
        assert received + b"".join(spilled) == whole
    buffer.fd = 0x7FFFFFF
    buffer.add(b"nowhere", touched)
    buffer.flush()
    assert spilled[-1] == b"nowhere"


def test_a_fault_of_the_transport_is_raised(form: Form) -> None:
    def fail(rest: bytes) -> None:
        raise RuntimeError("a fault")

    touched: list[Any] = []
    buffer = form.SendBuffer(fail)
    buffer.add(b"x", touched)
    with pytest.raises(RuntimeError):
        form.send_all(touched)
    with pytest.raises(RuntimeError):
        buffer.add(b"x" * (plain_fan_out.MAX_JOINED + 1), touched)
    assert buffer.size == 0


def test_in_python_one_more_reader_costs_one_more_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of its transport: with hundreds of readers each call besides would show."""
    monkeypatch.setattr(protocol, "SENDS", False)
    monkeypatch.setattr(protocol, "SendBuffer", plain_fan_out.SendBuffer)
    monkeypatch.setattr(write_batch, "send_all", plain_fan_out.send_all)

    def calls(readers: int) -> int:
        wires, write_batch, count = [Wire() for _ in range(readers)], WriteBatch(), 0
        sockets = [RawSocket(wire, set(), 1000) for wire in wires]
        for raw in sockets:
            raw.start(Ear(), Background("test"), 1000, write_batch)
        lane = lane_to(plain_fan_out, *(raw.buffer for raw in sockets))

        def note(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += event == "call"

        before = sys.getprofile()
        # What a collection calls is not of this.
        gc.disable()
        sys.setprofile(note)
        try:
            with write_batch:
                lane.take(NOTIFICATION, write_batch.buffers)
        finally:
            sys.setprofile(before)
            gc.enable()
        assert all(wire.writes == 1 for wire in wires)
        return count

    assert calls(20) - calls(10) == 10


@pytest.mark.parametrize("count", [0, 1, 3])
def test_nothing_is_kept_once_a_lane_is_given_up(form: Form, count: int) -> None:
    class Spill:
        def __call__(self, rest: bytes) -> None:
            pass

    spill = Spill()
    buffers = [form.SendBuffer(spill) for _ in range(count)]
    way = form.Way(print)
    for _ in range(50):
        way.lane = lane_to(form, *buffers)
        way.lane.take(NOTIFICATION, [])
        form.hand_out(replies_of(NEXT), 0, 1, {CHANNEL: way}, [])
    way.lane = None
    gc.collect()
    assert [sys.getrefcount(buffer) for buffer in buffers] == [3] * count
    gone = weakref.ref(spill)
    del spill, buffers
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda form, buffer: form.Lane(b"5-0", b"", b"", TEMPLATES, ((buffer,),)),
        lambda form, buffer: form.Lane(b"1" * 20, b"", b"", TEMPLATES, ((buffer,), ())),
    ],
)
def test_a_lane_that_does_not_fit_is_refused(form: Form, wrong: Callable[[Form, Any], object]) -> None:
    with pytest.raises(ValueError, match=r"template|position"):
        wrong(form, form.SendBuffer(print))


@pytest.mark.skipif(accelerator.native is None, reason=f"the compiled accelerator: {accelerator.STATUS}")
def test_values_of_other_types_are_refused() -> None:
    native: Any = accelerator.native
    buffer = native.SendBuffer(print)
    lane = partial(native.Lane, b"5-0", b"A", b"abc0123xyz")
    for call in (
        native.SendBuffer, native.Way, native.Lane, partial(lane, TEMPLATES, ((buffer,), (1,))),
        partial(lane, ((True, b""),), ((),)), partial(lane, ((True, "", b""),), ((),)), partial(lane, TEMPLATES, ([], [])),
        partial(lane(TEMPLATES, ((buffer,), ())).take, "text", []), partial(lane(TEMPLATES, ((), ())).take, b"", ()),
        partial(buffer.add, "text", []), partial(buffer.add, b"x", ()), partial(native.send_all, ()),
        partial(native.send_all, [1]), partial(native.hand_out, (), 0, 1, {}, []),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            call()
    assert native.hand_out([], -5, 3, {}, []) == (-5, 0, 0)
