"""The generator processes of a run, seen from the process that started them."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from selfhost_transport.errors import ServiceError
from selfhost_transport.loadtest import generator
from selfhost_transport.loadtest.plan import LoadShare
from selfhost_transport.loadtest.recorder import Recording, add_up

_TICK_S = 0.25
_NOTHING = generator.ShareProgress(0, 0, 0, 0, 0)


@dataclass(slots=True)
class _Member:
    process: BaseProcess
    link: Connection
    progress: generator.ShareProgress = _NOTHING
    ready: bool = False
    recording: Recording | None = None


@dataclass(slots=True)
class LoadProcesses:
    """Starts one process per share. `on_tick` is called several times a second with the progress of all."""

    shares: Sequence[LoadShare]
    on_tick: Callable[[generator.ShareProgress], None]
    _members: list[_Member] = field(default_factory=list)

    @property
    def pids(self) -> list[int]:
        """The running generator processes."""
        return [member.process.pid for member in self._members if member.process.pid is not None]

    def start(self) -> None:
        """Start the processes; they begin to connect."""
        context = multiprocessing.get_context("spawn")
        for share in self.shares:
            ours, theirs = context.Pipe()
            process = context.Process(target=generator.main, args=(share, theirs), daemon=True)
            process.start()
            theirs.close()
            self._members.append(_Member(process, ours))

    def wait_ready(self) -> None:
        """Until every session is attached. Raises ServiceError with the reason of a process that failed."""
        while not all(member.ready for member in self._members):
            self._receive()

    def go(self, start: float) -> None:
        """Let all begin at a time, seconds since the epoch."""
        for member in self._members:
            member.link.send(generator.Go(start))

    def wait_done(self) -> Recording:
        """Until all have reported. Raises ServiceError."""
        while any(member.recording is None for member in self._members):
            self._receive()
        return add_up([member.recording for member in self._members if member.recording is not None])

    def stop(self) -> None:
        """End the processes, however far they are."""
        for member in self._members:
            member.process.terminate()
        for member in self._members:
            member.process.join()
            member.link.close()

    def _receive(self) -> None:
        links = {member.link: member for member in self._members if member.recording is None}
        deadline = time.monotonic() + _TICK_S
        for link in wait(list(links), _TICK_S):
            assert isinstance(link, Connection)
            self._take(links[link])
        # Reports come in bursts; a tick is never more often than it says.
        time.sleep(max(0.0, deadline - time.monotonic()))
        self.on_tick(self._total())

    def _take(self, member: _Member) -> None:
        while member.recording is None and member.link.poll():
            try:
                report: Any = member.link.recv()
            except EOFError:
                raise ServiceError("a generator process ended unexpectedly") from None
            match report:
                case generator.Ready():
                    member.ready = True
                case generator.ShareProgress():
                    member.progress = report
                case generator.ShareDone():
                    member.recording = report.recording
                case generator.Failed():
                    raise ServiceError(f"the load could not be generated: {report.reason}")

    def _total(self) -> generator.ShareProgress:
        reports = [member.progress for member in self._members]
        return generator.ShareProgress(
            sum(one.connected for one in reports),
            sum(one.sent for one in reports),
            sum(one.ended for one in reports),
            sum(one.tokens for one in reports),
            sum(one.violations for one in reports),
        )
