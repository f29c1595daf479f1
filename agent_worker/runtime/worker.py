"""The worker: takes turns of its agents from the queue, runs them, and stops cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field, replace
from typing import TypedDict, TypeVar

from agent_worker.agent.agent import Agent, Handler, OnSteer
from agent_worker.agent.cancel_hook import CancelHook, HookFunction, Undecided
from agent_worker.output.flush_timer import FlushTimer
from agent_worker.output.usage import Usage
from agent_worker.output.writer import Hold, read_s_of
from agent_worker.runtime.abandonment import Abandonment
from agent_worker.runtime.control_channel import ControlChannel
from agent_worker.runtime.deadline import TurnLimits
from agent_worker.runtime.heartbeat import Heartbeat
from agent_worker.runtime.lease import LeaseKeeper, Reaper
from agent_worker.runtime.loop_guard import LoopGuard
from agent_worker.runtime.pace import TurnPace
from agent_worker.runtime.presence import AgentPresence
from agent_worker.runtime.queue_reader import QueueReader
from agent_worker.runtime.running_turns import RunningTurns
from agent_worker.runtime.turn_run import TurnRun, WorkerServices
from agent_worker.runtime.turn_times import TurnTimes
from agent_worker.user_code.containment import children_contained
from agent_worker.user_code.tasks import run_guarded
from agent_worker.user_code.threads import Threads
from selfhost_transport.errors import InvalidArgument, TransportError
from selfhost_transport.loop_lag import LoopLag
from selfhost_transport.settings import Settings, load_settings
from selfhost_transport.settings_values import CrashRule
from selfhost_transport.store.stores import Stores
from selfhost_transport.store.turn_store import Lease
from selfhost_transport.turns.codec import Codec
from selfhost_transport.turns.codecs import codec_named

logger = logging.getLogger(__name__)

HandlerT = TypeVar("HandlerT", bound=Handler)

_HOOK_MARGIN_MS = 500
"""By how much the store waits longer for a hook's decision than the worker does, which can tell more of it."""
_LOOK_AGAIN_S = 1.0
"""How often every queue is checked without a notification, by one of all workers."""
_LOOK_DUTY_MS = 700


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """What a worker is doing and has done. `outcomes`: finished attempts by how they went.

    `blocked`: how often its loop was blocked by user code, and for how many seconds altogether. `usage`: what the model
    calls of each agent used, of the attempts that have finished.
    """

    running: int
    unwinding: int
    outcomes: dict[str, int]
    blocked: tuple[int, float] = (0, 0.0)
    usage: dict[str, Usage] = field(default_factory=dict)


