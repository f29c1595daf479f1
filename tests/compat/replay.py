"""Plays a recorded client against a real gateway: its sockets, frames and requests, in their order.

What the recording's server had made up (serials, connection ids and keys, tokens) is replaced by what the gateway
made up in its place, wherever the client repeats it. Channels are put into a namespace of the run's own.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from base64 import b64decode, b64encode
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote_plus, urlencode

import httpx
import jwt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from selfhost_transport.wire.actions import Action, Flag
from selfhost_transport.wire.codec import Format, pack, unpack, unpack_map
from tests.compat.rules import check_frame, check_reply
from tests.wire.recordings import SECRET, as_sent

KEY_NAME = "app1.key1"
ANSWER_TIMEOUT_S = 30.0
# Refusals that the recording's server made up, or that this service never makes: (action, code) and what is expected instead.
NOT_HERE = {
    (Action.NACK, 93002): Action.ACK,  # every session may be appended to (RUL-1)
    (Action.NACK, 40160): Action.ACK,  # the recorded server was asked to refuse one frame
}

Map = dict[str, Any]


@dataclass
class _Peer:
    """One socket of the recorded client."""

    websocket: ClientConnection
    fmt: Format
    frames: list[Map] = field(default_factory=list)
    attached: set[str] = field(default_factory=set)
    # The last position received per channel, with which an SDK attaches again.
    positions: dict[str, str] = field(default_factory=dict)
    serial: int = 0
    key: str = ""
    recorded_id: str = ""
    client_id: str | None = None
    closing: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> None:
        """Check and keep every frame until the socket is closed."""
        try:
            async for raw in self.websocket:
                assert isinstance(raw, str) == (self.fmt is Format.JSON), "a frame in the wrong format"
                frame = unpack_map(raw, self.fmt)
                check_frame(frame)
                if "channelSerial" in frame and frame["action"] != Action.SYNC:
                    self.positions[frame["channel"]] = frame["channelSerial"]
                self.frames.append(frame)
                self.changed.set()
        except ConnectionClosed:
            pass

    async def wait(self, what: str, *actions: int, **fields: Any) -> Map:
        """The first frame with one of these actions and these fields; it is taken."""
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            while True:
                for frame in self.frames:
                    if frame["action"] in actions and all(frame.get(k) == v for k, v in fields.items()):
                        self.frames.remove(frame)
                        return frame
                self.changed.clear()
                await self.changed.wait()
        raise AssertionError(what)


class Replay:
    """One run of one scenario. `play` raises AssertionError where the gateway answers unlike the SDK needs."""

    def __init__(self, url: str, run: Map, fmt: Format, name: str) -> None:
        self._url = url
        self._events: list[Map] = run["events"]
        self._fmt = fmt
        self._name = name
        self._given: dict[str, str] = {}
        self._peers: list[_Peer] = []
        self._next_query: Map | None = None
        self._readers: list[asyncio.Task[None]] = []
        self.answered = 0

    async def play(self) -> None:
        """The whole recording."""
        async with AsyncExitStack() as stack, httpx.AsyncClient(base_url=self._url) as http:
            for index, event in enumerate(self._events):
                match event["dir"]:
                    case "ws-open":
                        await self._open(stack, event["query"], index)
                    case "c2s":
                        await self._frame(as_sent(event["msg"]), index)
                    case "http-req":
                        await self._request(http, event, index)
            for peer in self._peers:
                peer.websocket.transport.abort()
            await asyncio.gather(*self._readers)

    # Sockets

    async def _open(self, stack: AsyncExitStack, recorded: Map, index: int) -> None:
        query = {name: self._replaced(value) for name, value in recorded.items()}
        for name in ("access_token", "accessToken"):
            if name in query:
                query[name] = self._token(recorded[name])
        resumed = query.get("resume") or query.get("recover")
        gone = [peer for peer in self._peers if resumed and peer.key == resumed]
        for peer in gone:
            peer.websocket.transport.abort()
            peer.closing = True
        address = f"{self._url.replace('http', 'ws', 1)}/?{urlencode(query)}"
        websocket = await stack.enter_async_context(connect(address, compression=None, max_size=None))
        peer = _Peer(websocket, Format(query.get("format", "json")))
        self._readers.append(asyncio.create_task(peer.read()))
        self._peers.append(peer)
        for old in gone:
            peer.positions.update(old.positions)
        first = await peer.wait("the first frame", Action.CONNECTED, Action.DISCONNECTED, Action.ERROR)
        recording = self._recorded_after(index, Action.CONNECTED, Action.DISCONNECTED, Action.ERROR)
        self._compare_first(recording, first, bool(resumed))
        peer.key = first.get("connectionKey", "")
        peer.client_id = first.get("connectionDetails", {}).get("clientId")
        peer.recorded_id = recording.get("connectionId", "")
        peer.closing = first["action"] == Action.ERROR
        self.answered += 1

    def _compare_first(self, recorded: Map, first: Map, resumed: bool) -> None:
        code = recorded.get("error", {}).get("code")
        if recorded["action"] == Action.ERROR:
            assert (first["action"], first["error"]["code"]) == (Action.ERROR, code), first
        if recorded["action"] != Action.CONNECTED:
            return
        assert first["action"] == Action.CONNECTED, first
        if resumed:
            # Every authentic key is honoured, however old (section 4.5): the recorded failures cannot happen here.
            assert "error" not in first, first
        if "clientId" in recorded["connectionDetails"]:
            assert first["connectionDetails"]["clientId"] == recorded["connectionDetails"]["clientId"]
        self._learn(recorded["connectionId"], first["connectionId"])
        if "connectionKey" in recorded:
            self._learn(recorded["connectionKey"], first["connectionKey"])

    def _peer_for(self, frame: Map, index: int) -> _Peer:
        """Recordings do not say which socket a frame was sent on; its echo, numbers and attachments do."""
        alive = [peer for peer in self._peers if not peer.closing]
        assert alive, "the gateway closed a socket the recorded client went on with"
        channel = frame.get("channel")
        newest = alive[::-1]
        if frame["action"] in (Action.MESSAGE, Action.PRESENCE):
            numbered = [peer for peer in newest if peer.serial == frame.get("msgSerial", 0)]
            at_home = [peer for peer in numbered if channel in peer.attached]
            named = [peer for peer in newest if peer.recorded_id == self._echoed_as(index)]
            return (named or at_home or numbered or newest)[0]
        if frame["action"] == Action.ATTACH:
            return next((peer for peer in alive if channel not in peer.attached), newest[0])
        if frame["action"] == Action.DETACH:
            return next((peer for peer in newest if channel in peer.attached), newest[0])
        return alive[0] if frame["action"] == Action.CLOSE else newest[0]

    def _echoed_as(self, index: int) -> str | None:
        """The connection that a published frame was delivered as coming from."""
        sent: Map = self._events[index]["msg"]
        for event in self._events[index + 1 : index + 12]:
            frame: Map = event.get("msg", {})
            base, _, number = frame.get("id", "").partition(":")
            same = (frame.get("action"), frame.get("channel")) == (sent["action"], sent["channel"])
            if event["dir"] == "s2c" and same and number == str(sent.get("msgSerial", 0)):
                return str(base)
        return None

    # Frames

    async def _frame(self, recorded: Map, index: int) -> None:
        frame = self._replaced(recorded)
        peer = self._peer_for(frame, index)
        if frame["action"] == Action.AUTH:
            refused = self._recorded_after(index, Action.CONNECTED, Action.ERROR)["action"] == Action.ERROR
            # The recorded server refused a good token once; this one is refused for its identity.
            token = self._signed({"x-ably-clientId": "another"}) if refused else ""
            frame["auth"] = {"accessToken": token or self._token(recorded["auth"]["accessToken"])}
        if frame["action"] == Action.ATTACH and frame.get("channelSerial"):
            frame["channelSerial"] = peer.positions.get(frame["channel"], frame["channelSerial"])
        raw = pack(frame, peer.fmt)
        await peer.websocket.send(raw.decode() if peer.fmt is Format.JSON else raw)
        match frame["action"]:
            case Action.HEARTBEAT:
                await peer.wait("the heartbeat", Action.HEARTBEAT, id=frame["id"])
            case Action.ATTACH:
                await self._attach(peer, frame, index)
            case Action.DETACH:
                await peer.wait("DETACHED", Action.DETACHED, channel=frame["channel"])
                peer.attached.discard(frame["channel"])
            case Action.PRESENCE | Action.MESSAGE:
                await self._answer(peer, frame, recorded, index)
            case Action.AUTH:
                answer = self._recorded_after(index, Action.CONNECTED, Action.ERROR)
                got = await peer.wait("the new terms", Action.CONNECTED, Action.ERROR)
                assert got["action"] == answer["action"], got
                assert got.get("error", {}).get("code") == answer.get("error", {}).get("code"), got
                peer.closing = got["action"] == Action.ERROR
            case Action.CLOSE:
                await peer.wait("CLOSED", Action.CLOSED)
                peer.closing = True
            case Action.DISCONNECT:
                await peer.websocket.wait_closed()
                peer.closing = True
        self.answered += 1

    async def _attach(self, peer: _Peer, frame: Map, index: int) -> None:
        channel = frame["channel"]
        recorded = self._recorded_after(
            index, Action.ATTACHED, Action.ERROR, channel=self._events[index]["msg"]["channel"]
        )
        got = await peer.wait("ATTACHED", Action.ATTACHED, Action.ERROR, channel=channel)
        if channel.startswith("denied:"):
            assert (got["action"], got["error"]["code"]) == (Action.ERROR, 40160), got
            return
        assert got["action"] == recorded["action"], got
        if frame.get("channelSerial") and recorded["flags"] & Flag.RESUMED:
            assert got["flags"] & Flag.RESUMED, "continuity was lost although the log has everything"
        assert set(got.get("params") or {}) <= set(frame.get("params") or {})
        assert "agent" not in (got.get("params") or {})
        peer.attached.add(channel)
        self._learn(recorded["channelSerial"], got["channelSerial"])

    async def _answer(self, peer: _Peer, frame: Map, recorded: Map, index: int) -> None:
        serial = frame.get("msgSerial", 0)
        peer.serial = serial + 1
        got = await peer.wait(f"an answer to {serial}", Action.ACK, Action.NACK, msgSerial=serial)
        answer = self._recorded_after(index, Action.ACK, Action.NACK, msgSerial=serial)
        code = answer.get("error", {}).get("code")
        expected = NOT_HERE.get((answer["action"], code), answer["action"])
        if refusal := self._refusal(recorded, peer):
            expected, code = Action.NACK, refusal
        assert got["action"] == expected, got
        assert got["count"] == 1
        if got["action"] == Action.NACK:
            assert got["error"]["code"] == code, got
        elif frame["action"] == Action.MESSAGE:
            (result,) = got["res"]
            assert len(result["serials"]) == len(frame["messages"])
            theirs = answer.get("res", [{}])[0].get("serials", [])
            for old, new in zip(theirs, result["serials"], strict=False):
                self._learn(old, new)

    def _refusal(self, recorded: Map, peer: _Peer) -> int | None:
        """The code for what the recorded server let pass: invented serials, and acting in another's name (7.2, 7.3)."""
        for message in recorded.get("messages") or []:
            if "serial" in message and message["serial"] not in self._given:
                return 40400
            operator = (message.get("version") or {}).get("clientId", peer.client_id)
            if peer.client_id not in ("*", operator):
                return 40012
        return None

    # Requests

    async def _request(self, http: httpx.AsyncClient, event: Map, index: int) -> None:
        recorded = next(e for e in self._events[index:] if e["dir"] == "http-res")
        query, follows = dict(event["query"]), "off" in event["query"]
        if follows and self._next_query is not None:
            query = {**self._next_query, **{k: v for k, v in query.items() if k in ("envelope", "rnd")}}
        refused = recorded["headers"].get("x-ably-errorcode") == "40142"
        headers = {name: self._header(name, value, refused) for name, value in event["headers"].items()}
        path = "/".join(self._segment(segment) for segment in event["path"].split("/"))
        body = self._body(event, path)
        content = None
        if body is not None:
            msgpack = "msgpack" in headers.get("content-type", "")
            content = pack(body, Format.MSGPACK if msgpack else Format.JSON)
        if "end" in query:
            query["end"] = str(int(time.time() * 1000) + 60_000)
        if query.pop("ephemeral", "") == "true":
            # The recorded server kept such a message, and what follows lists it: it is published a second time.
            passing = await http.post(
                f"{path}?ephemeral=true", headers=headers, content=pack([{"name": "passing"}], self._fmt)
            )
            assert passing.status_code == 201, passing.text
        url = f"{path}?{urlencode(self._replaced(query))}"
        reply = await http.request(event["method"], url, headers=headers, content=content)
        self._next_query = check_reply(event, recorded, reply) or self._next_query
        self._learn_reply(recorded["body"], _decoded(reply))
        self.answered += 1

    def _learn_reply(self, recorded: Any, got: Any) -> None:
        if not isinstance(recorded, dict) or not isinstance(got, dict):
            return
        for name in ("token", "versionSerial"):
            if name in recorded and name in got:
                self._given[recorded[name]] = got[name]
        for old, new in zip(recorded.get("serials", []), got.get("serials", []), strict=False):
            self._given[old] = new

    def _body(self, event: Map, path: str) -> Any:
        body = as_sent(event.get("body"))
        if body is None:
            return None
        if not path.endswith("/requestToken"):
            return self._replaced(body)
        body = {**body, "capability": self._capability(body.get("capability"))}
        signed = {
            **body,
            "timestamp": int(time.time() * 1000),
            "nonce": f"{self._name}-{time.monotonic_ns()}",
        }
        fields = ("keyName", "ttl", "capability", "clientId", "timestamp", "nonce")
        text = "".join(f"{'' if signed.get(name) is None else signed[name]}\n" for name in fields)
        mac = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).digest()
        return {**signed, "mac": b64encode(mac).decode()}

    def _header(self, name: str, value: str, expired: bool) -> str:
        if name != "authorization" or not value.startswith("Bearer "):
            return value
        # The recorded server refused a good token once, to see what the client does.
        token = (
            self._signed({}, -10)
            if expired
            else self._token(b64decode(value.removeprefix("Bearer ")).decode())
        )
        return f"Bearer {b64encode(token.encode()).decode()}"

    def _segment(self, segment: str) -> str:
        # A client writes a space as `+` or `%20`; what is not replaced is sent as it was.
        decoded = unquote_plus(segment)
        replaced = self._replaced(decoded)
        if replaced != decoded:
            return quote(replaced, safe="")
        previous = self._channel(decoded)
        return segment if decoded not in self._channels() else quote(previous, safe="+")

    # What stands for what

    def _learn(self, recorded: str, got: str) -> None:
        self._given[recorded] = got

    def _channels(self) -> set[str]:
        names = {event["msg"].get("channel") for event in self._events if event["dir"] == "c2s"}
        for event in self._events:
            parts = event.get("path", "").split("/")
            if event["dir"] == "http-req" and parts[1] == "channels":
                names.add(unquote_plus(parts[2]))
        return {name for name in names if name}

    def _channel(self, name: str) -> str:
        # The recorded server refused this name; the key's capability makes the gateway refuse it too.
        return f"denied:{self._name}" if name == "denied" else f"{self._name}:{name}"

    def _capability(self, text: str | None) -> str | None:
        """The recorded rights, for the channels as they are called here; spaces stay, the MAC is over the text."""
        if text is None:
            return None
        patterns = json.loads(text).keys() - {"*"}
        for pattern in patterns:
            text = text.replace(f'"{pattern}"', f'"{self._channel(pattern)}"')
        return text

    def _token(self, recorded: str) -> str:
        """A token for the recorded one: what the gateway issued, or the same claims with a fresh time."""
        if recorded in self._given:
            return self._given[recorded]
        claims = jwt.decode(recorded, options={"verify_signature": False})
        rights = self._capability(claims.get("x-ably-capability"))
        return self._signed({**claims, "x-ably-capability": rights}, claims["exp"] - claims["iat"])

    def _signed(self, claims: Map, lasting_s: float = 3600) -> str:
        expires = time.time() + lasting_s
        fresh = {**claims, "iat": expires - abs(lasting_s), "exp": expires}
        return jwt.encode(fresh, SECRET, algorithm="HS256", headers={"kid": KEY_NAME})

    def _replaced(self, value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: self._replaced(item, key) for key, item in value.items()}
        if isinstance(value, list):
            return [self._replaced(item, name) for item in value]
        if not isinstance(value, str):
            return value
        if name in ("channel", "channels"):
            return ",".join(self._channel(part) for part in value.split(","))
        if value in self._given:
            return self._given[value]
        base, colon, rest = value.partition(":")
        return f"{self._given[base]}:{rest}" if colon and base in self._given else value

    def _recorded_after(self, index: int, *actions: int, **fields: Any) -> Map:
        for event in self._events[index + 1 :]:
            frame: Map = event.get("msg", {})
            if event["dir"] != "s2c" or frame.get("action") not in actions:
                continue
            if all(frame.get(name) == value for name, value in fields.items()):
                return frame
        # The recorded server kept silent, to see what the client does; this service always answers.
        assert Action.ACK in actions, f"the recording has no answer to event {index}"
        return {"action": Action.ACK}


def _decoded(reply: httpx.Response) -> Any:
    msgpack = "msgpack" in reply.headers.get("content-type", "")
    return unpack(reply.content, Format.MSGPACK if msgpack else Format.JSON) if reply.content else None
