"""One tree, one branch, one context: for every reader of a session, and however little of it at a time (P14)."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio

from agent_worker.agent import conversation as worker_reading
from agent_worker.agent.conversation import Conversation
from gateway.commands import branch
from gateway.commands.branch import find_parent
from selfhost_transport import ClientTransport
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_request import pack_context
from selfhost_transport.store.turn_store import Lease
from selfhost_transport.turns.headers import Headers
from selfhost_transport.turns.prompt import build_prompt
from selfhost_transport.turns.ui import ConversationMessage
from selfhost_transport.turns.view import TreeView
from tests.conversations import Talk
from tests.e2e.stage import KEY
from tests.processes import Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = os.environ.get("SELFHOST_TRANSPORT_LONG") == "1"
EXAMPLES = 10_000 if LONG else 40
BLOCK = 20
CONFIG = f"""
[[keys]]
name = "{KEY.partition(":")[0]}"
secret = "{KEY.partition(":")[2]}"
"""


@dataclass(frozen=True)
class Site:
    """A gateway, and the store behind it."""

    url: str
    sessions: SessionStore

    def http(self) -> httpx.AsyncClient:
        base = self.url.replace("ws", "http", 1)
        return httpx.AsyncClient(base_url=base, auth=httpx.BasicAuth(*KEY.split(":")), trust_env=False)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with Stack.opened(redis_server.url, tmp_path_factory.mktemp("site")) as stack:
        gateway = await stack.gateway(config=CONFIG)
        connection = RedisConnection(redis_server.url)
        yield Site(gateway.url, SessionStore(connection, Keyspace(stack.redis_prefix)))
        await connection.close()


def length(dice: random.Random, example: int) -> int:
    """Mostly a few turns; now and then many."""
    if example % 500 == 10 and LONG:
        return dice.randint(100, 300)
    return 1 + min(60, int(dice.expovariate(1 / 6)))


@pytest.mark.timeout(900 if LONG else 120)
@pytest.mark.parametrize("block", range(EXAMPLES // BLOCK))
async def test_every_reader_has_the_same_conversation(
    site: Site, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    async with site.http() as http:
        for example in range(block * BLOCK, (block + 1) * BLOCK):
            dice = random.Random(example)
            monkeypatch.setattr(branch, "PAGE", dice.choice((3, 20, 200)))
            monkeypatch.setattr(worker_reading, "PAGE", dice.choice((3, 20, 500)))
            talk = Talk(site.sessions, f"talk:{uuid.uuid4().hex}", example)
            await talk.run(length(dice, example), foreign=dice.choice((1, 5, 150)))
            await check(site, http, talk, dice, example)


async def check(site: Site, http: httpx.AsyncClient, talk: Talk, dice: random.Random, example: int) -> None:
    whole = TreeView(talk.tree).messages()
    assert talk.view.messages() == whole, example
    await check_client(site, talk, whole, dice, example)
    limit = dice.choice((1, 2, 7, 50))
    found = await http.get(f"/v1/sessions/{talk.session}/messages", params={"limit": limit})
    listed = found.json()
    assert listed["messages"] == [message.to_json() for message in whole[-limit:]], (example, limit)
    assert listed["truncated"] or len(listed["messages"]) == len(whole), (example, limit)
    assert await find_parent(site.sessions, talk.session, Headers({}, {})) == whole[-1].codec_message_id
    await check_worker(site, talk, dice, example)


async def check_client(
    site: Site, talk: Talk, whole: list[ConversationMessage], dice: random.Random, example: int
) -> None:
    """A late device, with any part of the history: it shows the newest messages, and older ones as asked for."""
    shown, size = dice.choice((0, 1, 2, 10, 100)), dice.choice((2, 10, 20, 100))
    async with ClientTransport.connect(
        site.url, channel=talk.session, key=KEY, client_id="late", history_limit=shown, page_size=size
    ) as late:
        count = min(shown, len(whole))
        while True:
            assert late.view.messages == whole[len(whole) - count :], (example, shown, size, count)
            if not late.view.has_older:
                break
            step = dice.choice((1, 2, 5, 50))
            expected = min(step, len(whole) - count)
            assert len(await late.view.load_older(step)) == expected, (example, shown, size, count, step)
            count += expected
        assert count == len(whole)
        assert {turn.run_id: turn for turn in late.turns()} == {
            turn.run_id: turn for turn in talk.tree.turns()
        }


async def check_worker(site: Site, talk: Talk, dice: random.Random, example: int) -> None:
    """What the model is given, for any question: its whole branch, or exactly the last messages asked for."""
    epoch = (await site.sessions.open(talk.session)).epoch
    for turn in dice.sample(talk.turns, min(3, len(talk.turns))):
        lease = Lease(
            talk.session, turn.context.turn_id, 1, 1, 3, turn.step_start, epoch, turn.position,
            pack_context(turn.context),
        )  # fmt: skip
        reading = Conversation(site.sessions.history, lease, turn.context)
        expected = build_prompt(talk.tree, reading.trigger)
        assert await reading.messages(with_reasoning=True) == expected, (example, turn.trigger)
        last = dice.choice((1, 3, 10))
        given = await reading.messages(with_reasoning=True, last=last)
        assert given == expected[-last:], (example, turn.trigger, last)
