"""Functions of an application, wherever they are called: what they raise reaches their caller, as an error, and nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from gateway.auth.authenticator import Authenticator
from gateway.auth.callers import RequestInfo
from selfhost_transport.client.connection.credentials import make_credentials
from selfhost_transport.client.emitter import Emitter
from selfhost_transport.errors import InvalidArgument, ServiceError, TokenError, TransportError
from selfhost_transport.exporter import TurnExporter
from selfhost_transport.hooks import HookFailed, call_hook
from selfhost_transport.settings import load_settings
from tests.processes import wait_until
from tests.worker import bad_agents as bad
from tests.worker.session import Room


def asynchronous(way: str) -> Callable[..., Any]:
    async def hook(*values: Any) -> None:
        await asyncio.sleep(0)
        bad.fail(way)

    return hook


def plain(way: str) -> Callable[..., Any]:
    def hook(*values: Any) -> None:
        bad.fail(way)

    return hook


CALLER = RequestInfo(path="/", headers={}, query={}, peer=None, client=None)
KINDS = pytest.mark.parametrize("kind", [asynchronous, plain], ids=["asynchronous", "plain"])


@KINDS
async def test_whatever_a_hook_raises_is_an_exception_of_its_caller(kind: Callable[[str], Any]) -> None:
    for way in bad.WAYS:
        with pytest.raises(Exception) as caught:
            await call_hook(kind(way))
        assert isinstance(caught.value, Exception)
        if way in ("system-exit", "keyboard-interrupt", "generator-exit", "cancelled", "odd-base"):
            assert isinstance(caught.value, HookFailed)


async def test_a_plain_hook_that_blocks_leaves_the_loop_alone() -> None:
    ended = threading.Event()
    wait: Callable[..., Any] = ended.wait
    calling: asyncio.Task[Any] = asyncio.create_task(call_hook(wait, 10))
    for _ in range(10):
        await asyncio.sleep(0.001)
    assert not calling.done()
    ended.set()
    assert await calling is True


async def test_a_cancelled_caller_is_cancelled() -> None:
    sleep: Callable[..., Any] = asyncio.sleep
    calling: asyncio.Task[Any] = asyncio.create_task(call_hook(sleep, 60))
    await asyncio.sleep(0)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


@KINDS
async def test_identify_that_fails_refuses_this_caller(kind: Callable[[str], Any]) -> None:
    for way in bad.WAYS:
        authenticator = Authenticator(load_settings(), kind(way))
        with pytest.raises(Exception) as refused:
            await authenticator.of_connection(CALLER)
        # An application may refuse by an error of the tree; anything else is a fault of the application.
        assert isinstance(refused.value, TransportError), way


@pytest.mark.parametrize("found", [7, "user", {"client_id": "x"}, b"x", object()])
async def test_identify_that_returns_what_is_no_identity_refuses(found: Any) -> None:
    async def identify(info: RequestInfo) -> Any:
        return found

    with pytest.raises(ServiceError):
        await Authenticator(load_settings(), identify).of_connection(CALLER)


@KINDS
async def test_an_auth_callback_that_fails_is_a_token_error(kind: Callable[[str], Any]) -> None:
    for way in bad.WAYS:
        with pytest.raises(TokenError) as refused:
            await make_credentials(None, None, kind(way)).header()
        assert refused.value.info.code == 40170


@pytest.mark.parametrize("token", [None, "", 7, b"x", "half \ud83d", {"token": "half \ud83d"}, {}])
async def test_an_auth_callback_that_returns_no_token_is_a_token_error(token: Any) -> None:
    with pytest.raises(TokenError) as refused:
        await make_credentials(None, None, lambda: token).header()
    assert refused.value.info.code == 40170
    for given in ("half \ud83d", ""):
        with pytest.raises(InvalidArgument):
            make_credentials(None, given, None)


def test_a_subscriber_that_fails_is_logged_and_the_others_hear() -> None:
    failures: list[Exception] = []
    heard: list[int] = []
    emitter: Emitter[int] = Emitter(failures.append)
    for way in bad.WAYS:
        emitter.subscribe(plain(way))
    emitter.subscribe(heard.append)
    emitter.emit(1)
    assert heard == [1] and len(failures) == len(bad.WAYS)


async def test_an_export_that_fails_is_tried_again_and_the_exporter_goes_on(
    room: Room, settings: Callable[..., Any], running: Callable[..., Any]
) -> None:
    await running(bad.bad_worker(settings()))
    left = ["system-exit", "cancelled", "odd-base", "plain"]
    kept: list[str] = []

    def export(turn: Any) -> None:
        if left:
            bad.fail(left.pop())
        kept.append(turn.turn_id)

    exporter = TurnExporter(settings())
    exporting = asyncio.create_task(exporter.run(export))
    await exporter.ready.wait()
    turn = await room.send("", agent="gap")
    await wait_until(lambda: kept == [turn], 20)
    assert exporter.statistics().failed == 4
    exporter.stop()
    await exporting
