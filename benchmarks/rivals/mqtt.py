"""As much of MQTT 3.1.1 as it takes to publish and to subscribe with QoS 0."""

from __future__ import annotations

from collections.abc import Iterator

CONNACK, PUBLISH, SUBACK = 0x20, 0x30, 0x90
_CONNECT, _SUBSCRIBE = 0x10, 0x82
_CLEAN_SESSION = 0x02


def connect(client_id: str) -> bytes:
    """CONNECT without keep-alive."""
    return _packet(_CONNECT, _string("MQTT") + bytes((4, _CLEAN_SESSION, 0, 0)) + _string(client_id))


def subscribe(topic: str) -> bytes:
    """SUBSCRIBE to one topic."""
    return _packet(_SUBSCRIBE, b"\0\1" + _string(topic) + b"\0")


def publish(topic: str, payload: bytes) -> bytes:
    """PUBLISH, QoS 0."""
    return _packet(PUBLISH, _string(topic) + payload)


class PacketReader:
    """Cuts bytes into packets, however they come."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(kind, content) of each complete packet; of a PUBLISH the payload."""
        data = self._rest + data if self._rest else data
        start, size = 0, len(data)
        while size - start >= 2:
            length, at, shift = 0, start + 1, 0
            while at < size:
                byte = data[at]
                length |= (byte & 127) << shift
                at, shift = at + 1, shift + 7
                if byte < 128:
                    break
            else:
                break
            if size < at + length:
                break
            kind = data[start] & 0xF0
            skipped = 2 + (data[at] << 8 | data[at + 1]) if kind == PUBLISH else 0
            yield kind, data[at + skipped : at + length]
            start = at + length
        self._rest = data[start:]


def _packet(first: int, content: bytes) -> bytes:
    length, left = b"", len(content)
    while True:
        left, low = left >> 7, left & 127
        length += bytes((low | (128 if left else 0),))
        if not left:
            return bytes((first,)) + length + content


def _string(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(2, "big") + encoded
