"""`dev`: Redis, gateway and worker as one process group, for the first hour and for local work."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

from selfhost_transport.commands.children import Child
from selfhost_transport.errors import ServiceError
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.settings import ENV_PREFIX, Settings


def run_dev(settings: Settings) -> None:
    """Run until SIGTERM or Ctrl-C. Raises ServiceError when a part fails; the others are stopped then."""
    asyncio.run(_Dev(settings).run())


class _Dev:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        async with AsyncExitStack() as stack:
            redis = self._settings.redis.url
            if not self._settings.redis.url_given:
                embedded = await stack.enter_async_context(EmbeddedRedis(self._settings.data_dir))
                redis = embedded.url
            # Stopped in the reverse order: the worker hands back its turns while the gateway still delivers.
            gateway = await self._started(stack, "gateway", redis, *self._listen())
            worker = await self._started(stack, "worker", redis)
            await self._serve(gateway, worker)

    async def _started(self, stack: AsyncExitStack, name: str, redis: str, *options: str) -> Child:
        child = await Child.start(
            name, ("--redis", redis, *self._config(), *options), {f"{ENV_PREFIX}DEV": "1"}
        )
        stack.push_async_callback(child.stop)
        return child

    async def _serve(self, *children: Child) -> None:
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        ended = {asyncio.create_task(child.ended(), name=child.name) for child in children}
        answering = asyncio.create_task(self._announce(children), name="ready")
        try:
            while not self._stop.is_set():
                done, _ = await asyncio.wait(
                    {stopped, answering, *ended}, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done & ended:
                    raise ServiceError(
                        f"the {task.get_name()} ended with status {task.result()}; stopping the rest"
                    )
                if answering in done:
                    answering.result()
                    await asyncio.wait({stopped, *ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stopped, answering, *ended):
                task.cancel()

    async def _announce(self, children: tuple[Child, ...]) -> None:
        url, _ = await asyncio.gather(*(child.ready() for child in children))
        print(f"ready {url}", flush=True)

    def _listen(self) -> tuple[str, ...]:
        gateway = self._settings.gateway
        return "--host", gateway.host, "--port", str(gateway.port), "--processes", str(gateway.processes)

    def _config(self) -> tuple[str, ...]:
        config = self._settings.config
        return () if config is None else ("--config", str(config))
