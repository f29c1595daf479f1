"""One generator process: opens its share of the sessions, runs them, and reports what it saw."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from selfhost_transport.descriptors import raise_descriptor_limit
from selfhost_transport.errors import TransportError
from selfhost_transport.gc_tuning import tune_gc
from selfhost_transport.loadtest.behaviour import behaviour_of, noisy, noisy_load
from selfhost_transport.loadtest.clock import ClockOffset
from selfhost_transport.loadtest.history import HistoryClient
from selfhost_transport.loadtest.plan import LoadShare, Scenario
from selfhost_transport.loadtest.recorder import Metric, Recorder, Recording, ViolationKind, add_up
from selfhost_transport.loadtest.session import LoadSession
from selfhost_transport.loadtest.window import Window, until

_OPENING_AT_ONCE = 32
_PROGRESS_S = 0.25
_LAG_TICK_S = 0.02


@dataclass(frozen=True, slots=True)
class Ready:
    """All sessions of the share are attached."""


@dataclass(frozen=True, slots=True)
class Go:
    """Start at this time, seconds since the epoch."""

    start: float


@dataclass(frozen=True, slots=True)
class ShareProgress:
    """How far a process is; counts since its start."""

    connected: int
    sent: int
    ended: int
    tokens: int
    violations: int


@dataclass(frozen=True, slots=True)
class ShareDone:
    """The outcome."""

    recording: Recording


@dataclass(frozen=True, slots=True)
class Failed:
    """The process could not do its part."""

    reason: str


Report = Ready | ShareProgress | ShareDone | Failed


def main(share: LoadShare, link: Connection) -> None:
    """Entry of a generator process."""
    raise_descriptor_limit()
    try:
        asyncio.run(Generator(share, link).run())
    except KeyboardInterrupt:
        return
    except (TransportError, OSError, TimeoutError) as error:
        link.send(Failed(str(error) or type(error).__name__))
    except ExceptionGroup as group:
        link.send(Failed(_first_reason(group)))


def _first_reason(group: BaseException) -> str:
    """What went wrong first: our own errors say it all, of others the name is needed too."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return str(group) if isinstance(group, TransportError) else repr(group)


class Generator:
    """The sessions of one share."""

    def __init__(self, share: LoadShare, link: Connection) -> None:
        self._share = share
        self._link = link
        self._recorder = Recorder()
        # The noisy session's own figures would hide those of its neighbours: only its violations count.
        self._apart = Recorder()
        self._connected = 0
        self._clock = ClockOffset(shared=share.target.same_machine)
        self._history: HistoryClient | None = None
        if share.load.any_text:
            self._history = HistoryClient(share.target)
        self._sessions = [
            LoadSession(
                share.target, share.load, share.run, number, self._recorder, self._clock, self._history
            )
            for number in range(share.first, share.first + share.count)
        ]

    async def run(self) -> None:
        """Open, wait for the start, run, close, report."""
        progress = asyncio.create_task(self._report())
        try:
            if not self._share.load.arrivals_per_s:
                await self._open_all(self._sessions)
            noise = await self._noise()
            tune_gc()
            self._link.send(Ready())
            go = await self._started()
            await self._run_window(Window.of(self._share.load, go.start), noise)
            recording = add_up([self._recorder.recording(), self._apart.recording()])
            recording.clock_uncertainty_s = self._clock.uncertainty_s
            self._link.send(ShareDone(recording))
        finally:
            progress.cancel()
            await asyncio.gather(progress, return_exceptions=True)
        await asyncio.gather(*(session.close() for session in (*self._sessions, *noise)))
        if self._history is not None:
            await self._history.close()

    async def _open_all(self, sessions: Sequence[LoadSession]) -> None:
        limit = asyncio.Semaphore(_OPENING_AT_ONCE)

        async def open_one(session: LoadSession) -> None:
            async with limit:
                await session.open()
                self._connected += len(session.viewers)

        # CONNECT and ATTACH are timed while the connections are made, before the window.
        self._recorder.begin()
        async with asyncio.TaskGroup() as group:
            for session in sessions:
                group.create_task(open_one(session))
        self._recorder.end()

    async def _noise(self) -> list[LoadSession]:
        share = self._share
        if share.load.scenario is not Scenario.NOISY or share.first:
            return []
        session = LoadSession(
            share.target, noisy_load(share.load), share.run, share.load.turns, self._apart, self._clock
        )
        await session.open()
        return [session]

    async def _started(self) -> Go:
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        loop.add_reader(self._link.fileno(), arrived.set)
        try:
            await arrived.wait()
        finally:
            loop.remove_reader(self._link.fileno())
        go: Any = self._link.recv()
        assert isinstance(go, Go)
        return go

    async def _run_window(self, window: Window, noise: list[LoadSession]) -> None:
        load = self._share.load
        behaviour = behaviour_of(load)
        ticking = asyncio.create_task(self._window(window))
        async with asyncio.TaskGroup() as group:
            for index, session in enumerate(self._sessions):
                number = self._share.first + index
                rng = random.Random(number)
                group.create_task(self._guarded(behaviour(session, load, window, rng, number / load.turns)))
            for session in noise:
                group.create_task(noisy(session, load, window, random.Random(0), 0.0))
        await ticking

    async def _guarded(self, work: Any) -> None:
        try:
            await work
        except TransportError as error:
            self._recorder.violation(ViolationKind.GENERATOR, "", "", str(error))

    async def _window(self, window: Window) -> None:
        """Switch recording on and off, and watch how punctual this process is in between."""
        await until(window.begin)
        self._recorder.begin()
        due = time.time()
        while (now := time.time()) < window.end:
            self._recorder.record(Metric.LAG, now - due)
            due = max(due, now) + _LAG_TICK_S
            await until(due)
        self._recorder.end()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_S)
            seen = (self._recorder, self._apart)
            self._link.send(
                ShareProgress(
                    self._connected,
                    sum(one.counters["turns_sent"] for one in seen),
                    sum(one.outcomes.total() for one in seen),
                    sum(one.tokens for one in seen),
                    sum(one.violation_counts.total() for one in seen),
                )
            )
