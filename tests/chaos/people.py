"""What goes on meanwhile: people who send, interrupt, cancel and leave, and one who only watches."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from dataclasses import dataclass, field

from selfhost_transport import ClientTransport, Turn
from selfhost_transport.client.transport import Connecting
from selfhost_transport.errors import TransportError
from tests.chaos.readers import Reader
from tests.e2e.proxy import Network
from tests.e2e.stage import KEY
from tests.e2e.stage import turn_id as id_of

PATIENCE_S = 60.0
# Once nothing is broken any more: how many turns have to go through, and how quickly each for all.
QUIET_TURNS = 6
QUIET_S = 6.0


@dataclass(slots=True)
class Conversation:
    """One session with someone in it. `sent`: turn id -> the text its answer must be, for accepted sends."""

    session: str
    sent: dict[str, str] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    # What the watcher, who was there all the time, has seen of each turn in the end.
    watched: dict[str, str] = field(default_factory=dict)
    reader: Reader = field(default_factory=Reader)
    breaches: Counter[str] = field(default_factory=Counter)
    # Set once everything that was said here has ended.
    silent: asyncio.Event = field(default_factory=asyncio.Event)

    async def go_on(
        self, networks: list[Network], stop: asyncio.Event, over: asyncio.Event, chance: random.Random
    ) -> None:
        """Talk until asked to stop; wait for all that was accepted to end, and until it is over for others too.

        The last word is said here: who has seen it end was given the whole log.
        """
        async with (
            self._connect(networks, "talker", chance) as talker,
            self._connect(networks, "watcher", chance) as watcher,
        ):
            self.reader.follow(watcher)
            number = 0
            while not stop.is_set():
                await self._say(talker, number, chance)
                number += 1
                await asyncio.sleep(chance.uniform(0.05, 0.8))
            await self._all_ended(talker)
            await self._all_ended(watcher)
            self.silent.set()
            await over.wait()
            for quiet in range(QUIET_TURNS):
                await self._say_quietly(talker, watcher, number + quiet)
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
                case 3:
                    turn = await self._send_twice(talker, text)
                case _:
                    turn = await talker.view.send(text)
        except TransportError as error:
            self.refused[f"{type(error).__name__} {error.info.code}"] += 1
            return
        self._note(turn, " ".join(words))

    async def _send_twice(self, talker: ClientTransport, text: str) -> Turn:
        """The same send again, while the first is on its way."""
        same = str(uuid.uuid4())
        first, second = await asyncio.gather(talker.view.send(text, id=same), talker.view.send(text, id=same))
        self.breaches["sends repeated that became two turns"] += first.turn_id != second.turn_id
        return first

    async def _say_quietly(self, talker: ClientTransport, watcher: ClientTransport, number: int) -> None:
        """Nothing is broken now: a turn begins and ends at once, for all."""
        words = [f"{self.session}.{number}.{word}" for word in range(10)]
        try:
            async with asyncio.timeout(QUIET_S):
                turn = await talker.view.send(f"script: rate=300 say={' '.join(words)}")
                self._note(turn, " ".join(words))
                await turn.ended
                await watcher.turn(id_of(turn)).ended
        except (TimeoutError, TransportError):
            self.breaches["turns that were late though nothing was broken"] += 1

    async def _all_ended(self, client: ClientTransport) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                for turn in self.sent:
                    await client.turn(turn).ended
        except (TimeoutError, TransportError):
            self.breaches["turns that a reader never saw end"] += 1

    def _note(self, turn: Turn, answer: str) -> None:
        self.sent[id_of(turn)] = answer

    def _connect(self, networks: list[Network], client_id: str, chance: random.Random) -> Connecting:
        urls = [network.url for network in chance.sample(networks, len(networks))]
        return ClientTransport.connect(
            urls[0], endpoints=urls[1:], channel=self.session, client_id=client_id, key=KEY, within=PATIENCE_S
        )
