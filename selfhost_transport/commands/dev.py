"""`dev`: Redis, gateway and worker as one process group, for the first hour and for local work."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from selfhost_transport.commands.children import Child
from selfhost_transport.commands.dev_folder import DevFolder
from selfhost_transport.errors import InvalidArgument, ServiceError
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.redis_io.preflight import check_way_in
from selfhost_transport.settings import ENV_PREFIX, Settings


def run_dev(settings: Settings, target: str | None = None, agents: Sequence[str] = ()) -> None:
    """Run until SIGTERM or Ctrl-C. A worker that dies is replaced.

    `target`: the worker to run, as MODULE:OBJECT; without, the scripted model. `agents`: the names it serves. Raises
    ServiceError when another part fails; the rest is stopped then. Raises InvalidArgument when it is open which agent
    is to answer.
    """
    asyncio.run(_Dev(settings, target, _agent_of(settings, target, agents)).run())


def _agent_of(settings: Settings, target: str | None, agents: Sequence[str]) -> str:
    """The agent that answers in every session, where no namespace is configured."""
    preferred = settings.gateway.dev_agent
    if target is None or settings.namespaces or preferred in agents:
        return preferred
    if len(agents) == 1:
        return agents[0]
    if not agents:
        raise InvalidArgument(f"{target!r} declares no agent: decorate a function with `@worker.agent(name)`")
    raise InvalidArgument(
        f"{target!r} has the agents {', '.join(sorted(agents))}: name the one to talk to in "
        f"{ENV_PREFIX}DEV_AGENT, or bind each to a namespace in a file given by --config"
    )


class _Dev:
    def __init__(self, settings: Settings, target: str | None, agent: str) -> None:
        self._settings = settings
        self._target = () if target is None else (target,)
        self._agent = agent
        self._stop = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        async with AsyncExitStack() as stack:
            redis = self._settings.redis.url
            folder: DevFolder | None = None
            if self._settings.redis.url_given:
                await check_way_in(redis)
            else:
                folder = stack.enter_context(DevFolder(self._settings.data_dir))
                embedded = await stack.enter_async_context(EmbeddedRedis(self._settings.data_dir))
                redis = embedded.url
                # Its port is another one each time; doctor, inspect and cancel need it.
                print(f"redis {redis}", flush=True)
            # Stopped in the reverse order: the worker hands back its turns while the gateway still delivers.
            gateway = await self._started(stack, "gateway", redis, *self._listen())
            worker = await self._started(stack, "worker", redis, *self._target)
            if await self._announced(gateway, worker):
                if folder is not None:
                    folder.describe(url=await gateway.ready(), redis=redis)
                await self._serve(stack, redis, gateway, worker)

    async def _started(self, stack: AsyncExitStack, name: str, redis: str, *options: str) -> Child:
        child = await Child.start(
            # The address may hold a password, and every user of the machine can read arguments.
            name,
            (*self._config(), *options),
            {
                f"{ENV_PREFIX}DEV": "1",
                f"{ENV_PREFIX}DEV_AGENT": self._agent,
                f"{ENV_PREFIX}REDIS": redis,
                f"{ENV_PREFIX}LOG_FORMAT": self._settings.log.format,
            },
        )
        stack.push_async_callback(child.stop)
        return child

    async def _announced(self, gateway: Child, worker: Child) -> bool:
        """Announce that everything is ready; False if stopped before."""
        ready = asyncio.gather(gateway.ready(), worker.ready())
        if not await self._unless_stopped(ready):
            return False
        print(f"ready {ready.result()[0]}", flush=True)
        return True

    async def _serve(self, stack: AsyncExitStack, redis: str, gateway: Child, worker: Child) -> None:
        """Run until stopped. A dead worker is replaced, as in production: its turns continue."""
        gateway_ends = asyncio.ensure_future(gateway.ended())
        while await self._unless_stopped(gateway_ends, worker_ends := asyncio.ensure_future(worker.ended())):
            if gateway_ends.done():
                raise ServiceError(
                    f"the gateway ended with status {gateway_ends.result()}; stopping the rest"
                )
            status = worker_ends.result()
            print(f"the worker ended with status {status}; starting another one", file=sys.stderr, flush=True)
            worker = await self._started(stack, "worker", redis, *self._target)
            # One that cannot even start will not get better by trying: its error ends the command.
            if not await self._unless_stopped(asyncio.ensure_future(worker.ready())):
                return

    async def _unless_stopped(self, *events: asyncio.Future[Any]) -> bool:
        """Wait for the first of the events; False if stopped before. Raises the event's error."""
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait({stopped, *events}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        if self._stop.is_set():
            for event in events:
                event.cancel()
            return False
        for event in events:
            if event.done():
                event.result()
        return True

    def _listen(self) -> tuple[str, ...]:
        gateway = self._settings.gateway
        return "--host", gateway.host, "--port", str(gateway.port), "--processes", str(gateway.processes)

    def _config(self) -> tuple[str, ...]:
        config = self._settings.config
        return () if config is None else ("--config", str(config))
