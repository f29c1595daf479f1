"""Bare sockets and bare HTTP beside the SDK: what an acknowledgement promises, checked where it arrives."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from selfhost_transport.turns import headers as h
from selfhost_transport.turns.context import turn_id_for
from selfhost_transport.turns.inputs import InputIds, cancel, user_message
from selfhost_transport.turns.ui import TextPart
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.frame import Frame, decode_frame, encode_frame
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position, parse_position
from tests.e2e.stage import KEY
from tests.worker.session import run_of

_AFTER_S = 0.4
_PATIENCE_S = 8.0
# Long, so that the cancel comes before the end; a turn whose episode is cut short goes on for 25 s.
ASKED = "script: tokens=5000 rate=200"


@dataclass(slots=True)
class Publisher:
    """Publishes plain messages over HTTP, each under an id of its own, twice where the first answer does not come."""

    session: str
    accepted: set[str] = field(default_factory=set)

    async def go_on(self, urls: list[str], stop: asyncio.Event, chance: random.Random) -> None:
        """Until asked to stop."""
        name, _, secret = KEY.partition(":")
        async with httpx.AsyncClient(auth=(name, secret), timeout=5.0) as http:
            while not stop.is_set():
                await self._publish(http, urls, chance)
                await asyncio.sleep(chance.uniform(0.02, 0.3))  # the pace of an application

    async def _publish(self, http: httpx.AsyncClient, urls: list[str], chance: random.Random) -> None:
        name = f"note-{uuid.uuid4()}"
        body = {"id": name, "name": "note", "data": name}
        for _ in range(2 if chance.random() < 0.5 else 1):
            try:
                answer = await http.post(f"{chance.choice(urls)}/channels/{self.session}/messages", json=body)
            except httpx.HTTPError:
                continue
            if answer.status_code == 201:
                self.accepted.add(name)


@dataclass(slots=True)
class Asker:
    """Asks the silent agent, several times a second. `turns`: those that were accepted."""

    session: str
    turns: set[str] = field(default_factory=set)

    async def go_on(self, urls: list[str], stop: asyncio.Event, chance: random.Random) -> None:
        """Until asked to stop."""
        name, _, secret = KEY.partition(":")
        async with httpx.AsyncClient(auth=(name, secret), timeout=5.0) as http:
            while not stop.is_set():
                try:
                    url = f"{chance.choice(urls)}/v1/sessions/{self.session}/turns"
                    answer = await http.post(url, json={"text": "and?", "parent": None})
                    if answer.status_code == 202:
                        self.turns.add(answer.json()["turnId"])
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(chance.uniform(0.1, 0.3))  # the pace of a person in a hurry


@dataclass(slots=True)
class Stopper:
    """Sends and cancels over a bare socket, and looks at the order in which frames arrive."""

    session: str
    found: Counter[str] = field(default_factory=Counter)
    # Turns that may have begun here; their answers are whatever was said until the cancel.
    turns: set[str] = field(default_factory=set)

    async def go_on(self, urls: list[str], stop: asyncio.Event, chance: random.Random) -> None:
        """One episode after the other; one that a fault cuts short says nothing."""
        while not stop.is_set():
            url = chance.choice(urls).replace("http://", "ws://")
            try:
                async with (
                    asyncio.timeout(_PATIENCE_S),
                    connect(f"{url}/?key={KEY}&clientId=stopper&v=6&format=json", compression=None) as socket,
                ):
                    await self._episode(socket, chance)
                    self.found["cancels on bare sockets"] += 1
            except (OSError, TimeoutError, WebSocketException, Refused):
                self.found["episodes cut short"] += 1
            await asyncio.sleep(chance.uniform(0.1, 0.6))

    async def _episode(self, socket: ClientConnection, chance: random.Random) -> None:
        ids = InputIds()
        said = user_message([TextPart(ASKED)], ids, client_id="stopper")
        turn = turn_id_for(self.session, ids.codec_message_id)
        await _send(socket, Frame(Action.ATTACH, channel=self.session))
        await next_frame(socket, Action.ATTACHED)
        # Its acknowledgement may be lost.
        self.turns.add(turn)
        await _send(socket, Frame(Action.MESSAGE, channel=self.session, msg_serial=0, messages=said))
        await next_frame(socket, Action.ACK)
        await _hear(socket, chance.uniform(0.0, 0.4))
        stop = cancel(event_id=str(uuid.uuid4()), run_id=turn)
        await _send(socket, Frame(Action.MESSAGE, channel=self.session, msg_serial=1, messages=[stop]))
        acknowledged = await next_frame(socket, Action.ACK)
        receipt = acknowledged.res[0].cancel if acknowledged.res else None
        if receipt is None:
            raise Refused
        sealed = parse_position(receipt.position)[0]
        for frame in await _hear(socket, _AFTER_S):
            self._judge(frame, sealed, turn)

    def _judge(self, frame: Frame, sealed: Position, turn: str) -> None:
        if frame.action != Action.MESSAGE or frame.channel_serial is None:
            return
        position = parse_position(frame.channel_serial)[0]
        self.found["frames after an acknowledgement that were before it"] += position <= sealed
        for message in frame.messages or ():
            if message.name == h.AI_OUTPUT and run_of(message) == turn and _says(message):
                self.found["content after an acknowledged cancel"] += 1


class Refused(Exception):
    """The service said no, or something else than it was asked."""


def _says(message: Message) -> bool:
    headers = h.read_headers(message)
    return bool(message.data) and headers is not None and headers.is_stream


async def _send(socket: ClientConnection, frame: Frame) -> None:
    await socket.send(encode_frame(frame, Format.JSON).decode())


async def next_frame(socket: ClientConnection, wanted: Action) -> Frame:
    """The next frame of that kind; what comes before it is passed over."""
    while True:
        frame = decode_frame(await socket.recv(), Format.JSON)
        if frame.action in (Action.NACK, Action.ERROR, Action.DISCONNECTED, Action.DETACHED):
            raise Refused
        if frame.action == wanted:
            return frame


async def _hear(socket: ClientConnection, seconds: float) -> list[Frame]:
    """Everything that arrives for so long."""
    heard: list[Any] = []
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while (left := until - loop.time()) > 0:
        try:
            async with asyncio.timeout(left):
                heard.append(decode_frame(await socket.recv(), Format.JSON))
        except TimeoutError:
            break
    return heard
