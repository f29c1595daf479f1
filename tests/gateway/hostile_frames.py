"""Frames of the realtime protocol as a stranger makes them up: mostly readable, full of values no one sends. Seeded."""

from __future__ import annotations

import json
from random import Random
from typing import Any, Final

import msgpack

from selfhost_transport.wire.codec import Format

CHANNELS: Final = ("chat:fuzz", "bound:fuzz", "veiled:fuzz", "plain:fuzz", "[?rewind=5]plain:fuzz")
_ACTIONS: Final = (0, 1, 4, 10, 10, 11, 12, 14, 15, 15, 15, 16, 17, 19, 21, 99, -1, 2**40)
_NAMES: Final = ("ai-input", "ai-cancel", "ai-output", "ai-run-end", "ai-run-start", "n", "", "\x00\n")
_HEADERS: Final = (
    "role", "run-id", "codec-message-id", "turn-policy", "cancel-own", "cancel-all", "parent", "fork-of", "event-id",
    "msg-regenerate", "supersedes", "kind", "run-client-id", "input-codec-message-id", "cancel-run-id", "stream-id",
)  # fmt: skip
_WORDS: Final = (
    "", "true", "user", "assistant", "queue", "interrupt", "regenerate", "tool-result", "message", "*", "a:b", ":",
    "\x00", "\r\n\r\n", "a" * 3000, "\ud800", "\u202e", "../../etc", "{}", "[", "$each", "__proto__", "1e999", "%00",
    "01700000000000-000@aaaaaaaaaa:000", "00000000000007-000@abcdefghij", "é́" * 50, "🙂", "json", "utf-8/base64",
)  # fmt: skip
_NUMBERS: Final = (0, 1, -1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0.5, -0.0, 1e308)
_JSON_ONLY: Final = (10**400, 2**70, float("nan"), float("inf"))
_FRAME_FIELDS: Final = (
    "channel", "channelSerial", "msgSerial", "id", "flags", "params", "messages", "presence", "annotations", "auth",
    "connectionId", "error", "count", "timestamp", "connectionDetails",
)  # fmt: skip
_MESSAGE_FIELDS: Final = (
    "name", "data", "encoding", "id", "clientId", "action", "serial", "version", "extras", "type", "messageSerial",
    "count", "connectionKey",
)  # fmt: skip


class HostileFrames:
    """An endless source of raw frames in one format."""

    def __init__(self, fmt: Format, seed: int) -> None:
        self._fmt = fmt
        self._random = Random(seed)
        # How often a value of this frame is of any type.
        self._wild = 0.0

    def __next__(self) -> str | bytes:
        """One frame as a client would send it."""
        self._wild = self._random.choice((0.0, 0.0, 0.0, 0.2))
        value = self._frame() if self._random.random() < 0.98 else self._value(0)
        raw = self._packed(value)
        if self._random.random() < 0.03:
            raw = self._damaged(raw)
        return raw

    def __iter__(self) -> HostileFrames:
        return self

    def _frame(self) -> dict[str, Any]:
        frame: dict[str, Any] = {"action": self._or_anything(self._random.choice(_ACTIONS))}
        for name in self._random.sample(_FRAME_FIELDS, self._random.randint(1, 6)):
            frame[name] = self._or_anything(self._field(name))
        if frame["action"] in (14, 15, 21):
            frame.setdefault("channel", self._random.choice(CHANNELS))
            frame.setdefault("msgSerial", self._random.randint(0, 50))
        return frame

    def _field(self, name: str) -> Any:
        pick, random = self._random.choice, self._random.random
        match name:
            case "channel":
                return pick(CHANNELS) if random() < 0.8 else pick(_WORDS)
            case "msgSerial" | "count" | "timestamp":
                return self._random.randint(0, 50) if random() < 0.9 else pick((2**31, 2**53, 2**63 - 1))
            case "flags":
                return pick((0, 1 << 16, 1 << 17, 1 << 18, 1 << 19, (1 << 23) - 1, 2**53))
            case "params":
                return {
                    "rewind": pick(("1", "2m", "-1", "9" * 30, "x")),
                    "modes": pick(("publish,subscribe", "", ",,")),
                }
            case "messages" | "presence" | "annotations":
                return [self._message() for _ in range(self._random.randint(0, 3))]
            case "error" | "connectionDetails":
                return {"code": 40000, "message": pick(_WORDS), "clientId": pick(_WORDS)}
            case "auth":
                return {"accessToken": pick(_WORDS)}
        return pick(_WORDS)

    def _message(self) -> Any:
        message: dict[str, Any] = {}
        for name in self._random.sample(_MESSAGE_FIELDS, self._random.randint(0, 6)):
            message[name] = self._or_anything(self._of_message(name))
        return self._or_anything(message)

    def _of_message(self, name: str) -> Any:
        pick = self._random.choice
        match name:
            case "name":
                return pick(_NAMES)
            case "action":
                return self._random.randint(-1, 7)
            case "extras":
                return {"ai": {"transport": self._headers(), "codec": self._headers()}}
            case "version":
                return {"serial": pick(_WORDS), "metadata": self._value(3)}
            case "data":
                return self._value(2)
            case "count":
                return self._random.randint(0, 9)
            case "encoding":
                return pick(("json", "base64", "utf-8/base64", "cipher+aes", "json/" * 500))
        return pick(_WORDS)

    def _headers(self) -> dict[str, Any]:
        names = self._random.sample(_HEADERS, self._random.randint(0, 5))
        return {name: self._or_anything(self._random.choice(_WORDS)) for name in names}

    def _or_anything(self, value: Any) -> Any:
        return self._value(0) if self._random.random() < self._wild else value

    def _value(self, depth: int) -> Any:
        random, pick = self._random.random(), self._random.choice
        if depth < 4 and random < 0.15:
            return [self._value(depth + 1) for _ in range(self._random.randint(0, 4))]
        if depth < 4 and random < 0.3:
            return {pick(_WORDS): self._value(depth + 1) for _ in range(self._random.randint(0, 4))}
        if random < 0.32:
            return self._deep(self._random.randint(20, 300))
        if random < 0.6:
            return pick(_NUMBERS)
        if random < 0.63 and self._fmt is Format.JSON:
            return pick(_JSON_ONLY)
        if random < 0.66 and self._fmt is Format.MSGPACK:
            return pick((b"\xff\x00", msgpack.ExtType(5, b"x"), msgpack.Timestamp(2**33, 5)))
        return pick((None, True, False, *_WORDS))

    def _deep(self, levels: int) -> Any:
        value: Any = 1
        as_list = self._random.random() < 0.5
        for _ in range(levels):
            value = [value] if as_list else {"a": value}
        return value

    def _packed(self, value: Any) -> str | bytes:
        if self._fmt is Format.JSON:
            return (
                json.dumps(value, ensure_ascii=self._random.random() < 0.5)
                .encode("utf-8", "replace")
                .decode()
            )
        packed: bytes = msgpack.packb(value, use_bin_type=True, unicode_errors="surrogatepass")
        return packed

    def _damaged(self, raw: str | bytes) -> str | bytes:
        at = self._random.randrange(len(raw) + 1)
        if isinstance(raw, str):
            return (
                raw[:at]
                + self._random.choice(('"', "\\", "{", "\x00", ""))
                + raw[at + self._random.randint(0, 3) :]
            )
        return (
            raw[:at]
            + self._random.randbytes(self._random.randint(0, 3))
            + raw[at + self._random.randint(0, 3) :]
        )
