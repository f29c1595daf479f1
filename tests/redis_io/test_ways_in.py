"""Each wrong way of connecting is one line that says what is wrong, within two seconds, at every door."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from typer.testing import CliRunner

from agent_worker import AgentHost, Worker
from gateway.server import run_gateway
from gateway.services import connect_services
from selfhost_transport.cli import app
from selfhost_transport.commands.dev import run_dev
from selfhost_transport.errors import TransportError
from selfhost_transport.exporter import TurnExporter
from selfhost_transport.redis_io.embedded import EmbeddedRedis, find_server
from selfhost_transport.redis_io.preflight import check_way_in
from selfhost_transport.settings import load_settings
from tests.processes import wait_until
from tests.promptness import Stopwatch, prompt
from tests.redis_io.lua import is_busy, run_forever
from tests.redis_io.tls import tls_port, write_certificate

WITHIN_S = 2.0


@contextmanager
def program(folder: Path, *options: str) -> Iterator[int]:
    """A redis-server with options, or a Sentinel; its port."""
    port = _free_port()
    config = folder / f"{port}.conf"
    config.write_text("\n".join((f"port {port}", "bind 127.0.0.1", f'dir "{folder}"', *options)))
    extra = ["--sentinel"] if options[0].startswith("sentinel ") else []
    process = subprocess.Popen([find_server(), str(config), *extra], stdout=subprocess.DEVNULL)
    try:
        _wait_until_it_answers(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _free_port() -> int:
    """One whose number leaves room for that of a Cluster's bus."""
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        if port < 55_000:
            return port


def _wait_until_it_answers(port: int, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + 10
    with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as client:
        while True:
            assert process.poll() is None and time.monotonic() < give_up
            with contextlib.suppress(redis.ConnectionError):
                with contextlib.suppress(redis.AuthenticationError):
                    client.ping()
                return
            time.sleep(0.01)


@pytest.fixture(scope="module")
def plain() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(scope="module")
def ports(plain: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    folder = tmp_path_factory.mktemp("servers")
    port = int(plain.url.rpartition(":")[2].partition("/")[0])
    with (
        program(folder, "requirepass right") as locked,
        program(folder, "cluster-enabled yes", f"cluster-config-file {folder}/nodes.conf") as node,
        program(folder, f"sentinel monitor chat 127.0.0.1 {port} 1") as sentinel,
        program(folder, f"replicaof 127.0.0.1 {port}") as replica,
        socket.socket() as silent,
    ):
        # Accepts connections, and says nothing.
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        yield {
            "plain": port,
            "locked": locked,
            "node": node,
            "sentinel": sentinel,
            "replica": replica,
            "silent": int(silent.getsockname()[1]),
        }


WRONG = {
    "redis://:wrong@127.0.0.1:{locked}/0": "rejects the user name or password",
    "redis://who:right@127.0.0.1:{locked}/0": "rejects the user name or password",
    "redis://127.0.0.1:{locked}/0": "asks for a password, and the URL has none",
    "redis://:geheim@127.0.0.1:{plain}/0": "asks for none",
    "redis://127.0.0.1:{plain}/99": "no such database",
    "redis://127.0.0.1:{node}/0": "redis+cluster://HOST:PORT instead of redis://",
    "redis://127.0.0.1:{node}/1": "redis+cluster://HOST:PORT instead of redis://",
    "redis://127.0.0.1:{sentinel}/0": "redis+sentinel://HOST:PORT/SERVICE",
    "redis://127.0.0.1:{sentinel}/1": "redis+sentinel://HOST:PORT/SERVICE",
    "redis://127.0.0.1:{replica}/0": "is a replica of 127.0.0.1:{plain}",
    "redis+cluster://127.0.0.1:{plain}": "redis:// instead of redis+cluster://",
    "redis+sentinel://127.0.0.1:{plain}/chat": "is not a Sentinel",
    "redis+sentinel://127.0.0.1:{sentinel}/tpyo": "has no service 'tpyo'",
    "rediss://127.0.0.1:{plain}/0": "does not speak TLS: redis:// instead of rediss://",
    "redis://127.0.0.1:{tls}/0": "expects TLS: rediss:// instead of redis://",
    "rediss://127.0.0.1:{tls}/0": "its certificate is not accepted",
    "redis://127.0.0.1:1/0": "nothing listens on that port",
    "redis+sentinel://127.0.0.1:1,127.0.0.1:2/chat": "nothing listens on that port",
    "redis+cluster://127.0.0.1:1,127.0.0.1:2": "nothing listens on that port",
    "redis://127.0.0.1:{silent}/0": "did not reply in time",
    "rediss://127.0.0.1:{silent}/0": "did not reply in time",
    # A network that is reserved for documentation: nothing answers.
    "redis://192.0.2.1:6379/0": "",
    "redis://redis..svc:6379/0": "is not a host name",
    "redis://no-such-host.invalid:6379/0": "the host name 'no-such-host.invalid' is not known",
    "unix:///no/such/redis.sock": "there is no such socket",
    "redis://127.0.0.1:{plain}/abc": "the database is a number, not 'abc'",
    "redis://127.0.0.1:{plain}/0?tpyo=1": "the Redis URL's option tpyo is not supported",
}  # fmt: skip


@asynccontextmanager
async def with_tls(ports: dict[str, int], folder: Path) -> AsyncIterator[dict[str, int]]:
    async with tls_port(ports["plain"], *write_certificate(folder)) as tls:
        yield ports | {"tls": tls}


@pytest.mark.parametrize("url", WRONG)
@prompt
async def test_a_wrong_way_in_is_one_line_within_two_seconds(
    url: str, ports: dict[str, int], tmp_path: Path
) -> None:
    async with with_tls(ports, tmp_path) as named:
        watch = Stopwatch()
        with pytest.raises(TransportError) as wrong:
            await check_way_in(url.format(**named))
        watch.assert_below(WITHIN_S)
        message = str(wrong.value)
        assert WRONG[url].format(**named) in message
        assert "\n" not in message and "geheim" not in message and "wrong@" not in message


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:{plain}/0",
        "redis://127.0.0.1:{plain}/3",
        "redis://:right@127.0.0.1:{locked}/0",
        "redis://default:right@127.0.0.1:{locked}/0",
        "rediss://127.0.0.1:{tls}/0?ssl_cert_reqs=none",
        "redis+sentinel://127.0.0.1:{sentinel}/chat",
    ],
)
async def test_a_right_way_in_is_none_of_these(url: str, ports: dict[str, int], tmp_path: Path) -> None:
    async with with_tls(ports, tmp_path) as named:
        await check_way_in(url.format(**named))