class Worker:
    """Serves any number of agents. Declare them with `agent`, then `await run()`.

    `settings` may be given as a Redis address; without, they are read from the environment (docs/configuration.md).
    """

    def __init__(
        self, settings: Settings | str | None = None, *, worker_id: str | None = None, once: bool = False
    ) -> None:
        self.settings = load_settings(redis=settings) if isinstance(settings, str) else settings
        self.times = TurnTimes()
        self.worker_id = worker_id or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        # Stop by itself once nothing is left to be worked on; for jobs that are started from time to time.
        self.once = once
        # Its models cost nothing, whatever the settings say.
        self.free_models = False
        self.agents: dict[str, Agent] = {}
        # Set once it takes turns.
        self.ready = asyncio.Event()
        self._stop = asyncio.Event()
        self._stopped = False
        self._running = RunningTurns(self._turn_ended)
        self._lag = LoopLag()
        self._pace = TurnPace(lambda: self._lag.seconds)
        self._guard: LoopGuard | None = None

    def __repr__(self) -> str:
        return f"<Worker {self.worker_id} of {', '.join(self.agents) or 'no agents'}: {len(self._running)} turns>"

    def agent(
        self,
        name: str,
        *,
        on_crash: CrashRule | str | None = None,
        max_attempts: int | None = None,
        retry_errors: bool | None = None,
        deadline_s: float | None = None,
        silence_s: float | None = None,
        on_steer: OnSteer | str = OnSteer.NEXT_PASS,
        presence: bool = False,
        codec: Codec | str | None = None,
    ) -> Callable[[HandlerT], HandlerT]:
        """Declare the function that works on the turns of agent `name`.

        `on_crash`: what follows when its worker is lost. `max_attempts`: tries per turn. `retry_errors`: whether
        an attempt that raised is tried again too. `deadline_s`: longest time a turn may be active; `silence_s`:
        longest time without output. `on_steer`: whether a message into the turn cuts the model's call off.
        `presence`: whether sessions see that it is thinking, streaming or idle. `codec`: what its answers are written
        in, by name or one's own; without it, the codec of the request. What is not given is decided by the
        namespace and the settings. Raises InvalidArgument for a name declared twice.
        """
        if name in self.agents:
            raise InvalidArgument(f"the agent {name!r} is declared twice")
        crash_rule = None if on_crash is None else CrashRule(on_crash)
        chosen = None if codec is None else codec_named(codec)

        def declare(handler: HandlerT) -> HandlerT:
            self.agents[name] = Agent(
                name,
                handler,
                crash_rule,
                max_attempts,
                retry_errors,
                deadline_s,
                silence_s,
                OnSteer(on_steer),
                presence,
                codec=chosen,
            )
            return handler

        return declare

    def on_cancel(
        self, agent: str, *, undecided: Undecided | str = Undecided.ALLOW, grace_s: float = 1.0
    ) -> Callable[[HookFunction], HookFunction]:
        """Declare the hook that is asked before a turn of `agent` is cancelled; the agent is declared first.

        `undecided`: what a hook counts as that raises, or takes longer than `grace_s` seconds. Raises InvalidArgument
        for an agent that is not declared, and for a grace of 0 or more than 8 seconds.
        """
        if agent not in self.agents:
            raise InvalidArgument(f"there is no agent {agent!r} yet; declare it before its hook")

        def declare(function: HookFunction) -> HookFunction:
            hook = CancelHook(function, Undecided(undecided), grace_s)
            self.agents[agent] = replace(self.agents[agent], on_cancel=hook)
            return function

        return declare

    @property
    def running(self) -> int:
        """Turns being worked on."""
        return len(self._running)

    @property
    def stopped(self) -> bool:
        """Whether `run` has been left, with all turns finished or handed back."""
        return self._stopped

    def statistics(self) -> WorkerStatistics:
        """A snapshot, for metrics and logs."""
        guard, running = self._guard, self._running
        blocked = (guard.blocked_count, guard.blocked_s) if guard else (0, 0.0)
        return WorkerStatistics(
            self.running, running.unwinding, dict(running.outcomes), blocked, dict(running.usage)
        )

    def stop(self) -> None:
        """Take no more turns; after the grace time, hand back what still runs. `run` then returns."""
        self._stop.set()

    async def run(self) -> None:
        """Work until `stop`; may be called again once it has returned, in another event loop too.

        Raises InvalidArgument without agents, StoreUnavailable, StoreUnsuitable at start.
        """
        if not self.agents:
            raise InvalidArgument("the worker serves no agent; declare one with @worker.agent(name)")
        settings = self.settings = self.settings or load_settings()
        if self._stopped:
            self._begin_again()
        await run_guarded(self._run(settings))

    async def _run(self, settings: Settings) -> None:
        try:
            stores = await Stores.open(settings, read_s=read_s_of(settings))
            try:
                await self._work(stores.settings, stores)
            finally:
                await stores.close()
        finally:
            self._stopped = True
            # Waiters for the next run must not be released by this one.
            self.ready = asyncio.Event()

    def _begin_again(self) -> None:
        """Forget the last run, whose loop may be closed, and the `stop` that ended it."""
        self._stopped, self._stop = False, asyncio.Event()
        self._running.forget()

    async def _work(self, settings: Settings, stores: Stores) -> None:
        _warn_of_unbound(settings, self.agents)
        keys, threads = stores.keys, Threads(settings.worker.concurrency)
        presence = AgentPresence(stores.presence, self.worker_id, stores.options.presence_lease_ms)
        self._services = WorkerServices(
            turns=stores.turns,
            pauses=stores.pauses,
            inputs=stores.inputs,
            presence=presence,
            crash_rule=lambda session: settings.namespace_for(session).on_crash,
            history=stores.history,
            flush_timer=FlushTimer(settings.worker.rollup_window_ms),
            threads=threads,
            retry_errors=settings.worker.retry_errors,
            times=self.times,
        )
        pairs = [(bucket, name) for bucket in range(keys.buckets) for name in self.agents]
        queue_reader = self._queue_reader = QueueReader(
            pairs, self._take, self._room, self._found_empty, stores.turns.call_again
        )
        subscriber = stores.subscriber(on_reconnect=queue_reader.look_into_all)
        control = ControlChannel(self.worker_id, self._running.push, self._called, self._drain_asked)
        try:
            await control.subscribe_all(subscriber, keys.bases())
            lease_ms = settings.worker.lease_ms
            keeper = LeaseKeeper(stores.turns, lease_ms, self._running.all)
            reaper = Reaper(stores.turns, stores.pauses, stores.duties, lease_ms)
            heartbeat = Heartbeat(
                stores.fleet, self.worker_id, self.agents, lease_ms,
                free_models=self.free_models or settings.worker.free_models,
            )  # fmt: skip
            self._guard = LoopGuard(lambda: Stores.build(settings), lease_ms, self._running.all)
            with self._guard, children_contained():
                await self._serve(settings, stores, queue_reader, keeper, reaper, heartbeat)
        finally:
            threads.close()
            await subscriber.close()

    async def _serve(
        self,
        settings: Settings,
        stores: Stores,
        queue_reader: QueueReader,
        keeper: LeaseKeeper,
        reaper: Reaper,
        heartbeat: Heartbeat,
    ) -> None:
        loops = [
            asyncio.create_task(heartbeat.beat(), name="heartbeat"),
            asyncio.create_task(self._services.presence.keep(), name="presence"),
            asyncio.create_task(keeper.keep(), name="lease-keeper"),
            asyncio.create_task(reaper.watch(), name="reaper"),
            asyncio.create_task(self._look_again(stores), name="look-again"),
            asyncio.create_task(queue_reader.forward(), name="forward-calls"),
        ]
        if abandoned := _abandonment(settings, stores, self._running.all):
            loops.append(asyncio.create_task(abandoned, name="abandonment"))
        self._lag.start()
        taking = asyncio.create_task(queue_reader.work(), name="queue_reader")
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        logger.info("worker.ready worker=%s agents=%s", self.worker_id, ",".join(self.agents))
        self.ready.set()
        try:
            await asyncio.wait({stopped, taking, *loops}, return_when=asyncio.FIRST_COMPLETED)
            queue_reader.stop()
            await taking
            loops[0].cancel()
            await heartbeat.announce(0)
            for loop in loops:
                if loop.done() and not loop.cancelled():
                    loop.result()
            await self._running.drain(self.worker_id, settings.worker.grace_ms / 1000)
            await self._services.presence.close()
        finally:
            self._lag.stop()
            for task in (stopped, taking, *loops):
                task.cancel()
            await asyncio.gather(stopped, taking, *loops, return_exceptions=True)

    async def _take(self, bucket: int, name: str, spare: bool) -> bool:
        assert self.settings is not None
        agent, lease_ms = self.agents[name], self.settings.worker.lease_ms
        asked = time.monotonic()
        lease = await self._services.turns.take(
            bucket, name, self.worker_id, lease_ms,
            max_attempts=agent.max_attempts, on_crash=agent.on_crash or "", spare=spare,
            **_hook_options(agent.on_cancel),
        )  # fmt: skip
        if lease is None:
            return False
        if lease.alone and self._running.has_lone:
            # One at a time; the queue has others in front of it now.
            await self._services.turns.hand_back(bucket, lease)
            # Without room for another one this process was not noted as waiting, so it looks into the queue once it has.
            return lease.more or not spare
        try:
            self._start(agent, lease, bucket, Hold(asked + lease_ms / 1000))
        except Exception:
            # Its lease runs out, and in the end the turn with it; the others are not to suffer for it.
            logger.exception("turn.not_started session=%s turn=%s", lease.session, lease.turn_id)
        return lease.more or not spare

    def _start(self, agent: Agent, lease: Lease, bucket: int, hold: Hold) -> None:
        assert self.settings is not None
        run = TurnRun(agent, lease, bucket, hold, self._services)
        deadline_s = agent.deadline_s
        if deadline_s is None:
            deadline_s = self.settings.namespace_for(lease.session).deadline.total_seconds()
        self._running.start(run, TurnLimits(deadline_s, agent.silence_s or 0.0))

    def _turn_ended(self) -> None:
        if self.once:
            # It may have been put back into its queue, or have let another one start.
            self._queue_reader.look_into_all()
        self._queue_reader.room_made()

    def _found_empty(self) -> None:
        """Whether all queues are empty."""
        if self.once and not self._running:
            self.stop()

    def _room(self) -> int:
        assert self.settings is not None
        if self._running.has_lone:
            return 0
        return self._pace.room(len(self._running), self.settings.worker.concurrency)

    def _called(self, bucket: int, agent: str, to_few: bool) -> None:
        if agent in self.agents:
            self._queue_reader.note_call(bucket, agent, to_few=to_few)

    def _drain_asked(self) -> None:
        logger.info("worker.drain_asked worker=%s", self.worker_id)
        self.stop()

    async def _look_again(self, stores: Stores) -> None:
        """Call others for the turns that wait: those that were called may be frozen, or a notification was lost."""
        while True:
            await asyncio.sleep(_LOOK_AGAIN_S)
            for agent in self.agents:
                with contextlib.suppress(TransportError):  # tried again, and said by what depends on it
                    if await stores.duties.falls_to_me(f"look:{agent}", _LOOK_DUTY_MS):
                        waiting = await stores.duties.buckets_with_turns(agent)
                        await asyncio.gather(*(stores.turns.call_again(bucket, agent) for bucket in waiting))


