"""The synchronous client, in a thread that has no event loop (SDK-3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from selfhost_transport import StreamReset, SyncClientTransport, TurnStatus
from selfhost_transport.client import RunInfo
from selfhost_transport.errors import SessionClosed, Unauthorized
from selfhost_transport.turns.chunks import TextDelta
from tests.e2e.stage import KEY, Stage, script
from tests.worker.session import numbered

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def in_thread(work: Callable[[str, str], None], stage: Stage) -> None:
    await asyncio.to_thread(work, stage.gateways[0].url, stage.session())


async def test_send_stream_cancel_interrupt(stage: Stage) -> None:
    def work(url: str, session: str) -> None:
        with SyncClientTransport(url, key=KEY, client_id="user-1", channel=session) as client:
            seen: list[RunInfo] = []
            client.on("turn", seen.append)
            turn = client.send(script(20, 100))
            text = "".join(part.delta for part in turn.stream if isinstance(part, TextDelta))
            assert text == turn.text == numbered(20)
            assert turn.wait(5) is turn.status is TurnStatus.COMPLETED and turn.error is None
            endless = client.send(script(5000, 50))
            assert client.active_turns["user-1"] == {endless.turn_id}
            with pytest.raises(TimeoutError):
                endless.wait(0.1)
            assert client.cancel().matched == (endless.turn_id,)
            assert endless.wait(5) is TurnStatus.CANCELLED
            first = client.send(script(5000, 50), id="first")
            second = client.interrupt(script(3, 0))
            client.wait_for_turn(timeout=5)
            assert (first.status, second.status) == (TurnStatus.CANCELLED, TurnStatus.COMPLETED)
            assert client.turn(second.turn_id or "").text == numbered(3)
            assert [shown.message.role for shown in client.messages].count("user") == 4
            assert [info.status for info in client.turns()][-1] is TurnStatus.COMPLETED
            assert seen and client.connected
        with pytest.raises(SessionClosed):
            client.send("too late")

    await in_thread(work, stage)


async def test_errors_are_raised_in_the_caller(stage: Stage) -> None:
    def work(url: str, session: str) -> None:
        with pytest.raises(Unauthorized):
            SyncClientTransport(url, key="test.key:wrong", channel=session)
        client = SyncClientTransport(url, key=KEY, client_id="user-1", channel=session)
        turn = client.send(script(100, 50))
        stream = turn.stream
        assert not isinstance(next(stream), StreamReset)
        client.close(cancel="own")
        client.close()

    await in_thread(work, stage)
