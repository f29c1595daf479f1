"""A gateway that speaks TLS itself: with every SDK, while its certificate is renewed, and with clients that misbehave."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import warnings
from pathlib import Path

import httpx
import psutil
import pytest
from websockets.asyncio.client import connect

from gateway.websocket.tls import Certificate
from selfhost_transport import ClientTransport
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.settings import load_settings
from tests.certificates import Authority
from tests.e2e.node import run_suite
from tests.gateway.raw import CONFIG, KEY
from tests.processes import Proc, Stack, wait_until

PYPI_PYTHON = Path(__file__).parent.parent / "compat" / ".venv" / "bin" / "python"


class Tls:
    """The files of a gateway, and what its clients trust."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.cert, self.key = folder / "tls.crt", folder / "tls.key"
        self.renew("first")

    def renew(self, subject: str) -> None:
        """Put another certificate in the place of the first."""
        certificate, key = self.authority.certificate(subject)
        self.cert.write_bytes(certificate)
        self.key.write_bytes(key)

    @property
    def flags(self) -> tuple[str, ...]:
        return "--tls-cert", str(self.cert), "--tls-key", str(self.key)

    def trusting(self) -> ssl.SSLContext:
        """The context of a client."""
        return ssl.create_default_context(cafile=self.authority.ca_file)


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    return Tls(tmp_path)


async def _shown(gateway: Proc, tls: Tls) -> str:
    """The subject of the certificate that a new connection is shown."""
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=tls.trusting())
    subject = dict(pair for (pair,) in writer.get_extra_info("peercert")["subject"])
    writer.close()
    return str(subject["commonName"])


async def test_every_sdk_over_tls(stack: Stack, tls: Tls) -> None:
    gateway = await stack.gateway(*tls.flags, config=CONFIG)
    assert gateway.url == f"https://127.0.0.1:{gateway.port}"
    trusted = {"NODE_EXTRA_CA_CERTS": str(tls.authority.ca_file), "SSL_CERT_FILE": str(tls.authority.ca_file)}
    await run_suite(stack, "tls.test.mjs", {"PORTS": str(gateway.port), "KEY": KEY, **trusted})
    code = f"""
import asyncio
from ably import AblyRealtime, AblyRest
async def main():
    realtime = AblyRealtime(endpoint="127.0.0.1:{gateway.port}/", tls=True, key="{KEY}", client_id="ben")
    channel = realtime.channels.get("chat:pypi")
    heard = asyncio.get_running_loop().create_future()
    await channel.subscribe(lambda message: heard.set_result(message.data))
    await channel.publish("greeting", "hello")
    print("heard", await asyncio.wait_for(heard, 10))
    await realtime.close()
    rest = AblyRest(endpoint="127.0.0.1", tls_port={gateway.port}, tls=True, key="{KEY}")
    print("history", [message.data for message in (await rest.channels.get("chat:pypi").history()).items])
    await rest.close()
asyncio.run(main())
"""
    pypi = await stack.run(str(PYPI_PYTHON), "-c", code, env=trusted)
    assert await pypi.wait() == 0, pypi.log
    assert pypi.lines[-2:] == ["heard hello", "history ['hello']"]
    async with ClientTransport.connect(
        f"wss://127.0.0.1:{gateway.port}",
        key=KEY,
        client_id="cid",
        channel="chat:pypi",
        ca_file=tls.authority.ca_file,
    ) as transport:
        assert len((await transport.history()).messages) == 1
    assert "Traceback" not in gateway.log and "ERROR" not in gateway.log


async def test_a_renewed_certificate_counts_for_new_connections_and_drops_none(
    stack: Stack, tls: Tls
) -> None:
    gateway = await stack.gateway(*tls.flags, config=CONFIG, env={"SELFHOST_TRANSPORT_LOG_LEVEL": "info"})
    url = f"wss://127.0.0.1:{gateway.port}/?key={KEY}&v=3&format=json"
    async with connect(url, ssl=tls.trusting()) as websocket:
        assert await _shown(gateway, tls) == "first"
        # The files are not written at once: a certificate whose key has not come yet.
        certificate, key = tls.authority.certificate("second")
        tls.cert.write_bytes(certificate)
        await wait_until(lambda: "tls.reload_failed" in gateway.log)
        assert await _shown(gateway, tls) == "first"
        tls.key.write_bytes(key)
        await wait_until(lambda: "tls.reloaded" in gateway.log)
        assert {await _shown(gateway, tls) for _ in range(8)} == {"second"}
        await asyncio.wait_for(await websocket.ping(), 5)
        assert '"action":4' in await websocket.recv(), "the connection that was there stays"


