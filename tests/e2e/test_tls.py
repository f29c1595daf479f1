"""Clients of a gateway behind a private certificate authority."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from gateway import create_app
from gateway.websocket.upgrade import RawWebSocket
from selfhost_transport import ClientOptions, ClientTransport
from selfhost_transport.errors import ConnectionFailed, InvalidArgument, UntrustedCertificate
from selfhost_transport.settings import KeyRule, RedisSettings, Settings
from tests.certificates import Authority
from tests.promptness import Stopwatch, prompt

KEY = "app.key:secret"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ca.pem`, and `server.pem` with the key of a certificate that it signed."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = Authority(folder).certificate()
    (folder / "server.pem").write_bytes(key + certificate)
    return folder


@pytest.fixture
async def address(redis_url: str, redis_prefix: str, files: Path) -> AsyncIterator[str]:
    """`127.0.0.1:PORT` of a gateway that speaks TLS."""
    settings = Settings(
        redis=RedisSettings(url=redis_url, prefix=redis_prefix),
        keys=(KeyRule.model_validate({"name": "app.key", "secret": "secret"}),),
    )
    config = uvicorn.Config(
        create_app(settings), port=0, ws=RawWebSocket, ssl_certfile=files / "server.pem", log_level="error"
    )
    server = uvicorn.Server(config)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        await serving


async def test_a_private_ca_counts_for_the_websocket_and_for_the_history(address: str, files: Path) -> None:
    own = ssl.create_default_context(cafile=files / "ca.pem")
    given: list[dict[str, Any]] = [{"ca_file": files / "ca.pem"}, {"ssl_context": own}]
    for number, options in enumerate(given):
        async with ClientTransport.connect(
            f"wss://{address}", key=KEY, client_id="u", channel=f"c:{number}", within=10, **options
        ) as transport:
            assert await transport.view.load_older() == []


async def test_the_environment_counts_for_both(address: str, files: Path) -> None:
    code = f"""
import asyncio
from selfhost_transport import ClientOptions, ClientTransport
async def main():
    async with ClientTransport.connect("wss://{address}", key="{KEY}", channel="c:env", within=10) as transport:
        print(await transport.history())
asyncio.run(main())
"""
    environment = {**os.environ, "SSL_CERT_FILE": str(files / "ca.pem")}
    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert ran.stdout.startswith("HistoryPage("), ran.stderr


@prompt
async def test_a_certificate_that_is_not_trusted_is_said_at_once(address: str) -> None:
    watch = Stopwatch()
    with pytest.raises(
        ConnectionFailed, match=rf"certificate of {address} is not trusted: .*ca_file=.*SSL_CERT_FILE"
    ):
        await ClientTransport.connect(f"wss://{address}", key=KEY, channel="c:1")
    watch.assert_below(5)


async def test_tls_where_there_is_none_and_none_where_there_is(address: str, plain_url: str) -> None:
    with pytest.raises(ConnectionFailed, match="does not speak TLS; use ws://"):
        await ClientTransport.connect(plain_url.replace("http", "wss"), key=KEY, channel="c:1", within=1)
    with pytest.raises(ConnectionFailed, match="needs wss://"):
        await ClientTransport.connect(f"ws://{address}", key=KEY, channel="c:1", within=1)


@pytest.fixture
async def plain_url() -> AsyncIterator[str]:
    """A server that speaks plain HTTP."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    await writer.drain()
    writer.close()


def test_a_ca_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for file in ("missing.pem", "empty.pem"):
        with pytest.raises(InvalidArgument, match=rf"ca_file '.*{file}' cannot be used: "):
            ClientTransport(
                "wss://127.0.0.1", key=KEY, channel="c:1", options=ClientOptions(ca_file=tmp_path / file)
            )


def test_the_error_has_a_place_in_the_tree() -> None:
    assert issubclass(UntrustedCertificate, ConnectionFailed) and not UntrustedCertificate.retryable
