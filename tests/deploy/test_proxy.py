"""The configuration of nginx in the guides, in an nginx, before a real gateway."""

from __future__ import annotations

import getpass
import shutil
import socket
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from selfhost_transport import ClientTransport, TurnStatus
from tests.deploy.running import ROOT
from tests.processes import Proc, Stack, wait_until

KEY = "app.key:secret"
CONFIG = f"""
[[keys]]
name = "{KEY.partition(":")[0]}"
secret = "{KEY.partition(":")[2]}"

[[namespaces]]
id = "*"
agent = "assistant"
"""

needs_nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx on the PATH")


def _blocks(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text()
    return [block.partition("\n")[2] for block in text.split("```")[1::2] if block.startswith("nginx\n")]


def _configuration(folder: Path, port: int, gateway: str, logs: str) -> str:
    """Of a whole nginx: the guide's location, and a page's lines about logs."""
    (location,) = (block for block in _blocks("deployment.md") if "proxy_pass" in block)
    assert "map $http_upgrade: '' -> '', default -> upgrade" in location
    here = location.replace("http://127.0.0.1:8080", gateway.rstrip("/"))
    return f"""
daemon off;
master_process off;
user {getpass.getuser()};
pid {folder}/nginx.pid;
events {{}}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{ '' ''; default upgrade; }}
    {logs.replace("/var/log/nginx", str(folder))}
    server {{
        listen 127.0.0.1:{port};
        {here}
    }}
}}
"""


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def _nginx(stack: Stack, folder: Path, gateway: str, logs: str) -> tuple[Proc, int]:
    port = _free_port()
    path = folder / "nginx.conf"
    path.write_text(_configuration(folder, port, gateway, logs))
    proc = await stack.run("nginx", "-p", str(folder), "-c", str(path), "-e", f"{folder}/error.log")

    def listens() -> bool:
        assert proc.returncode is None, f"{proc.log}\n{(folder / 'error.log').read_text()}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    await wait_until(listens)
    return proc, port


@needs_nginx
@pytest.mark.parametrize("page", ["deployment.md", "logs.md"])
async def test_turns_stream_through_the_proxy_of_the_guide_and_no_log_has_the_key(
    page: str, stack: Stack, tmp_path: Path
) -> None:
    gateway = await stack.gateway(config=CONFIG)
    await stack.worker(config=CONFIG)
    (logs,) = (block for block in _blocks(page) if "log_format" in block)
    _, port = await _nginx(stack, tmp_path, gateway.url, logs)
    async with ClientTransport.connect(
        f"ws://127.0.0.1:{port}", key=KEY, client_id="ann", channel="chat:1"
    ) as transport:
        turn = await transport.view.send("script: tokens=20 rate=40")
        await turn.ended
        assert turn.status is TurnStatus.COMPLETED
        assert len((await transport.history()).messages) > 0
    # As Ably's SDKs connect: the key is in the address.
    async with connect(f"ws://127.0.0.1:{port}/?key={KEY}&v=3&format=json") as websocket:
        assert '"action":4' in await websocket.recv()
    await gateway.end()
    async with httpx.AsyncClient() as http:
        refused = await http.get(f"http://127.0.0.1:{port}/v1/me", params={"key": KEY})
    assert refused.status_code == 502
    access, errors = tmp_path / "access.log", tmp_path / "error.log"
    await wait_until(lambda: "/v1/me" in access.read_text())
    assert "secret" not in access.read_text()
    assert "secret" not in errors.read_text(), "of an upstream that fails, nginx logs the whole request line"
