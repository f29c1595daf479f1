"""The synchronous client, in a thread that has no event loop (SDK-3)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
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


FORKED = """
import os, sys
from selfhost_transport import SyncClientTransport
from selfhost_transport.errors import SessionClosed
url, key, channel = sys.argv[1:]
client = SyncClientTransport(url, key=key, client_id="user-1", channel=channel)
turn = client.send("hello")
turn.wait(10)
if (pid := os.fork()) == 0:
    refused = []
    for call in (lambda: client.send("again"), lambda: client.messages, lambda: turn.text, lambda: client.connected):
        try:
            call()
        except SessionClosed as error:
            refused.append("forked" in str(error) and "connect in the child" in str(error))
    client.close()
    os._exit(0 if refused == [True] * 4 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "the child was not refused"
assert client.send("the parent goes on").wait(10).value == "completed"
client.close()
"""


async def test_a_client_made_before_a_fork_says_so_in_the_child(stage: Stage) -> None:
    def work(url: str, session: str) -> None:
        command = [sys.executable, "-c", FORKED, url, KEY, session]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stdout + ran.stderr

    await in_thread(work, stage)
