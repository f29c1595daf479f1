"""Runs people and faults side by side for a while, mends everything, and counts."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from selfhost_transport.settings import ENV_PREFIX
from selfhost_transport.store.turn_store import TurnStore
from selfhost_transport.turns.status import TurnStatus
from tests.chaos.agents import SILENT, WORKER
from tests.chaos.faults import LEASE_S, Faults
from tests.chaos.people import Conversation
from tests.chaos.readers import stored_messages
from tests.chaos.servers import many_servers, one_server
from tests.chaos.sockets import Asker, Publisher, Stopper
from tests.chaos.verdict import judge, make_witness, watch
from tests.e2e.proxy import Network
from tests.e2e.stage import CONFIG, Stage
from tests.processes import wait_until

PREFIX = "chaos"
# A turn may meet many dying workers here; it is not what is tried out.
_SILENT = f'\n[[namespaces]]\nid = "{SILENT}"\nagent = "{SILENT}"\n'
ENVIRONMENT = {f"{ENV_PREFIX}LEASE_MS": str(int(LEASE_S * 1000)), f"{ENV_PREFIX}MAX_ATTEMPTS": "50"}


async def run(
    folder: Path, seconds: float, *, sessions: int, seed: int, cluster: bool = False
) -> Counter[str]:
    """Counts of what happened and of what must not; on one Redis that keeps its data over restarts, or on a Cluster."""
    chance = random.Random(seed)
    async with (many_servers if cluster else one_server)(folder, chance) as servers:
        stage = await Stage.make(
            servers.url, PREFIX, folder, gateways=2, workers=0, config=CONFIG + _SILENT, env=ENVIRONMENT
        )
        try:
            for _ in range(2):
                await stage.add_worker(WORKER)
            async with AsyncExitStack() as networks:
                cables = [
                    await networks.enter_async_context(Network(gateway.port)) for gateway in stage.gateways
                ]
                faults = Faults(stage, servers, cables, chance)
                return await _run(stage, faults, seconds, sessions, seed)
        finally:
            await stage.close()


async def _run(stage: Stage, faults: Faults, seconds: float, sessions: int, seed: int) -> Counter[str]:
    conversations = [Conversation(stage.session()) for _ in range(sessions)]
    asker = Asker(stage.session(SILENT))
    asked = make_witness(stage.store, stage.keys, asker.session)
    witnesses = [make_witness(stage.store, stage.keys, one.session) for one in conversations]
    stop, over, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
    watching = asyncio.create_task(watch([*witnesses, asked], done))
    publishers = [Publisher(one.session) for one in conversations]
    stoppers = [Stopper(one.session) for one in conversations]
    urls = [gateway.url for gateway in stage.gateways]
    async with asyncio.TaskGroup() as readers:
        async with asyncio.TaskGroup() as group:
            for number, conversation in enumerate(conversations):
                chance = random.Random(seed * 1000 + number)
                readers.create_task(conversation.go_on(faults.networks, stop, over, chance))
                group.create_task(publishers[number].go_on(urls, stop, random.Random(chance.random())))
                group.create_task(stoppers[number].go_on(urls, stop, random.Random(chance.random())))
                group.create_task(conversation.silent.wait())
            group.create_task(asker.go_on(urls, stop, random.Random(seed)))
            group.create_task(faults.freeze_beside(stop))
            await faults.go_on(seconds)
            stop.set()
        # A turn whose stopper was cut off goes on by itself: the readers stay until it has ended too.
        left = [await _left_open(stage, session) for session in _sessions(conversations, asker)]
        over.set()
    done.set()
    await watching
    found: Counter[str] = Counter({f"fault {name}": count for name, count in faults.done.items()})
    found["turns that stay open"] = sum(left)
    await asked.look()
    found += judge(asked, asker.turns, (), ())
    for number, (conversation, witness) in enumerate(zip(conversations, witnesses, strict=True)):
        await witness.look()
        found += judge(witness, conversation.sent, stoppers[number].turns, publishers[number].accepted)
        found += conversation.breaches + stoppers[number].found
        epoch = (await witness.store.open(conversation.session)).epoch
        conversation.reader.compare(stored_messages(witness.entries, epoch), found)
        found += await _late_joiner(stage, conversation)
        found.update({f"refused {name}": count for name, count in conversation.refused.items()})
    return found


def _sessions(conversations: list[Conversation], asker: Asker) -> list[str]:
    return [*(conversation.session for conversation in conversations), asker.session]


async def _left_open(stage: Stage, session: str) -> int:
    """Turns that have no end, once everything has had its time: nothing is broken any more."""
    turns = TurnStore(stage.store, stage.keys)

    async def none() -> bool:
        return not await turns.active(session)

    with contextlib.suppress(AssertionError):
        await wait_until(none, 40, "the last turns")
    return len(await turns.active(session))


async def _late_joiner(stage: Stage, conversation: Conversation) -> Counter[str]:
    """Someone who was not there reads the conversation: complete answers are whole, cut ones are a beginning."""
    found: Counter[str] = Counter()
    async with stage.connect(conversation.session, "late") as late:
        while late.view.has_older:
            await late.view.load_older(100)
        for turn_id, answer in conversation.sent.items():
            turn = late.turn(turn_id)
            text = turn.text.strip()
            whole = text == answer if turn.status is TurnStatus.COMPLETED else answer.startswith(text)
            found["texts that are wrong"] += not whole
            found["texts of another"] += not _only_of(text, answer.split())
            found["watchers that saw something else"] += conversation.watched[turn_id].strip() != text
    return found


def _only_of(text: str, words: Sequence[str]) -> bool:
    marker = words[0].rsplit(".", 1)[0] + "."
    return all(
        word.startswith(marker) or words[len(text.split()) - 1].startswith(word) for word in text.split()
    )
