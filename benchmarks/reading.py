"""How long a worker's event loop is held up while it reads a long conversation for a model, and what that keeps.

    python -m benchmarks.reading [TURNS …]

Writes a conversation of so many turns into a Redis of its own, then reads the whole branch, and its last 20 messages.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import Awaitable
from typing import TypeVar

from agent_worker.agent.conversation import Conversation
from selfhost_transport.collector import calm_collector
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_store import Lease
from selfhost_transport.turns.context import context_for_input
from selfhost_transport.turns.inputs import InputIds, user_message
from selfhost_transport.turns.ui import TextPart
from tests.store.talks import AGENT, Talk

SESSION = "talk"
T = TypeVar("T")


class Neighbour:
    """Something else that the loop has to do: the longest time it was kept waiting, in seconds of this thread's CPU.

    So that other processes of the machine do not count.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.longest = max(self.longest, now - before)
            before = now

    async def stop(self) -> None:
        """No more measuring."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def write(sessions: SessionStore, turns: int) -> Conversation:
    """A conversation of so many turns, and the reading for the answer to one question more."""
    talk = Talk(sessions, SESSION)
    for number in range(turns):
        await talk.say(f"question {number}: " + "what about this? " * 5, pieces=20)
        if number % 10 == 0:
            await talk.note("an application's own")
    question = user_message([TextPart("last")], InputIds(), client_id="u", parent=talk.turns[-1].answer_id)
    published = await sessions.publish(SESSION, question)
    context = context_for_input(question[-1], session=SESSION, agent_client_id=AGENT)
    lease = Lease(SESSION, context.turn_id, 1, 1, 3, "", published.series, published.position, b"")
    return Conversation(sessions.history, lease, context)


async def measured(what: str, work: Awaitable[list[T]]) -> list[T]:
    """Print how long something takes, and the longest pause of the loop meanwhile."""
    neighbour, start = Neighbour(), time.thread_time()
    found = await work
    took = time.thread_time() - start
    await neighbour.stop()
    print(
        f"{what}: {len(found)} messages in {took * 1000:.0f} ms of CPU, longest pause {neighbour.longest * 1000:.1f} ms",
        end="",
    )
    print(f", {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most")
    return found


async def run(turns: int) -> None:
    """One conversation."""
    with EmbeddedRedis() as server:
        redis = RedisConnection(server.url)
        sessions = SessionStore(redis, Keyspace())
        conversation = await write(sessions, turns)
        calm_collector()
        print(f"{turns} turns")
        for what, last in (("  the last 20", 20), ("  whole branch", None), ("  whole branch again", None)):
            await measured(what, conversation.messages(last=last))
        await redis.close()


if __name__ == "__main__":
    for count in [int(text) for text in sys.argv[1:]] or [1200, 5000]:
        asyncio.run(run(count))
