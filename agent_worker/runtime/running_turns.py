"""The turns that a worker runs: found by pushes, counted when they end, given back when it stops."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from agent_worker.agent.turn import AbortCause
from agent_worker.output.usage import Usage
from agent_worker.runtime.deadline import TurnLimits
from agent_worker.runtime.turn_run import TurnRun
from agent_worker.user_code.errors import described

logger = logging.getLogger(__name__)

_LONGEST_WAIT_S = 30.0
"""For how long a turn that is to run alone waits for others; then it runs beside them, and its loss does not count."""


class RunningTurns:
    """Starts attempts and keeps them until they end. `on_end` is called after each."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self.outcomes: Counter[str] = Counter()
        self.usage: dict[str, Usage] = {}
        self._on_end = on_end
        self._running: dict[tuple[int, str], TurnRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Aborted agents that have not returned yet; they can write nothing.
        self._unwinding: set[asyncio.Task[None]] = set()
        # A turn that is to run alone: what it waits for. Nothing is taken meanwhile.
        self._lone: tuple[TurnRun, asyncio.Future[bool]] | None = None

    def __len__(self) -> int:
        return len(self._running)

    @property
    def unwinding(self) -> int:
        """How many aborted agents have not returned yet."""
        return len(self._unwinding)

    @property
    def has_lone(self) -> bool:
        """Whether a turn runs, or waits to run, alone."""
        return self._lone is not None

    def all(self) -> list[TurnRun]:
        """The attempts that have not ended."""
        return list(self._running.values())

    def forget(self) -> None:
        """Forget the attempts of a run whose loop may be closed."""
        self._running, self._tasks, self._unwinding, self._lone = {}, set(), set(), None

    def start(self, run: TurnRun, limits: TurnLimits) -> None:
        """Run an attempt; one that is to be made alone, once the others have ended."""
        self._running[run.key] = run
        lease = run.lease
        alone = self._wait_alone(run) if lease.alone else None
        task = asyncio.create_task(run.run(limits, alone), name=f"turn {lease.turn_id}")
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._ended(run, task))

    def push(self, push: str, bucket: int, turn_id: str, fence: str) -> None:
        """Hand a push of the store to the attempt that it is for, if that is not over."""
        run = self._running.get((bucket, turn_id))
        if run is None or str(run.lease.fence) != fence:
            return
        match push:
            case "stop":
                run.abort(AbortCause.CANCELLED)
            case "ask":
                run.ask()
            case "input":
                run.on_input()

    async def drain(self, worker_id: str, grace_s: float) -> None:
        """Let running turns finish for the grace time, then give the others to another worker (DUR-12)."""
        if self._tasks:
            logger.info("worker.draining worker=%s turns=%d", worker_id, len(self._tasks))
            await asyncio.wait(set(self._tasks), timeout=grace_s)
        await asyncio.gather(*(run.hand_back() for run in self.all()), return_exceptions=True)
        left = {*self._tasks, *self._unwinding}
        if left:
            await asyncio.wait(left, timeout=grace_s)
        for task in {*self._tasks, *self._unwinding}:
            task.cancel()
        logger.info("worker.stopped worker=%s outcomes=%s", worker_id, dict(self.outcomes))

    def _ended(self, run: TurnRun, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        # A later attempt at the same turn may have taken its place.
        if self._running.get(run.key) is run:
            del self._running[run.key]
        if self._lone is not None and self._lone[0] is run:
            self._lone = None
        self._may_be_alone()
        self.outcomes[run.outcome] += 1
        name = run.agent.name
        self.usage[name] = self.usage.get(name, Usage()) + run.turn.usage
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error(
                "turn.crashed session=%s turn=%s", run.lease.session, run.lease.turn_id, exc_info=error
            )
        if run.handler is not None and not run.handler.done():
            self._unwinding.add(run.handler)
            run.handler.add_done_callback(self._unwound)
        self._on_end()

    def _unwound(self, handler: asyncio.Task[None]) -> None:
        self._unwinding.discard(handler)
        if not handler.cancelled() and (error := handler.exception()) is not None:
            logger.debug("turn.unwinding_failed task=%s error=%s", handler.get_name(), described(error))

    def _wait_alone(self, run: TurnRun) -> asyncio.Future[bool]:
        lease, loop = run.lease, asyncio.get_running_loop()
        alone: asyncio.Future[bool] = loop.create_future()
        logger.warning(
            "turn.alone session=%s turn=%s attempt=%d", lease.session, lease.turn_id, lease.attempt
        )
        self._lone = run, alone
        loop.call_later(_LONGEST_WAIT_S, _waited_too_long, alone)
        self._may_be_alone()
        return alone

    def _may_be_alone(self) -> None:
        """Let a turn begin that waits for the others to end."""
        if self._lone is not None and len(self._running) <= 1 and not self._lone[1].done():
            self._lone[1].set_result(True)


def _waited_too_long(alone: asyncio.Future[bool]) -> None:
    if not alone.done():
        alone.set_result(False)