def _abandonment(
    settings: Settings, stores: Stores, running: Callable[[], list[TurnRun]]
) -> Coroutine[None, None, None] | None:
    """The check for abandoned turns; None where no namespace has the setting (PRE-10)."""
    limits = [rule.abandon_after.total_seconds() for rule in settings.namespaces if rule.abandon_after]
    if not limits:
        return None
    watch = Abandonment(
        stores.turns,
        stores.occupancy,
        lambda session: settings.namespace_for(session).abandon_after.total_seconds(),
        running,
    )
    return watch.watch(min(limits))


def _warn_of_unbound(settings: Settings, agents: Collection[str]) -> None:
    """Agents that no namespace names get no turns; without namespaces the gateways alone know who is bound."""
    bound = {rule.agent for rule in settings.namespaces if rule.agent}
    if bound and (unbound := set(agents) - bound):
        logger.warning(
            "worker.agent_not_bound agents=%s bound=%s: no [[namespaces]] of the configuration names it",
            ",".join(sorted(unbound)), ",".join(sorted(bound)),
        )  # fmt: skip


class _HookOptions(TypedDict, total=False):
    hook_grace_ms: int
    hook_default: str


def _hook_options(hook: CancelHook | None) -> _HookOptions:
    """The hook's settings that `take` passes on."""
    if hook is None:
        return {}
    return {"hook_grace_ms": int(hook.grace_s * 1000) + _HOOK_MARGIN_MS, "hook_default": hook.undecided.value}
