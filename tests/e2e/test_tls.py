"""Clients of a gateway behind a private certificate authority."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway import create_app
from gateway.websocket.upgrade import RawWebSocket
from selfhost_transport import ClientOptions, ClientTransport
from selfhost_transport.errors import ConnectionFailed, InvalidArgument, UntrustedCertificate
from selfhost_transport.settings import KeyRule, RedisSettings, Settings

KEY = "app.key:secret"


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    is_ca = subject == issuer
    start = datetime.datetime(2020, 1, 1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start.replace(year=2120))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if not is_ca:
        host = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = builder.add_extension(x509.SubjectAlternativeName([host]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ca.pem`, and `server.pem` with the key of a certificate that it signed."""
    folder = tmp_path_factory.mktemp("tls")
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(
        _certificate("a private CA", ca_key, "a private CA", ca_key).public_bytes(pem)
    )
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(
        private + _certificate("gateway", key, "a private CA", ca_key).public_bytes(pem)
    )
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


async def test_a_certificate_that_is_not_trusted_is_said_at_once(address: str) -> None:
    began = time.monotonic()
    with pytest.raises(
        ConnectionFailed, match=rf"certificate of {address} is not trusted: .*ca_file=.*SSL_CERT_FILE"
    ):
        await ClientTransport.connect(f"wss://{address}", key=KEY, channel="c:1")
    assert time.monotonic() - began < 5


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
