"""A websocket on the bare transport: order, back-pressure, and how it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.frames import Close, Frame, Opcode

from gateway.background import Background
from gateway.commands.commands import Done
from gateway.realtime.driver import ConnectionDriver
from gateway.websocket.protocol import RawSocket
from gateway.websocket.write_batch import WriteBatch
from selfhost_transport.accelerator.plain_fan_out import MAX_JOINED
from selfhost_transport.wire.frame import AckResult
from selfhost_transport.wire.serial import Position
from tests.gateway.ears import Ear, Wire
from tests.gateway.masked_frames import sent
from tests.processes import wait_until

GOODBYE = Frame(Opcode.CLOSE, Close(1000, "").serialize()).serialize(mask=False)


class Scene:
    """A socket that was just handed over."""

    def __init__(self, early: bytes = b"") -> None:
        self.wire, self.ear, self.tasks = Wire(), Ear(), Background("test")
        self.connections: set[Any] = set()
        self.write_batch = WriteBatch()
        self.socket = RawSocket(self.wire, self.connections, 1000, early)

    def feed(self, data: bytes) -> None:
        """As a transport does."""
        buffer = self.socket.get_buffer(-1)
        buffer[: len(data)] = data
        self.socket.buffer_updated(len(data))

    def start(self) -> None:
        self.socket.start(self.ear, self.tasks, 100, self.write_batch)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    scene.start()
    yield scene
    scene.socket.connection_lost(None)
    await scene.tasks.close()
    assert not scene.connections


async def test_what_the_client_sent_too_early_is_heard_first() -> None:
    partly = sent(1, b"partly")
    scene = Scene(early=sent(1, b"early") + partly[:-2])
    assert (scene.ear.heard, scene.wire.reading) == ([], False)
    scene.start()
    assert (scene.ear.heard, scene.wire.reading) == (["early"], True)
    scene.feed(partly[-2:])
    assert scene.ear.heard == ["early", "partly"]


async def test_a_busy_listener_gets_everything_later_in_order(scene: Scene) -> None:
    scene.ear.on_message = lambda raw: scene.ear.gate.shut()
    scene.feed(sent(1, b"1") + sent(2, b"2") + sent(9, b"!") + sent(1, b"3"))
    assert (scene.ear.heard, scene.wire.reading) == (["1"], False)
    # Control frames do not wait.
    assert scene.wire.written == Frame(Opcode.PONG, b"!").serialize(mask=False)
    scene.ear.gate.open()
    await wait_until(lambda: len(scene.ear.heard) == 2)
    scene.socket.connection_lost(None)
    assert scene.ear.heard == ["1", b"2"]
    scene.ear.on_message = lambda raw: None
    scene.ear.gate.open()
    await wait_until(lambda: scene.ear.heard[-1] == "(end)")
    assert scene.ear.heard == ["1", b"2", "3", "(end)"]


async def test_a_reply_leaves_in_one_write_with_the_entries_that_waited_for_it(scene: Scene) -> None:
    client: Any = SimpleNamespace(
        core=SimpleNamespace(committed=lambda ticket, done: []),
        carry_out=lambda effects: scene.socket.write(b"reply "),
        _channels=SimpleNamespace(proceed=lambda done: scene.socket.write(b"entries")),
        _services=SimpleNamespace(hub=SimpleNamespace(write_batch=scene.write_batch)),
    )
    ConnectionDriver._committed(client, 1, Done(AckResult([]), Position.ZERO, ""))
    assert (scene.wire.writes, scene.wire.written) == (1, b"reply entries")


async def test_a_congested_socket_that_is_lost_lets_its_listener_go(scene: Scene) -> None:
    scene.ear.on_message = lambda raw: scene.ear.gate.shut()
    scene.feed(sent(1, b"1"))
    scene.socket.pause_writing()
    scene.socket.connection_lost(None)
    assert scene.ear.heard == ["1", "(full)", "(room)"]
    scene.ear.gate.open()
    await wait_until(lambda: scene.ear.heard[-1] == "(end)")


async def test_congestion_is_reported(scene: Scene) -> None:
    assert scene.wire.high == 100
    scene.socket.pause_writing()
    assert scene.socket.congested
    scene.socket.resume_writing()
    assert (scene.socket.congested, scene.ear.heard) == (False, ["(full)", "(room)"])


async def test_closing_waits_for_the_answer_and_listens_to_nothing_else(scene: Scene) -> None:
    scene.socket.write(b"last")
    scene.socket.close()
    scene.socket.close()
    scene.socket.write(b"too late")
    scene.feed(sent(1, b"more"))
    assert (scene.wire.written, scene.wire.state, scene.ear.heard) == (b"last" + GOODBYE, "open", [])
    scene.feed(sent(8, Close(1000, "").serialize()))
    assert (scene.wire.state, scene.ear.heard) == ("closed", ["(end)"])


async def test_a_clients_close_is_answered_once_and_reported_once(scene: Scene) -> None:
    scene.feed(sent(1, b"last") + sent(8, b"") + sent(1, b"behind it"))
    scene.socket.connection_lost(None)
    assert (scene.wire.written, scene.wire.state) == (GOODBYE, "closed")
    assert scene.ear.heard == ["last", "(end)"]


async def test_too_large_a_message_is_reported_before_the_socket_closes(scene: Scene) -> None:
    scene.feed(sent(1, b"x" * 1001) + sent(1, b"not looked at"))
    assert scene.ear.heard == ["(too large)"]
    assert scene.wire.written.startswith(bytes((0x88,)))
    assert int.from_bytes(scene.wire.written[2:4], "big") == 1009
    assert scene.wire.state == "open"  # so that the client can read it


async def test_a_client_that_answers_no_pings_is_given_up(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.websocket.protocol.DEAF_TIMEOUT_S", 0.01)
    scene.socket.ping()
    scene.socket.ping()
    scene.feed(sent(10, b""))
    for _ in range(2):
        scene.socket.ping()
    assert scene.wire.written == b"\x89\x00" * 4
    scene.socket.ping()
    assert int.from_bytes(scene.wire.written[10:12], "big") == 1011
    await wait_until(lambda: scene.wire.state == "aborted")


async def test_a_client_that_is_behind_with_reading_is_not_asked_for_pongs(scene: Scene) -> None:
    scene.socket.ping()
    scene.socket.ping()
    scene.socket.pause_writing()
    scene.socket.ping()
    scene.socket.resume_writing()
    scene.socket.ping()
    assert scene.wire.written == b"\x89\x00" * 3


async def test_a_client_that_never_answers_a_close_frame_is_dropped(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.websocket.protocol.CLOSE_TIMEOUT_S", 0.01)
    scene.socket.close()
    await wait_until(lambda: scene.wire.state == "aborted")


async def test_p10_a_client_that_pings_and_does_not_read_is_owed_one_pong(scene: Scene) -> None:
    scene.socket.pause_writing()
    for number in range(50):
        scene.feed(sent(9, b"%d" % number))
    assert scene.wire.written == b""
    scene.socket.resume_writing()
    scene.feed(sent(9, b"after"))
    pongs = [Frame(Opcode.PONG, payload).serialize(mask=False) for payload in (b"49", b"after")]
    assert scene.wire.written == b"".join(pongs)


async def test_a_client_that_hangs_up_without_a_word_is_not_waited_for(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.websocket.protocol.CLOSE_TIMEOUT_S", 0.01)
    scene.socket.write(b"it reads none of this")
    scene.socket.eof_received()
    assert scene.ear.heard == ["(end)"]
    scene.socket.write(b"nor this")
    assert scene.wire.written == b"it reads none of this"
    await wait_until(lambda: scene.wire.state == "aborted")


async def test_a_stopping_server_closes_it(scene: Scene) -> None:
    assert scene.connections == {scene.socket}
    scene.socket.shutdown()
    assert int.from_bytes(scene.wire.written[2:4], "big") == 1012
    assert scene.wire.state == "closed"


async def test_a_listener_that_fails_ends_the_socket(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    def fail(raw: str | bytes) -> None:
        if raw == "2":
            raise RuntimeError("a fault")
        scene.ear.gate.shut()

    scene.ear.on_message = fail
    scene.feed(sent(1, b"1") + sent(1, b"2"))
    scene.ear.gate.open()
    await wait_until(lambda: scene.wire.state == "aborted")
    assert "a fault" in caplog.text


async def test_frames_that_arrive_together_leave_in_one_write(scene: Scene) -> None:
    other = Scene()
    other.socket.start(other.ear, other.tasks, 100, scene.write_batch)
    with scene.write_batch:
        scene.socket.write(b"1")
        other.socket.write(b"a")
        scene.socket.write(b"2")
        assert (scene.wire.written, other.wire.written) == (b"", b"")
    assert (scene.wire.written, scene.wire.writes, other.wire.written) == (b"12", 1, b"a")
    scene.socket.write(b"ACK")
    assert scene.wire.written == b"12ACK"


async def test_much_that_arrives_together_leaves_in_between(scene: Scene) -> None:
    with scene.write_batch:
        scene.socket.write(b"x" * MAX_JOINED)
        assert scene.wire.writes == 0
        scene.socket.write(b"y")
        assert (len(scene.wire.written), scene.wire.writes) == (MAX_JOINED + 1, 1)
        scene.socket.write(b"z")
    assert (scene.wire.written[-2:], scene.wire.writes) == (b"yz", 2)


async def test_a_socket_that_is_closed_meanwhile_says_all_it_had_to_say(scene: Scene) -> None:
    with scene.write_batch:
        scene.socket.write(b"last")
        scene.socket.close()
        scene.socket.write(b"too late")
    assert scene.wire.written == b"last" + GOODBYE
