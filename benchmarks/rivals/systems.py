"""The systems that are compared: what each needs on this machine, and how it is started.

Each is one server process with one worker, a process that produces the tokens, and Redis where the system has a
use for it; nothing is kept on disk. Settings are the defaults, except for limits that the load would run into.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import httpx
import psutil

from benchmarks.native_programs import READY_TIMEOUT_S, Program
from benchmarks.rivals.load import RivalLoad
from selfhost_transport.redis_io.embedded import EmbeddedRedis

FOLDER = Path(__file__).parent
_NCHAN_PLACES = ("/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/lib64/nginx/modules/ngx_nchan_module.so")
_CONNECTIONS = 8192


@dataclass(frozen=True, slots=True)
class Running:
    """A system that answers. `url` has TURN where the number of the turn goes; processes by role."""

    url: str
    publisher: Program
    processes: dict[str, list[int]]


class System(Protocol):
    """One of the compared."""

    name: str

    def missing(self) -> str:
        """What has to be installed, as an instruction; empty when everything is there."""

    async def start(self, stack: AsyncExitStack, load: RivalLoad) -> Running:
        """Start it; the stack stops it."""


class SocketIo:
    """socket.io with the adapter that goes through Redis streams."""

    name = "socket.io"

    def missing(self) -> str:
        """Node and its packages."""
        return node_missing()

    async def start(self, stack: AsyncExitStack, load: RivalLoad) -> Running:
        """Redis, a server for the viewers, a server without clients that emits."""
        redis = stack.enter_context(EmbeddedRedis())
        gateway = await started(stack, "node", str(FOLDER / "gateway.mjs"), redis.url)
        port = await gateway.line()
        publisher = await started(stack, "node", str(FOLDER / "publisher.mjs"), redis.url, load.argument())
        return Running(
            f"ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket&session=sTURN",
            publisher,
            {"gateway": [gateway.pid], "worker": [publisher.pid], "redis": [redis.pid]},
        )


class Nchan:
    """nginx with nchan, messages in Redis."""

    name = "nchan"

    def missing(self) -> str:
        """nginx and the module."""
        if _program("nginx") and _nchan_module():
            return ""
        return "apt-get install nginx libnginx-mod-nchan"

    async def start(self, stack: AsyncExitStack, load: RivalLoad) -> Running:
        """Redis, nginx with one worker process, a publisher that speaks HTTP."""
        redis = stack.enter_context(EmbeddedRedis())
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="benchmarks-")))
        port = _free_port()
        config = folder / "nginx.conf"
        config.write_text(_nginx(folder, port, redis.url))
        nginx = await started(stack, _program("nginx"), "-p", str(folder), "-c", str(config))
        await _listening(port)
        await _publishes(f"http://127.0.0.1:{port}/pub/ready")
        publisher = await _python_publisher(stack, "nchan", port, load)
        workers = [child.pid for child in psutil.Process(nginx.pid).children()]
        return Running(
            f"ws://127.0.0.1:{port}/sub/sTURN",
            publisher,
            {"gateway": [nginx.pid, *workers], "worker": [publisher.pid], "redis": [redis.pid]},
        )


class Mosquitto:
    """mosquitto, an MQTT broker in C: nothing is stored. Viewers over websockets, as a page would."""

    name = "mosquitto"

    def missing(self) -> str:
        """mosquitto."""
        return "" if _program("mosquitto") else "apt-get install mosquitto"

    async def start(self, stack: AsyncExitStack, load: RivalLoad) -> Running:
        """The broker, and a publisher that speaks MQTT."""
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="benchmarks-")))
        plain, websockets = _free_port(), _free_port()
        config = folder / "mosquitto.conf"
        config.write_text(
            f"{'user root' if os.geteuid() == 0 else ''}\nallow_anonymous true\npersistence false\n"
            f"max_queued_messages 0\nset_tcp_nodelay true\nlog_type none\nlistener {plain} 127.0.0.1\n"
            f"listener {websockets} 127.0.0.1\nprotocol websockets\n"
        )
        broker = await started(stack, _program("mosquitto"), "-c", str(config))
        await _listening(plain)
        await _listening(websockets)
        publisher = await _python_publisher(stack, "mosquitto", plain, load)
        return Running(
            f"ws://127.0.0.1:{websockets}/",
            publisher,
            {"gateway": [broker.pid], "worker": [publisher.pid]},
        )


SYSTEMS: tuple[System, ...] = (SocketIo(), Nchan(), Mosquitto())


def node_missing() -> str:
    """What the Node systems need; empty when it is there."""
    if shutil.which("node") is None:
        return "install Node 20 or newer"
    return "" if (FOLDER / "node_modules").is_dir() else f"npm ci --prefix {FOLDER}"


async def started(stack: AsyncExitStack, *command: str) -> Program:
    """A process that the stack ends."""
    program = await Program.start(*command)
    stack.push_async_callback(program.stop)
    return program


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def _listening(port: int) -> None:
    """Until a server that says nothing accepts connections. Raises TimeoutError."""
    async with asyncio.timeout(READY_TIMEOUT_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return


async def _publishes(url: str) -> None:
    """Until nchan has reached Redis; it refuses everything before. Raises TimeoutError."""
    async with httpx.AsyncClient() as client, asyncio.timeout(READY_TIMEOUT_S):
        while not (await client.post(url, content=b"ready")).is_success:  # noqa: ASYNC110 - it tells no one
            await asyncio.sleep(0.05)


async def _python_publisher(stack: AsyncExitStack, kind: str, port: int, load: RivalLoad) -> Program:
    return await started(
        stack, sys.executable, "-m", "benchmarks.rivals.publisher", kind, str(port), load.argument()
    )


def _program(name: str) -> str:
    """Servers are often not on the PATH of those who are not root."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin") or ""


def _nchan_module() -> str:
    return next((place for place in _NCHAN_PLACES if Path(place).exists()), "")


def _nginx(folder: Path, port: int, redis_url: str) -> str:
    temporary = "".join(
        f"  {kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""
load_module {_nchan_module()};
{"user root;" if os.geteuid() == 0 else ""}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections {_CONNECTIONS}; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
{temporary}
  upstream redis {{ nchan_redis_server {redis_url}; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location ~ ^/pub/(\\w+)$ {{
      nchan_publisher;
      nchan_channel_id $1;
      nchan_redis_pass redis;
    }}
    location ~ ^/sub/(\\w+)$ {{
      nchan_subscriber websocket;
      nchan_channel_id $1;
      nchan_redis_pass redis;
    }}
  }}
}}
"""