async def _all_show(gateway: Proc, tls: Tls, name: str) -> None:
    """Wait until every process has loaded it. The system chooses the process: twenty connections reach all three."""
    async with asyncio.timeout(15):
        while {await _shown(gateway, tls) for _ in range(20)} != {name}:
            pass


async def test_every_process_of_a_gateway_reads_the_renewed_certificate(stack: Stack, tls: Tls) -> None:
    env = {"SELFHOST_TRANSPORT_LOG_LEVEL": "info"}
    gateway = await stack.gateway("--processes", "3", *tls.flags, config=CONFIG, env=env)
    assert {await _shown(gateway, tls) for _ in range(8)} == {"first"}
    async with ClientTransport.connect(
        f"wss://127.0.0.1:{gateway.port}",
        key=KEY,
        client_id="cid",
        channel="chat:1",
        ssl_context=tls.trusting(),
    ) as transport:
        tls.renew("second")
        await _all_show(gateway, tls, "second")
        assert (await transport.history()).messages == []
        assert transport.connected
    # One that is started again begins with what is there now.
    (process, *_) = psutil.Process(gateway.pid).children()
    tls.renew("third")
    process.kill()
    await _all_show(gateway, tls, "third")


async def test_old_versions_plain_requests_and_broken_handshakes(stack: Stack, tls: Tls) -> None:
    settings = "[limits]\nunfinished_per_address = 3\n[gateway]\nrequest_timeout_ms = 700\n"
    gateway = await stack.gateway(*tls.flags, config=CONFIG.replace("[gateway]", settings, 1))
    old = tls.trusting()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", gateway.port, ssl=old)
    for _ in range(2):
        with pytest.raises(httpx.TransportError):
            async with httpx.AsyncClient() as http:
                await http.get(f"http://127.0.0.1:{gateway.port}/healthz")
    await wait_until(lambda: "http.plain_on_tls_port" in gateway.log)
    # Those that connect and say nothing: three are waited for, no longer than a request's head; the rest is closed.
    silent = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(5)]
    assert await asyncio.wait_for(silent[-1][0].read(1), 0.5) == b""
    for reader, writer in silent:
        assert await asyncio.wait_for(reader.read(1), 5) == b""
        writer.close()
    async with httpx.AsyncClient(verify=tls.trusting()) as http:
        assert (await http.get(f"{gateway.url}/healthz")).status_code == 200
    assert gateway.log.count("http.plain_on_tls_port") == 1, "said once, not for each request"
    assert "Traceback" not in gateway.log and "ERROR" not in gateway.log


def test_files_that_cannot_be_used_are_named(tls: Tls, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="tls_key is given without tls_cert"):
        load_settings(tls_key=tls.key)
    other = tmp_path / "other.key"
    other.write_bytes(tls.authority.certificate()[1])
    secret = tmp_path / "secret.key"
    secret.write_bytes(tls.authority.certificate(password=b"hunter2")[1])
    for cert, key in ((tls.cert, other), (tmp_path / "missing", None), (tls.cert, None), (tls.cert, secret)):
        with pytest.raises(InvalidArgument, match=r"tls_cert '.*' cannot be used: .*PEM"):
            Certificate(cert, key)
    command = Path(sys.executable).with_name("selfhost-transport")
    refused = subprocess.run(
        [command, "gateway", "--tls-cert", tmp_path / "missing"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1, refused.stderr


def test_one_file_may_hold_both(tls: Tls, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(tls.cert.read_bytes() + tls.key.read_bytes())
    assert Certificate(both, None).context.minimum_version == ssl.TLSVersion.TLSv1_2
