"""Whatever state Redis gets into under running turns: what is promised holds, or the error is stated (P1 to P11).

One deployment goes through all states: two gateways, a worker whose agent reads its conversation all the time, and in
each state three running turns with a second reader, and sends over HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
import redis

from selfhost_transport import TurnStatus
from selfhost_transport.errors import TransportError
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.message import Message
from tests.e2e.reading_agent import TOKENS
from tests.e2e.stage import KEY, Stage, assert_exact, each, token_seen, turn_id
from tests.processes import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PREFIX = "bad"
HELD_S = 0.8
TURNS = 3
AGENT = "tests.e2e.reading_agent:worker"


@dataclass
class Bad:
    """The deployment, and its Redis, which may be stopped and started."""

    server: EmbeddedRedis
    folder: Path
    stage: Stage

    def admin(self) -> redis.Redis:
        return redis.Redis.from_url(self.server.url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bad(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bad]:
    folder = tmp_path_factory.mktemp("bad-redis")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    with EmbeddedRedis(folder / "data", port) as server:
        stage = await Stage.make(server.url, PREFIX, folder, workers=0)
        try:
            await stage.add_worker(AGENT)
            yield Bad(server, folder / "data", stage)
        finally:
            await stage.close()


# States that pass: everything that runs goes on where it was.


@contextmanager
def read_only(bad: Bad) -> Iterator[None]:
    with bad.admin() as admin:
        admin.replicaof("127.0.0.1", "1")
        try:
            yield
        finally:
            admin.replicaof("NO", "ONE")


@contextmanager
def without_its_primary(bad: Bad) -> Iterator[None]:
    """Not even reads are answered."""
    with bad.admin() as admin, _config(admin, "replica-serve-stale-data", "no", "yes"):
        admin.replicaof("127.0.0.1", "1")
        try:
            yield
        finally:
            admin.replicaof("NO", "ONE")


@contextmanager
def without_replicas(bad: Bad) -> Iterator[None]:
    with bad.admin() as admin, _config(admin, "min-replicas-to-write", "1", "0"):
        yield


@contextmanager
def busy(bad: Bad) -> Iterator[None]:
    """A script of another runs without end."""
    with bad.admin() as admin, _config(admin, "lua-time-limit", "10", "5000"):
        endless = threading.Thread(target=_run_forever, args=(bad.server.url,))
        endless.start()
        try:
            yield
        finally:
            admin.script_kill()
            endless.join()


def _run_forever(url: str) -> None:
    with redis.Redis.from_url(url) as client, contextlib.suppress(redis.ResponseError):
        client.eval("while true do end", 0)


@contextmanager
def cannot_save(bad: Bad) -> Iterator[None]:
    with bad.admin() as admin:
        (bad.folder / "dump.rdb").mkdir()
        try:
            with _config(admin, "save", "3600 1", ""):
                admin.bgsave()
                while admin.info("persistence")["rdb_last_bgsave_status"] == "ok":
                    time.sleep(0.01)
                yield
        finally:
            shutil.rmtree(bad.folder / "dump.rdb")


@contextmanager
def full(bad: Bad) -> Iterator[None]:
    with bad.admin() as admin, _config(admin, "maxmemory", "1", "0"):
        yield


@contextmanager
def slow(bad: Bad) -> Iterator[None]:
    with bad.admin() as admin:
        admin.client_pause(int(HELD_S * 1000))
        yield


@contextmanager
def frozen(bad: Bad) -> Iterator[None]:
    os.kill(bad.server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(bad.server.pid, signal.SIGCONT)


@contextmanager
def cut(bad: Bad) -> Iterator[None]:
    with bad.admin() as admin:
        for _ in range(3):
            _drop_connections(admin)
        yield


@contextmanager
def without_scripts(bad: Bad) -> Iterator[None]:
    with bad.admin() as admin:
        admin.script_flush()
        yield


@contextmanager
def restarted(bad: Bad) -> Iterator[None]:
    bad.server.stop()
    try:
        yield
    finally:
        bad.server.start()


@contextmanager
def locked(bad: Bad) -> Iterator[None]:
    """Every client is asked for a password that is in no URL."""
    with bad.admin() as admin, _config(admin, "requirepass", "new", ""):
        _drop_connections(admin)
        yield


@contextmanager
def backpressured(bad: Bad) -> Iterator[None]:
    """No one else may connect."""
    with bad.admin() as admin, _config(admin, "maxclients", "1", "10000"):
        _drop_connections(admin)
        yield


@contextmanager
def shared(bad: Bad) -> Iterator[None]:
    """Another deployment with the same prefix is at work in the next database."""
    yield


@contextmanager
def _config(admin: redis.Redis, name: str, value: str, back: str) -> Iterator[None]:
    admin.config_set(name, value)
    try:
        yield
    finally:
        admin.config_set(name, back)


def _drop_connections(admin: redis.Redis) -> None:
    for kind in ("normal", "pubsub"):
        admin.client_kill_filter(_type=kind, skipme=True)


State = Callable[[Bad], AbstractContextManager[None]]
# How long, and what an HTTP send may be answered meanwhile: 202, or 503 with the time to come back.
PASSING: dict[str, tuple[State, float]] = {
    "read-only": (read_only, HELD_S),
    "read-only for longer than calls wait": (read_only, 3.5),
    "a replica without its primary": (without_its_primary, HELD_S),
    "not enough replicas": (without_replicas, HELD_S),
    "busy": (busy, HELD_S),
    "cannot save": (cannot_save, HELD_S),
    "full": (full, HELD_S),
    "slow": (slow, HELD_S),
    "frozen": (frozen, HELD_S),
    "connections cut": (cut, 0.2),
    "scripts flushed": (without_scripts, 0.2),
    "restarted": (restarted, 0.5),
    "another password": (locked, HELD_S),
    "no more clients": (backpressured, HELD_S),
    "shared with another deployment": (shared, 0.5),
}


@pytest.mark.parametrize("name", PASSING)
async def test_a_state_that_passes_costs_no_turn(bad: Bad, name: str) -> None:
    state, held_s = PASSING[name]
    session = bad.stage.session()
    async with bad.stage.connect(session) as one, bad.stage.connect(session, "user-2", gateway=1) as two:
        turns = [await one.view.send("go") for _ in range(TURNS)]
        await each([token_seen(turn, 5) for turn in turns])
        with state(bad):
            sent = asyncio.create_task(send_over_http(bad, session))
            intruding = asyncio.create_task(publish_in_next_database(bad, session, name))
            await asyncio.sleep(held_s)
        status, headers = await sent
        await intruding
        assert status in (200, 202) or (status == 503 and int(headers["retry-after"]) >= 1), status
        async with asyncio.timeout(20):
            for turn in turns:
                await turn.ended
            for turn in turns:
                await two.turn(turn_id(turn)).ended
        for turn in turns:
            for shown in (turn, two.turn(turn_id(turn))):
                assert shown.status is TurnStatus.COMPLETED, shown
                assert_exact(shown, TOKENS)
            assert attempts_of(bad, turn_id(turn)) == 1
        log = await bad.stage.log(session)
        assert [log.ends(turn_id(turn)) for turn in turns] == [["complete"]] * TURNS
        assert "secret" not in str(log.created())


async def test_a_send_that_is_refused_for_now_is_one_turn_in_the_end(bad: Bad) -> None:
    """The gateway refuses it with an error that says so, more than once; the client sends it again (P4, P5)."""
    session = bad.stage.session()
    async with bad.stage.connect(session) as client:
        with without_replicas(bad):
            sending = asyncio.create_task(client.view.send("go"))
            status, headers = await send_over_http(bad, session)
            assert (status, headers["x-ably-errorcode"]) == (503, "50003")
            await asyncio.sleep(1)
        turn = await asyncio.wait_for(sending, 20)
        await asyncio.wait_for(turn.ended, 20)
        assert_exact(turn, TOKENS)
        log = await bad.stage.log(session)
        assert len(log.created(h.AI_INPUT)) == len(log.created(h.AI_RUN_END)) == 1


async def send_over_http(bad: Bad, session: str) -> tuple[int, httpx.Headers]:
    user, _, password = KEY.partition(":")
    async with httpx.AsyncClient(auth=(user, password), timeout=10) as http:
        url = f"{bad.stage.gateways[0].url}/v1/sessions/{session}-http/turns"
        answer = await http.post(url, json={"text": "go"})
        return answer.status_code, answer.headers


async def publish_in_next_database(bad: Bad, session: str, name: str) -> None:
    if "another deployment" not in name:
        return
    other = RedisConnection(bad.server.url.rpartition("/")[0] + "/1")
    await SessionStore(other, Keyspace(PREFIX)).publish(session, [Message(name="m", data="secret")])
    await other.command("FLUSHDB")
    await other.close()


def attempts_of(bad: Bad, turn: str) -> int:
    with bad.admin() as admin:
        [key] = admin.scan_iter(f"*t:{turn}:*")
        return int(admin.hget(key, "at") or 0)


# States in which data is gone: everyone learns of it, no one waits, and what is sent next is answered.


async def flush_all(bad: Bad, session: str) -> None:
    with bad.admin() as admin:
        admin.flushall()


async def evict_session(bad: Bad, session: str) -> None:
    """As `allkeys-lru` may do."""
    with bad.admin() as admin:
        admin.delete(*[key for key in admin.scan_iter("*") if session.encode() in key])


async def restart_empty(bad: Bad, session: str) -> None:
    bad.server.stop()
    for left in bad.folder.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    bad.server.start()


Losing = Callable[[Bad, str], Awaitable[None]]


@pytest.mark.parametrize("lose", [flush_all, evict_session, restart_empty])
async def test_p7_readers_of_a_session_that_is_gone_are_notified(bad: Bad, lose: Losing) -> None:
    session = bad.stage.session()
    async with bad.stage.connect(session) as one, bad.stage.connect(session, "user-2", gateway=1) as two:
        turn = await one.view.send("go")
        await token_seen(turn, 5)
        await token_seen(two.turn(turn_id(turn)), 5)
        await lose(bad, session)
        for shown in (turn, two.turn(turn_id(turn))):
            with pytest.raises(TransportError):
                await asyncio.wait_for(shown.ended, 10)
        again = await two.view.send("go")
        await asyncio.wait_for(again.ended, 20)
        assert_exact(again, TOKENS)
        await wait_until(lambda: one.turn(turn_id(again)).status is TurnStatus.COMPLETED, 10)
        assert [item.message.text for item in one.view.messages if item.message.role == "assistant"] == [
            again.text
        ]


async def test_readers_of_a_quiet_session_that_is_gone_are_notified(bad: Bad) -> None:
    """No one writes to it any more: only a look finds out."""
    session = bad.stage.session()
    async with bad.stage.connect(session) as client:
        turn = await client.view.send("go")
        await turn.ended
        assert client.view.messages
        await evict_session(bad, session)
        await wait_until(lambda: not client.view.messages, 10, "the view of a session that is gone")


@pytest.mark.parametrize("lose", [flush_all, evict_session, restart_empty])
async def test_http_readers_of_a_turn_that_is_gone_get_an_error(bad: Bad, lose: Losing) -> None:
    """Each stream ends with its protocol's error; that of the session says that it begins anew."""
    session, gateway = bad.stage.session(), bad.stage.gateways[0].url
    user, _, password = KEY.partition(":")
    async with httpx.AsyncClient(base_url=gateway, auth=(user, password), timeout=20) as http:
        asked = {"conversation": session, "input": "go"}
        begun = (await http.post("/v1/responses", json={**asked, "background": True})).json()
        readers = {
            "ui": _Ear(http, "GET", f"/api/chat/{session}/stream"),
            "agui": _Ear(http, "POST", "/v1/agui/connect", {"threadId": session, "runId": "r"}),
            "responses": _Ear(http, "GET", f"/v1/responses/{begun['id']}?stream=true"),
            "waited": _Ear(http, "POST", "/v1/responses", asked),
            "events": _Ear(http, "GET", f"/v1/sessions/{session}/events"),
        }
        try:
            for name in ("ui", "agui", "responses", "events"):
                await readers[name].heard("2 ")
            await readers["waited"].heard(" ")
            await lose(bad, session)
            for name in ("ui", "agui", "responses", "waited"):
                await asyncio.wait_for(readers[name].task, 10)
                assert "has lost the turn" in readers[name].text, (name, readers[name].text[-300:])
            assert '"type":"error"' in readers["ui"].text
            assert '"type":"RUN_ERROR"' in readers["agui"].text
            assert "event: error" in readers["responses"].text
            assert '"status":"failed"' in readers["waited"].text
            attached = lambda: readers["events"].text.count("event: attached") >= 2  # noqa: E731
            await wait_until(attached, 10, "the discontinuity of the session's events")
        finally:
            await each([one.close() for one in readers.values()])


class _Ear:
    """A response that is read as it comes."""

    def __init__(self, http: httpx.AsyncClient, method: str, url: str, body: object = None) -> None:
        self.text = ""
        self.task = asyncio.create_task(self._listen(http, method, url, body))

    async def _listen(self, http: httpx.AsyncClient, method: str, url: str, body: object) -> None:
        async with http.stream(method, url, json=body) as response:
            async for text in response.aiter_text():
                self.text += text

    async def heard(self, text: str) -> None:
        """Returns once that has come."""
        await wait_until(lambda: text in self.text or self.task.done(), 10, text)
        assert text in self.text, self.text

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