async def test_a_server_that_is_busy_is_the_right_one(plain: EmbeddedRedis) -> None:
    with redis.Redis.from_url(plain.url) as admin:
        admin.config_set("lua-time-limit", 1)
        endless = asyncio.create_task(asyncio.to_thread(run_forever, plain.url))
        await wait_until(lambda: is_busy(admin))
        try:
            await check_way_in(plain.url)
        finally:
            admin.script_kill()
            await endless
            admin.config_set("lua-time-limit", 5000)


BAD = "redis://:wrong@127.0.0.1:{locked}/0"


@pytest.mark.parametrize(
    "command",
    [
        ("doctor",),
        ("inspect", "a-session"),
        ("cancel", "a-session", "--all"),
        ("cancel", "--all", "--prefix", "a"),
        ("dead", "list"),
        ("dead", "requeue", "1/1-0"),
        ("export", "--once"),
        ("export", "--forget"),
    ],
)
@prompt
def test_every_command_says_it(command: tuple[str, ...], ports: dict[str, int]) -> None:
    watch = Stopwatch()
    result = CliRunner().invoke(app, [*command, "--redis", BAD.format(**ports)])
    watch.assert_below(WITHIN_S)
    said = result.output if result.exception is None or command == ("doctor",) else str(result.exception)
    assert result.exit_code == 1 and "rejects the user name or password" in said


def start_gateway(url: str) -> None:
    run_gateway(load_settings(redis=url, port=0))


def start_worker(url: str) -> None:
    worker = Worker(url)

    @worker.agent("a")
    async def agent(turn: object) -> None: ...

    asyncio.run(worker.run())


def start_host(url: str) -> None:
    async def enter() -> None:
        async with AgentHost(url):
            pass

    asyncio.run(enter())


def start_exporter(url: str) -> None:
    async def export(turn: object) -> None: ...

    asyncio.run(TurnExporter(url).run(export))


def start_embedded_gateway(url: str) -> None:
    asyncio.run(connect_services(load_settings(redis=url)))


def start_dev(url: str) -> None:
    run_dev(load_settings(redis=url, port=0))


@pytest.mark.parametrize(
    "start",
    [start_gateway, start_worker, start_host, start_exporter, start_embedded_gateway, start_dev],
)
@prompt
def test_everything_that_starts_says_it(start: Callable[[str], None], ports: dict[str, int]) -> None:
    for url, reason in (
        (BAD, "rejects the user name or password"),
        ("redis://127.0.0.1:{silent}/0", "in time"),
    ):
        watch = Stopwatch()
        with pytest.raises(TransportError, match=reason):
            start(url.format(**ports))
        watch.assert_below(WITHIN_S)


def test_a_gateway_asks_before_it_is_imported() -> None:
    """Its import alone may take a second."""
    code = (
        "import sys; from selfhost_transport.cli import main; sys.argv[1:] = ['gateway', '--redis', 'redis://h:1/abc']\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, 'gateway.server' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "1 False"
    assert done.stderr.count("\n") == 1
    assert "the database is a number" in done.stderr
