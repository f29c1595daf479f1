"""A backup and its restoration by the commands of the guide: the conversation is there and goes on."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import httpx
import pytest
import redis

from selfhost_transport.redis_io.embedded import find_server
from tests.deploy.running import DEPLOY, ROOT, answer
from tests.processes import Proc, Stack, wait_until

CONFIG = '[[keys]]\nname = "app.key"\nsecret = "secret"\n[[namespaces]]\nid = "*"\nagent = "assistant"\n'
KEY = ("app.key", "secret")


def _block(first: str) -> str:
    """The commands of the guide that begin with a text."""
    page = (ROOT / "docs" / "deployment.md").read_text()
    return next(block for block in page.split("```sh\n") if block.startswith(first)).partition("```")[0]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _cli() -> str:
    """The one on the PATH, or that beside the server."""
    return shutil.which("redis-cli") or str(Path(find_server()).with_name("redis-cli"))


async def _redis(stack: Stack, data: Path) -> tuple[Proc, int]:
    """A server as the guide sets it up, with its data in a folder."""
    port = _free_port()
    options = ("--port", str(port), "--dir", str(data))
    server = await stack.run(find_server(), str(DEPLOY / "redis" / "redis.conf"), *options)
    await wait_until(lambda: "eady to accept connections" in server.log, 15)
    return server, port


def _run(script: str, port: int, **env: str) -> None:
    ran = subprocess.run(
        ["sh", "-euc", script.replace("redis-cli ", f"{_cli()} -p {port} ")],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


async def _deployment(folder: Path, name: str, port: int) -> tuple[Stack, Proc]:
    (folder / name).mkdir()
    stack = Stack(f"redis://127.0.0.1:{port}/0", "sht", folder / name)
    gateway = await stack.gateway(config=CONFIG)
    await stack.worker(config=CONFIG)
    return stack, gateway


async def test_a_backup_is_restored_by_the_commands_of_the_guide(stack: Stack, tmp_path: Path) -> None:
    old_data, data = tmp_path / "old", tmp_path / "new"
    old_data.mkdir()
    data.mkdir()
    server, port = await _redis(stack, old_data)
    old, gateway = await _deployment(tmp_path, "before", port)
    try:
        before = await answer(gateway.url, KEY, "script: say=remember this")
        assert "remember this" in before
    finally:
        await old.close()
    _run(f"cd {tmp_path}; " + _block("redis-cli ACL SETUSER backup"), port, BACKUP_PASSWORD="forBackups")
    with (
        redis.Redis.from_url(f"redis://backup:forBackups@127.0.0.1:{port}") as backup,
        pytest.raises(redis.exceptions.NoPermissionError),
    ):
        backup.get("sht:format")
    await server.end()
    shutil.copy(tmp_path / "backup.rdb", data / "dump.rdb")
    restoring = _free_port()
    script = _block('redis-server --dir "$DATA"').replace("redis-server", find_server())
    _run(script.replace('-p "$PORT" ', ""), restoring, DATA=str(data), PORT=str(restoring))
    _, port = await _redis(stack, data)
    new, gateway = await _deployment(tmp_path, "after", port)
    try:
        async with httpx.AsyncClient(base_url=gateway.url, auth=KEY) as http:
            assert str((await http.get("/v1/sessions/conversations:1/messages")).json()) == before
        after = await answer(gateway.url, KEY, "script: say=and go on")
        assert "remember this" in after and "and go on" in after
    finally:
        await new.close()
