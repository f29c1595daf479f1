"""What goes on meanwhile: people who send, interrupt, cancel and leave, and one who only watches."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

from selfhost_transport import ClientTransport, Turn
from selfhost_transport.client.transport import Connecting
from selfhost_transport.errors import TransportError
from tests.e2e.proxy import Network
from tests.e2e.stage import KEY
from tests.e2e.stage import turn_id as id_of

PATIENCE_S = 60.0


@dataclass(slots=True)
class Conversation:
    """One session with somebody in it. `sent`: turn id -> the text its answer must be, for accepted sends."""

    session: str
    sent: dict[str, str] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    # What the watcher, who was there all the time, has seen of each turn in the end.
    watched: dict[str, str] = field(default_factory=dict)

    async def go_on(self, networks: list[Network], stop: asyncio.Event, chance: random.Random) -> None:
        """Talk until told to stop; then wait for everything that was accepted to end."""
        async with (
            self._connect(networks, "talker", chance) as talker,
            self._connect(networks, "watcher", chance) as watcher,
        ):
            number = 0
            while not stop.is_set():
                await self._say(talker, number, chance)
                number += 1
                await asyncio.sleep(chance.uniform(0.05, 0.8))
            await _all_ended(talker, self.sent)
            await _all_ended(watcher, self.sent)
            self.watched = {turn: watcher.turn(turn).text for turn in self.sent}

    async def _say(self, talker: ClientTransport, number: int, chance: random.Random) -> None:
        words = [f"{self.session}.{number}.{word}" for word in range(chance.randrange(5, 150))]
        text = f"script: rate={chance.choice((15, 50, 300))} say={' '.join(words)}"
        try:
            match chance.randrange(12):
                case 0:
                    turn = await talker.interrupt(text)
                case 1:
                    turn = await talker.view.send(text)
                    await asyncio.sleep(chance.uniform(0, 0.5))
                    await turn.cancel()
                case 2:
                    turn = await talker.view.send(text)
                    await talker.cancel()
                case _:
                    turn = await talker.view.send(text)
        except TransportError as error:
            self.refused[f"{type(error).__name__} {error.info.code}"] += 1
            return
        self._note(turn, " ".join(words))

    def _note(self, turn: Turn, answer: str) -> None:
        self.sent[id_of(turn)] = answer

    def _connect(self, networks: list[Network], client_id: str, chance: random.Random) -> Connecting:
        urls = [network.url for network in chance.sample(networks, len(networks))]
        return ClientTransport.connect(
            urls[0], endpoints=urls[1:], channel=self.session, client_id=client_id, key=KEY, within=PATIENCE_S
        )


async def _all_ended(client: ClientTransport, turns: dict[str, str]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        for turn in turns:
            await client.turn(turn).ended
