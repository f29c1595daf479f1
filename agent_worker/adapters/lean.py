"""The events of a provider's response, decoded from its body without the provider's own models.

What arrives with every token is decoded into small structs; everything else into `JsonObject`, which read like the
library's objects: a member that is absent is None.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

import msgspec

from agent_worker.adapters.event_stream import EventStreamDecoder

StructT = TypeVar("StructT", bound=msgspec.Struct)
EventT = TypeVar("EventT")

_DRAIN_S: Final = 0.1
"""How long the end of a body is waited for after the last event, so that its connection can be used again."""


_AWS_FRAMES: Final = "amazon.eventstream"


class Body(Protocol):
    """The HTTP response below a library's stream: those of `httpx` and `httpx2`."""

    is_closed: bool
    is_stream_consumed: bool
    stream: Any

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers, whatever the case of their names."""

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        """The chunks of its body, content encodings undone."""


class JsonObject(dict[str, Any]):
    """A JSON object whose members can be read as attributes."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name)


_fields = json.JSONDecoder(object_hook=JsonObject)


def decode_fields(data: bytes) -> JsonObject:
    """A JSON object; those inside it likewise. Raises JSONDecodeError, also for JSON that is no object or nested too deeply."""
    try:
        found = _fields.decode(data.decode())
    except UnicodeDecodeError as error:
        raise json.JSONDecodeError("not UTF-8", "", 0) from error
    except RecursionError as error:
        raise json.JSONDecodeError("nested too deeply", "", 0) from error
    if not isinstance(found, JsonObject):
        raise json.JSONDecodeError("not an object", "", 0)
    return found


def decoder_of(kind: type[StructT]) -> Callable[[bytes], StructT | None]:
    """Decodes events of one shape; None for those of another."""
    decode = msgspec.json.Decoder(kind).decode

    def decoded(data: bytes) -> StructT | None:
        try:
            return decode(data)
        except (msgspec.DecodeError, RecursionError):
            return None

    return decoded


def body_of(response: object, kind: type[Any], *, library: bool) -> Any | None:
    """The HTTP response (a Body, with its request and status) below a library's stream whose events are decoded here.

    None: the library's own models read it. That is asked for (`library`), or the response is not a stream of its `kind`, or its
    events are framed as Bedrock does it.
    """
    if library or not isinstance(response, kind):
        return None
    body = response.response
    return None if _AWS_FRAMES in body.headers.get("content-type", "") else body


async def events(body: Body, decode: Callable[[bytes, bytes], EventT | None]) -> AsyncIterator[EventT]:
    """The events of a body, decoded from name and data, until it ends or says `[DONE]`; None leaves one out."""
    decoder = EventStreamDecoder()
    chunks = _chunks_of(body)
    async for chunk in chunks:
        for name, data in decoder.feed(chunk):
            if data.startswith(b"[DONE]"):
                await _drain(chunks)
                return
            event = decode(name, data)
            if event is not None:
                yield event


def _chunks_of(body: Body) -> AsyncIterator[bytes]:
    """A body that is not encoded is read below two layers of the client, which cost as much as its events do here."""
    if body.is_closed or body.is_stream_consumed or "content-encoding" in body.headers:
        return body.aiter_bytes()
    chunks: AsyncIterator[bytes] = aiter(body.stream)
    return chunks


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    try:
        async with asyncio.timeout(_DRAIN_S):
            async for _ in chunks:
                pass
    except TimeoutError:
        # The answer is whole. The connection is closed instead of being used again.
        pass
