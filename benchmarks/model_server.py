"""A model provider on loopback, as a process: Chat Completions as a stream, and a note of when each reader hung up.

    python -m benchmarks.model_server            # prints `ready http://127.0.0.1:PORT`

The user's text says what it does: `<id> <tokens per second> [text | reasoning | arguments]`, where 0 is a model that falls
silent after its first token. `GET /hang-ups` returns the ids and when, by the machine's monotonic clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from selfhost_transport.commands.children import end_with_parent

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_CALL: dict[str, Any] = {"index": 0, "function": {"arguments": "token "}}
# What the model says at first, and then each time.
_DELTAS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "text": ({"role": "assistant", "content": "token "}, {"content": "token "}),
    "reasoning": ({"role": "assistant", "reasoning_content": "token "}, {"reasoning_content": "token "}),
    "arguments": (
        {
            "tool_calls": [
                {
                    **_CALL,
                    "id": "call-0",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"q": "'},
                }
            ]
        },
        {"tool_calls": [_CALL]},
    ),
}


def _chunk(delta: dict[str, Any]) -> bytes:
    """One chunk of a response, in the encoding of HTTP/1.1."""
    chunk = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    event = f"data: {json.dumps({**chunk, 'choices': [{'index': 0, 'delta': delta, 'finish_reason': None}]})}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(event), event)


class Provider:
    """Answers until its reader hangs up."""

    def __init__(self) -> None:
        self._hang_ups: dict[str, float] = {}
        self._chunks = {name: (_chunk(first), _chunk(next_)) for name, (first, next_) in _DELTAS.items()}

    async def serve(self) -> None:
        """Listen on a free port of loopback, forever."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        print(f"ready http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if head.startswith("get /hang-ups"):
                body = json.dumps(self._hang_ups).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
                )
                writer.write(body)
            else:
                length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
                asked = json.loads(await reader.readexactly(length))["messages"][-1]["content"]
                await self._stream(asked, reader, writer)
        writer.close()

    async def _stream(self, asked: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name, rate, *kind = asked.split()
        first, token = self._chunks[kind[0] if kind else "text"]
        writer.write(_HEAD + first)
        streaming = asyncio.create_task(self._repeat(float(rate), token, writer)) if float(rate) else None
        # Who waits for an answer sends nothing: whatever can be read is the end.
        with contextlib.suppress(ConnectionError):
            await reader.read(1)
        self._hang_ups[name] = time.monotonic()
        if streaming is not None:
            streaming.cancel()

    async def _repeat(self, rate: float, token: bytes, writer: asyncio.StreamWriter) -> None:
        while True:
            await asyncio.sleep(1 / rate)  # the model's pace
            writer.write(token)


@asynccontextmanager
async def provider() -> AsyncIterator[str]:
    """A provider process; its address."""
    arguments = ("-m", "benchmarks.model_server", str(os.getpid()))
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().split()[1]
    finally:
        process.kill()
        await process.wait()


async def hang_ups(url: str) -> dict[str, float]:
    """Who hung up, and when by the monotonic clock."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /hang-ups HTTP/1.1\r\n\r\n")
    answer = await reader.read(-1)
    writer.close()
    return msgspec.json.decode(answer.partition(b"\r\n\r\n")[2], type=dict[str, float])


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    asyncio.run(Provider().serve())
