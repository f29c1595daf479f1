"""The gateway as a process: starting, several processes on one port, draining, Redis that goes away."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import httpx
import psutil
import pytest

from gateway import processes
from gateway.processes import _shared_folder
from selfhost_transport.errors import InvalidArgument
from tests.gateway.raw import ACK, CONFIG, CONNECTED, DISCONNECTED, MESSAGE, client
from tests.processes import Stack, gone, wait_until


async def test_sigterm_sends_clients_away_with_a_resumable_reason(stack: Stack) -> None:
    gateway = await stack.gateway(config=CONFIG)
    async with client(gateway.url) as raw:
        assert (await raw.next())["action"] == CONNECTED
        gateway.terminate()
        frame = await raw.next()
        assert (frame["action"], frame["error"]["code"], frame["error"]["statusCode"]) == (
            DISCONNECTED,
            80003,
            400,
        )
        await raw.closed()
    assert await gateway.wait() == 0


async def test_several_processes_share_a_port_and_one_order(stack: Stack) -> None:
    gateway = await stack.gateway("--processes", "2", config=CONFIG)
    children = [
        child
        for child in psutil.Process(gateway.pid).children(recursive=True)
        if "resource_tracker" not in " ".join(child.cmdline())
    ]
    assert len(children) == 2
    async with client(gateway.url) as one, client(gateway.url) as two:
        for raw in (one, two):
            await raw.next()
            await raw.attach("plain:1")
        assert (await one.publish("plain:1", {"data": "x"}))["action"] == ACK
        assert (await two.action(MESSAGE))["messages"][0]["data"] == "x"
    children[0].kill()
    await wait_until(lambda: gone(children[0]))
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        await wait_until(lambda: _answers(http))
    gateway.terminate()
    assert await gateway.wait() == 0
    assert all(gone(child) for child in children)


async def _answers(http: httpx.AsyncClient) -> bool:
    return (await http.get("/readyz")).status_code == 200


async def test_no_redis_is_said_plainly(stack: Stack) -> None:
    proc = await stack.run(
        str(Path(sys.executable).with_name("selfhost-transport")),
        "gateway",
        "--redis",
        "redis://127.0.0.1:1/0",
        "--port",
        "0",
    )
    assert await proc.wait() != 0
    assert "Redis" in proc.log
    assert "Traceback" not in proc.log


async def test_a_port_that_is_taken_is_one_line(stack: Stack) -> None:
    taken = await stack.gateway(config=CONFIG)
    port = taken.url.rpartition(":")[2]
    with pytest.raises(
        AssertionError, match=f"error 40003: cannot listen on 127.0.0.1 port {port}"
    ) as failed:
        await stack.gateway("--port", port, config=CONFIG)
    assert "Traceback" not in str(failed.value)


def test_several_processes_need_no_writable_folder_for_temporary_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with _shared_folder() as folder:
        assert folder.startswith("/dev/shm/")
    monkeypatch.setattr(processes, "_IN_MEMORY", "/nowhere-either")
    with pytest.raises(InvalidArgument, match="mount a tmpfs at /tmp, or set TMPDIR"):
        _shared_folder()


async def test_a_gateway_without_credentials_warns(stack: Stack) -> None:
    gateway = await stack.gateway()
    assert "gateway.no_credentials" in gateway.log
    guarded = await stack.gateway(config=CONFIG)
    assert "no_credentials" not in guarded.log
