"""Agents without a queue of their own: a process that a workflow engine runs starts turns, and adopts them."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType

from agent_worker.agent.turn import AbortCause
from agent_worker.output.flush_timer import FlushTimer
from agent_worker.output.writer import Hold, read_s_of
from agent_worker.runtime.control_listener import ControlListener
from agent_worker.runtime.heartbeat import Heartbeat
from agent_worker.runtime.lease import LeaseKeeper, Reaper
from agent_worker.runtime.presence import AgentPresence
from agent_worker.user_code.threads import Threads
from agent_worker.workflow.held_turn import HeldServices, HeldTurn
from agent_worker.workflow.session import AgentSession
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.settings import Settings, load_settings
from selfhost_transport.store.keys import bucket_of
from selfhost_transport.store.stores import Stores
from selfhost_transport.store.turn_steps import Arrival, Holding, TurnHolder

logger = logging.getLogger(__name__)

ADOPTION_WINDOW_S = 300.0
"""How long a turn waits for the next process by default, before it ends `error`."""

Take = Callable[..., Awaitable[Holding | None]]


class AgentHost:
    """Holds turns of any number of sessions, as a context manager: renews their leases, receives their cancels.

    `settings` may be given as a Redis address; without, they are read from the environment (docs/configuration.md).
    `adoption_window_s`: how long a turn that was detached, or whose process was lost, may be adopted; then it counts as
    crashed, ends `error` and leaves a dead letter. Turns that are still held at the end of the block are detached.
    """

    def __init__(
        self,
        settings: Settings | str | None = None,
        *,
        host_id: str | None = None,
        adoption_window_s: float = ADOPTION_WINDOW_S,
    ) -> None:
        if adoption_window_s <= 0:
            raise InvalidArgument("the adoption window is a number of seconds above 0")
        self.settings = load_settings(redis=settings) if isinstance(settings, str) else settings
        self.host_id = host_id or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._window_ms = int(adoption_window_s * 1000)
        self._held: dict[tuple[int, str], HeldTurn] = {}
        self._stack = AsyncExitStack()
        # What runs until the end of the block.
        self._loops: list[asyncio.Task[None]] = []

    @property
    def turns(self) -> list[HeldTurn]:
        """The turns in this process's hands."""
        return list(self._held.values())

    def session(self, name: str) -> AgentSession:
        """A session, by its name."""
        return AgentSession(self, name)

    async def __aenter__(self) -> AgentHost:
        settings = self.settings = self.settings or load_settings()
        stores = await Stores.open(settings, read_s=read_s_of(settings))
        self._stack.push_async_callback(stores.close)
        try:
            self._begin(stores.settings, stores)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def arrivals(self, agent: str) -> AsyncGenerator[Arrival, None]:
        """Turns that wait for an agent, as they arrive, without taking them: for starting workflows.

        Each is yielded once in the life of the iterator, and again by the next one until it was created; so the engine
        has to tell a workflow by its turn id. While it runs, people who send see that the agent is served.
        """
        serving = Heartbeat(self._fleet, self.host_id, (agent,), self._lease_ms)
        beating = asyncio.create_task(serving.beat(), name="heartbeat")
        self._loops.append(beating)
        seen = dict.fromkeys(range(self._keys.buckets), "0")
        try:
            async with self.control.arrivals(agent) as arrived:
                while True:
                    arrived.clear()
                    for bucket in seen:
                        while found := await self.steps.waiting(bucket, agent, seen[bucket]):
                            for arrival in found:
                                seen[bucket] = arrival.item
                                yield arrival
                    await arrived.wait()
        finally:
            self._loops.remove(beating)
            await _end_all([beating])
            await serving.announce(0)

    # For sessions

    async def claim(self, session: str, turn_id: str) -> HeldTurn | None:
        """Start a turn; None while it cannot be started. Raises as `TurnSteps.claim`."""
        return await self._take(self.steps.claim, session, turn_id, adopted=False)

    async def adopt(self, session: str, turn_id: str) -> HeldTurn | None:
        """Take over a turn; None while it was not started. Raises as `TurnSteps.adopt`."""
        return await self._take(self.steps.adopt, session, turn_id, adopted=True)

    def _begin(self, settings: Settings, stores: Stores) -> None:
        self._keys = stores.keys
        self._lease_ms = settings.worker.lease_ms
        self.steps = stores.steps
        self._fleet = stores.fleet
        self.control = ControlListener(settings.redis.url, stores.keys, self.host_id, self._stop)
        self._stack.push_async_callback(self.control.close)
        turns, pauses = stores.turns, stores.pauses
        threads = Threads(settings.worker.concurrency)
        self._stack.callback(threads.close)
        presence = AgentPresence(stores.presence, self.host_id, stores.options.presence_lease_ms)
        self._services = HeldServices(
            turns=turns,
            steps=self.steps,
            pauses=pauses,
            inputs=stores.inputs,
            history=stores.history,
            presence=presence,
            flush_timer=FlushTimer(settings.worker.rollup_window_ms),
            threads=threads,
            window_ms=self._window_ms,
            released=self._released,
        )
        keeper = LeaseKeeper(turns, self._lease_ms, lambda: self.turns)
        reaper = Reaper(turns, pauses, stores.duties, self._lease_ms)
        self._loops += [
            asyncio.create_task(keeper.keep(), name="lease-keeper"),
            asyncio.create_task(reaper.watch(), name="reaper"),
            asyncio.create_task(presence.keep(), name="presence"),
        ]
        self._stack.push_async_callback(_end_all, self._loops)
        self._stack.push_async_callback(presence.close)
        self._stack.push_async_callback(self._give_up_all)

    async def _take(self, take: Take, session: str, turn_id: str, *, adopted: bool) -> HeldTurn | None:
        bucket = bucket_of(session, self._keys.buckets)
        await self.control.subscribe(bucket)
        holder = TurnHolder(self.host_id, secrets.token_hex(8), self._lease_ms, self._window_ms)
        asked = time.monotonic()
        hold = Hold(asked + self._lease_ms / 1000)
        holding = await take(session, turn_id, holder, retry_s=hold.retry_s)
        if holding is None:
            return None
        turn = HeldTurn(holding, bucket, hold, self._services, adopted=adopted)
        self._held[bucket, turn_id] = turn
        logger.info("turn.%s session=%s turn=%s", "adopted" if adopted else "created", session, turn_id)
        return turn

    def _stop(self, bucket: int, turn_id: str, fence: str) -> None:
        turn = self._held.get((bucket, turn_id))
        if turn is not None and str(turn.lease.fence) == fence:
            turn.abort(AbortCause.CANCELLED)

    def _released(self, turn: HeldTurn) -> None:
        # A later adoption by the same process may have taken its place.
        if self._held.get((turn.bucket, turn.turn_id)) is turn:
            del self._held[turn.bucket, turn.turn_id]

    async def _give_up_all(self) -> None:
        for turn in self.turns:
            await turn.give_up()


async def _end_all(loops: list[asyncio.Task[None]]) -> None:
    """Stop the background tasks. Raises the error of one that failed before."""
    for loop in loops:
        loop.cancel()
    for result in await asyncio.gather(*loops, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
