"""Sessions of the load generator, used as clients that verify everything they see."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from selfhost_transport.loadtest.clock import ClockOffset
from selfhost_transport.loadtest.histogram import Histogram, Summary
from selfhost_transport.loadtest.plan import Load, Target
from selfhost_transport.loadtest.recorder import Metric, Recorder
from selfhost_transport.loadtest.session import LoadSession
from selfhost_transport.loadtest.verify import AskedTurn

KEY = "app.key:secret"
_numbers = itertools.count(1)


def config(*, concurrency: int = 2000, window_ms: int = 40) -> str:
    """A deployment whose every namespace is answered by the scripted model."""
    return (
        '[[keys]]\nname = "app.key"\nsecret = "secret"\n\n[[namespaces]]\nid = "*"\nagent = "assistant"\n\n'
        # However slowly workers start on a busy machine, nothing is refused for it.
        "[limits]\nmax_wait_ms = 0\n\n"
        f"[worker]\nconcurrency = {concurrency}\nrollup_window_ms = {window_ms}\n"
    )


@dataclass
class Crowd:
    """A session with its viewers; what they see is in `recorder`."""

    session: LoadSession
    recorder: Recorder

    def broken(self) -> list[str]:
        """Every broken promise, readable."""
        return [f"{one.kind}: {one.detail}" for one in self.recorder.recording().violations]

    def summary(self, metric: Metric) -> Summary:
        """Figures of a metric, in ms."""
        encoded = self.recorder.recording().histograms.get(metric)
        return Summary() if encoded is None else Histogram.decode(encoded).summary()

    async def send(self, now: float, **options: object) -> AskedTurn:
        """A turn that was accepted."""
        turn = await self.session.send(now, **options)  # type: ignore[arg-type]
        assert turn is not None, self.broken()
        return turn

    async def wait_all(self, turns: list[AskedTurn]) -> None:
        """Until all have their terminal at every viewer."""
        await asyncio.gather(*(self.session.wait(turn) for turn in turns))


@asynccontextmanager
async def crowd(url: str, name: str, *, viewers: int = 1, patience_s: float = 150.0) -> AsyncIterator[Crowd]:
    """Connected and attached, recording from the beginning."""
    recorder = Recorder()
    recorder.begin()
    load = Load(turns=1, viewers=viewers, patience_s=patience_s, namespace=f"{name}-{next(_numbers)}")
    session = LoadSession(Target.parse([url], KEY, ""), load, "t", 0, recorder, ClockOffset(shared=True))
    await asyncio.gather(*(viewer.client.start() for viewer in session.viewers))
    try:
        yield Crowd(session, recorder)
    finally:
        await session.close()
