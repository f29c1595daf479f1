"""The front ends over plain HTTP, as their clients use them: what is asked, what is heard, how a turn is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import parse_qs, quote

import httpx
import orjson

from selfhost_transport.wire.serial import Position, parse_position
from tests.processes import wait_until

Request: TypeAlias = tuple[str, str, Any]
"""Method, path with its query, body."""
PATIENCE_S = 40.0
# Of each front end: the events whose text is the model's.
DELTAS = {
    "text-delta": "delta",
    "reasoning-delta": "delta",
    "tool-input-delta": "inputTextDelta",
    "TEXT_MESSAGE_CONTENT": "delta",
    "REASONING_MESSAGE_CONTENT": "delta",
    "TOOL_CALL_ARGS": "delta",
    "response.output_text.delta": "delta",
    "response.reasoning_summary_text.delta": "delta",
    "response.function_call_arguments.delta": "delta",
}
ENDS = {"finish", "RUN_FINISHED", "response.completed", "response.incomplete"}


@dataclass(slots=True)
class Heard:
    """What one reader of a turn was given."""

    text: str = ""
    # Of the newest event with text that came live.
    newest: Position = Position.ZERO
    events: list[dict[str, Any]] = field(default_factory=list)
    status: int = 0
    refusal: str = ""
    comments: int = 0

    def take(self, frame: str) -> None:
        """One server-sent event."""
        self.comments += frame.startswith(":")
        lines = dict(line.partition(": ")[::2] for line in frame.split("\n") if line and line[0] != ":")
        if not lines.get("data", "").startswith("{"):
            return
        event = orjson.loads(lines["data"])
        self.events.append(event)
        if event["type"] == "MESSAGES_SNAPSHOT":
            self.text = said_in(event["messages"])
        elif event["type"] in DELTAS:
            self.text += event[DELTAS[event["type"]]]
            if position := lines.get("id", "").partition("/")[0]:
                self.newest = max(self.newest, parse_position(position)[0])

    @property
    def has_ended(self) -> bool:
        """Whether the stream reported how the turn ended, or that it waits."""
        return bool(self.events) and self.events[-1]["type"] in ENDS

    @property
    def was_cancelled(self) -> bool:
        """Whether the stream ended by saying so."""
        last = self.events[-1]
        names = ("messageMetadata", "metadata", "outcome", "response")
        return any("cancelled" in (last.get(name) or {}).values() for name in names)

    async def read(self, client: httpx.AsyncClient, request: Request) -> Heard:
        """A response, to its end or until it is cut."""
        method, address, body = request
        path, _, query = address.partition("?")
        sent: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
        if isinstance(body, bytes):
            sent["headers"] = {"content-type": "application/json"}
        params = {**client.params, **parse_qs(query)}
        async with client.stream(method, path, params=params, **sent) as response:
            self.status = response.status_code
            if response.status_code >= 400:
                self.refusal = (await response.aread()).decode()
                return self
            with contextlib.suppress(httpx.TransportError):
                await self._follow(response)
        return self

    async def _follow(self, response: httpx.Response) -> None:
        rest = ""
        async for text in response.aiter_text():
            *frames, rest = (rest + text).split("\n\n")
            for frame in frames:
                self.take(frame)

    async def until_text(self, least: int = 1) -> None:
        """Wait for so many characters of the model."""
        await wait_until(lambda: len(self.text) >= least, PATIENCE_S, "text of the model")


def said_in(messages: list[dict[str, Any]]) -> str:
    """What the model said, in a snapshot of AG-UI."""
    said = ""
    for message in messages:
        if message["role"] in ("assistant", "reasoning"):
            said += message.get("content") or ""
            said += "".join(call["function"]["arguments"] for call in message.get("toolCalls") or ())
    return said


@contextlib.asynccontextmanager
async def reading(
    client: httpx.AsyncClient, request: Request
) -> AsyncIterator[tuple[Heard, asyncio.Task[Heard]]]:
    """A reader that has begun, and the task that reads on."""
    heard = Heard()
    task = asyncio.create_task(heard.read(client, request))
    try:
        await wait_until(lambda: heard.events or task.done(), PATIENCE_S, "the first event")
        yield heard, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Stopped:
    """What a stop was answered with: where it is in the log, or what the model had said."""

    position: Position | None
    text: str | None = None


class UiPage:
    """A `useChat` page."""

    def __init__(self, session: str) -> None:
        self.session = session

    def ask(self, text: str, name: str = "") -> Request:
        """The request of a message; `name` makes it another one than the first."""
        message = {"id": f"{self.session}{name}", "role": "user", "parts": [{"type": "text", "text": text}]}
        return "POST", f"/v1/ui/{quote(self.session)}", {"messages": [message]}

    def resume(self, own: Heard) -> Request:
        """The request after a reload, and of another tab; `own`: what the first one was given."""
        return "GET", f"/v1/ui/{self.session}/stream", None

    async def stop(self, client: httpx.AsyncClient, own: Heard) -> Stopped:
        """Stop what is being written."""
        answer = (await client.post(f"/v1/ui/{self.session}/stop")).json()
        return Stopped(parse_position(answer["position"])[0] if answer["position"] else None)


class WorkflowPage(UiPage):
    """A `useChat` page with `WorkflowChatTransport`."""

    def ask(self, text: str, name: str = "") -> Request:
        """The request of a message."""
        _, _, body = super().ask(text, name)
        return "POST", f"/v1/workflow/{quote(self.session)}", body

    def resume(self, own: Heard) -> Request:
        """From the first chunk."""
        return "GET", f"/v1/workflow/{self.session}/{self.session}/stream", None


class AguiClient(UiPage):
    """An AG-UI client."""

    path = "/v1/agui"

    def ask(self, text: str, name: str = "") -> Request:
        """The request of a run."""
        message = {"id": f"{self.session}{name}", "role": "user", "content": text}
        return "POST", self.path, self._input(f"run-{self.session}{name}", message)

    def resume(self, own: Heard) -> Request:
        """Connect."""
        return "POST", "/v1/agui/connect", self._input(str(uuid.uuid4()))

    async def stop(self, client: httpx.AsyncClient, own: Heard) -> Stopped:
        """Stop what runs."""
        answer = (await client.post("/v1/agui/stop", json={"threadId": self.session})).json()
        return Stopped(parse_position(answer["position"])[0] if answer["position"] else None)

    def _input(self, run_id: str, *messages: dict[str, Any]) -> dict[str, Any]:
        run = {"threadId": self.session, "runId": run_id, "protocolVersion": "1.0"}
        return {**run, "messages": list(messages)}


class CopilotClient(AguiClient):
    """CopilotKit's client, by its own paths."""

    path = "/v1/agui/agent/default/run"


class ResponsesClient(UiPage):
    """A client of OpenAI's Responses."""

    def ask(self, text: str, name: str = "") -> Request:
        """The request of a response."""
        message = {"role": "user", "content": text, "id": f"{self.session}{name}"}
        return "POST", "/v1/responses", {"input": [message], "conversation": self.session, "stream": True}

    def resume(self, own: Heard) -> Request:
        """The stream of the response, from its beginning."""
        return "GET", f"/v1/responses/{own.events[0]['response']['id']}?stream=true", None

    async def stop(self, client: httpx.AsyncClient, own: Heard) -> Stopped:
        """Cancel; the answer is the response as it stays."""
        response = (await client.post(f"/v1/responses/{own.events[0]['response']['id']}/cancel")).json()
        assert response["status"] == "cancelled", response
        said = ""
        for item in response["output"]:
            texts = [part["text"] for part in (item.get("content") or item.get("summary") or ())]
            said += "".join(texts) or item.get("arguments", "")
        return Stopped(None, said)


ALL = (UiPage, WorkflowPage, AguiClient, CopilotClient, ResponsesClient)
