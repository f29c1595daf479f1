"""Readers of one turn over HTTP: served together while they are in step, and exactly once when they are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import orjson
import pytest
import pytest_asyncio

from benchmarks.rig import OpenTurn, Rig
from gateway.http_api import pull_outlet, session_tail
from gateway.http_api.agui_follow import AguiOutput
from gateway.http_api.chat_stream import UiOutput
from gateway.http_api.chat_turns import TurnToStream
from gateway.http_api.follower import Follower
from gateway.http_api.reader import is_known
from gateway.http_api.session_tail import TurnOutput
from gateway.services import Services, connect_services
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.settings import RedisSettings, Settings
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.turns.agui_stream import AguiStream
from selfhost_transport.turns.view import TreeView
from selfhost_transport.wire.codes import Code, error_info
from tests.gateway.cores import credential
from tests.processes import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(slots=True)
class Reader:
    """What one follower was sent."""

    follower: Follower
    task: asyncio.Task[None] | None = None
    chunks: list[bytes] = field(default_factory=list)
    # It reads on only while this is set.
    reads: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, output: TurnOutput) -> None:
        """To the end."""
        async for chunk in self.follower.stream(output):
            self.chunks.append(chunk)
            await self.reads.wait()

    @property
    def text(self) -> str:
        """All of it."""
        lines = b"".join(self.chunks).decode().split("\n")
        events = [orjson.loads(line[6:]) for line in lines if line.startswith("data: {")]
        return "".join(e["delta"] for e in events if e["type"] in ("text-delta", "TEXT_MESSAGE_CONTENT"))


class Bench:
    """A gateway's parts in this process, and a worker's hand."""

    def __init__(self, services: Services, keys: Keyspace, server: EmbeddedRedis) -> None:
        self.services = services
        self.rig = Rig(server, services.redis, keys, services.sessions, services.turns)
        self.readers: list[Reader] = []

    async def reader(self, session: str, output: TurnOutput, *, reads: bool = True) -> Reader:
        """A follower of a turn, who has been sent what there is."""
        follower = Follower(self.services, credential(), session, lambda tree: is_known(tree, output.turn_id))
        await follower.start()
        reader = Reader(follower)
        if reads:
            reader.reads.set()
        reader.task = asyncio.create_task(reader.read(output))
        self.readers.append(reader)
        await wait_until(lambda: bool(reader.chunks), 5.0, "the first chunk")
        return reader

    async def append(self, turn: OpenTurn, *tokens: str) -> None:
        """What the model says."""
        await asyncio.gather(*(self.rig.turns.append(turn.lease, turn.text, token) for token in tokens))

    async def close(self) -> None:
        """All readers leave."""
        for reader in self.readers:
            assert reader.task is not None
            reader.task.cancel()
            await asyncio.gather(reader.task, return_exceptions=True)
            await reader.follower.release()


@pytest_asyncio.fixture(loop_scope="module")
async def bench(redis_server: EmbeddedRedis, redis_prefix: str) -> AsyncIterator[Bench]:
    settings = Settings(redis=RedisSettings(url=redis_server.url, prefix=redis_prefix))
    services = await connect_services(settings)
    made = Bench(services, Keyspace(redis_prefix), redis_server)
    yield made
    await made.close()
    await services.close()


def output(turn: OpenTurn, kind: str = "ui") -> TurnOutput:
    turn_id = turn.lease.turn_id
    if kind == "ui":
        return UiOutput(TurnToStream(turn_id))
    return AguiOutput(turn_id, AguiStream(), "", newest=False, has_cursors=True)


async def says(text: str, *readers: Reader) -> None:
    """All have been sent that, once each."""
    await wait_until(lambda: all(len(one.text) >= len(text) for one in readers), 5.0, text)
    assert [one.text for one in readers] == [text] * len(readers)


@pytest.mark.parametrize("kind", ["ui", "agui"])
async def test_readers_in_step_share_each_chunk(bench: Bench, kind: str) -> None:
    turn = await bench.rig.open_text("chat:1")
    await bench.append(turn, "a ")
    early = [await bench.reader("chat:1", output(turn, kind)) for _ in range(2)]
    await bench.append(turn, "b ")
    await says("a b ", *early)
    late = await bench.reader("chat:1", output(turn, kind))
    before = [len(one.chunks) for one in early]
    await bench.append(turn, "c ")
    await says("a b c ", *early, late)
    # The same object, not an equal one: it was made once.
    assert early[0].chunks[before[0]] is early[1].chunks[before[1]] is late.chunks[-1]


@pytest.mark.parametrize("kind", ["ui", "agui"])
async def test_who_falls_behind_continues_where_it_was(
    bench: Bench, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_outlet, "MAX_WAITING_BYTES", 2000)
    turn = await bench.rig.open_text("chat:2")
    quick = await bench.reader("chat:2", output(turn, kind))
    slow = await bench.reader("chat:2", output(turn, kind), reads=False)
    said = ""
    for number in range(100):
        await bench.append(turn, f"{number} ")
        said += f"{number} "
        await says(said, quick)
    assert len(slow.text) < len(said)
    slow.reads.set()
    await says(said, quick, slow)
    await bench.append(turn, "end")
    await says(said + "end", quick, slow)
    # What it had not read left as one.
    assert len(slow.chunks) < 60


@pytest.mark.parametrize("kind", ["ui", "agui"])
async def test_after_a_gap_all_get_what_they_missed(bench: Bench, kind: str) -> None:
    turn = await bench.rig.open_text("chat:3")
    readers = [await bench.reader("chat:3", output(turn, kind)) for _ in range(2)]
    await bench.append(turn, "a ")
    await says("a ", *readers)
    feed = bench.services.hub.feed("chat:3")
    assert feed is not None
    for _ in range(2):
        await bench.append(turn, "b ")
        feed.lost(error_info(Code.CONTINUITY_EXPIRED))
    await says("a b b ", *readers)
    await bench.append(turn, "c ")
    await says("a b b c ", *readers)


async def test_reading_further_back_for_one_disturbs_no_other(bench: Bench) -> None:
    old = await bench.rig.open_text("chat:4")
    await bench.append(old, "old")
    turn = await bench.rig.open_text("chat:4")
    reader = await bench.reader("chat:4", output(turn))
    said = ""
    for number in range(40):
        said += f"{number} "
        await asyncio.gather(
            bench.append(turn, f"{number} "),
            reader.follower.need(lambda tree: TreeView(tree).is_read(1000)),
        )
    await says(said, reader)


async def test_with_the_last_reader_nothing_stays(bench: Bench) -> None:
    turn = await bench.rig.open_text("chat:5")
    readers = [await bench.reader("chat:5", output(turn)) for _ in range(2)]
    (tail,) = session_tail._TAILS[bench.services.hub].values()
    assert list(tail.readers) and len(tail._steps) == 1
    await bench.close()
    assert not session_tail._TAILS[bench.services.hub] and not tail._steps and not tail.readers
    feed = bench.services.hub.feed("chat:5")
    assert feed is not None and feed.idle
    assert not bench.services.streams and not bench.services._streams_of
    assert all(one.task is not None and one.task.done() for one in readers)
