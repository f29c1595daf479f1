"""Streams of the providers on loopback, as a process: the same words as Chat Completions, Responses and Messages.

The user's text says `<tokens> <tokens per second>`; with 0, as fast as they are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from selfhost_transport.commands.children import end_with_parent

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_TOGETHER = 50
WORD = "token "


def _data(event: dict[str, Any], name: str | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(event)}\n\n".encode()


def _chat(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _data(
        {
            "id": "chatcmpl-0",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": "m",
            "choices": [choice],
        }
    )


def _named(event: dict[str, Any]) -> bytes:
    return _data(event, event["type"])


def _state(kind: str, status: str) -> bytes:
    response = {
        "id": "r",
        "object": "response",
        "created_at": 0,
        "model": "m",
        "output": [],
        "status": status,
    }
    return _named({"type": f"response.{kind}", "sequence_number": 0, "response": response})


_RESPONSE_TOKEN = {
    "type": "response.output_text.delta", "sequence_number": 1, "item_id": "msg_1", "output_index": 0,
    "content_index": 0, "delta": WORD, "logprobs": [],
}  # fmt: skip
_CLAUDE_TOKEN = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": WORD}}
_CLAUDE_START = {
    "type": "message_start",
    "message": {
        "id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1},
    },
}  # fmt: skip
_CLAUDE_STOP = {"stop_reason": "end_turn", "stop_sequence": None}

# By path: what comes before the tokens, a token, what comes after.
_STREAMS: dict[str, tuple[bytes, bytes, bytes]] = {
    "/v1/chat/completions": (
        _chat({"role": "assistant", "content": ""}),
        _chat({"content": WORD}),
        _chat({}, "stop") + b"data: [DONE]\n\n",
    ),
    "/v1/responses": (
        _state("created", "in_progress"),
        _named(_RESPONSE_TOKEN),
        _state("completed", "completed"),
    ),
    "/v1/messages": (
        _named(_CLAUDE_START)
        + _named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        _named(_CLAUDE_TOKEN),
        _named({"type": "content_block_stop", "index": 0})
        + _named({"type": "message_delta", "delta": _CLAUDE_STOP, "usage": {"output_tokens": 9}})
        + _named({"type": "message_stop"}),
    ),
}


def _chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
            body = json.loads(await reader.readexactly(length))
            asked = body.get("input") or body["messages"][-1]["content"]
            tokens, _, rate = asked.partition(" ")
            await _answer(head.split()[1], int(tokens), float(rate), writer)
    writer.close()


async def _answer(path: str, tokens: int, rate: float, writer: asyncio.StreamWriter) -> None:
    first, token, last = _STREAMS[path]
    writer.write(_HEAD + _chunk(first))
    chunk = _chunk(token)
    for number in range(tokens):
        writer.write(chunk)
        if rate:
            await asyncio.sleep(1 / rate)  # the model's pace
        elif number % _TOGETHER == 0:
            await writer.drain()
    writer.write(_chunk(last) + b"0\r\n\r\n")
    await writer.drain()


async def _main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    print(f"ready http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


@asynccontextmanager
async def provider_streams() -> AsyncIterator[str]:
    """The process; its address."""
    arguments = ("-m", "benchmarks.provider_streams", str(os.getpid()))
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().split()[1]
    finally:
        process.kill()
        await process.wait()


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    asyncio.run(_main())
