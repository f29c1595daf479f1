"""One trace per turn, from the client over the gateway and Redis to the worker and the model's provider."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from selfhost_transport import tracing
from selfhost_transport.client import ClientTransport
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.settings import load_settings
from selfhost_transport.store.turn_request import fingerprint
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.inputs import InputIds, user_message
from selfhost_transport.turns.ui import TextPart
from tests.observing.collector import Collector, as_text, collecting, collecting_over_grpc
from tests.processes import Stack, wait_until

CONFIG = """
[[keys]]
name = "app.key"
secret = "secret"

[[namespaces]]
id = "chat"
agent = "assistant"

[tracing]
endpoint = "ENDPOINT"
"""
SENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
AGENT = "tests.observing.traced_agent:worker"


class Model:
    """Streams tokens until its reader hangs up; notes the headers it was called with."""

    def __init__(self) -> None:
        self.traceparents: list[str] = []
        self.tokens = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.traceparents += [
            line[13:] for line in head.splitlines() if line.lower().startswith("traceparent:")
        ]
        token = (
            b'data: {"id":"c","object":"chat.completion.chunk","created":0,"model":"m","choices":'
            b'[{"index":0,"delta":{"content":"token "},"finish_reason":null}]}\n\n'
        )
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        try:
            for _ in range(self.tokens or 1_000_000):
                writer.write(token)
                await writer.drain()
                await asyncio.sleep(0.005)  # the model's pace
            writer.write(
                token.replace(b'"finish_reason":null', b'"finish_reason":"stop"') + b"data: [DONE]\n\n"
            )
            await writer.drain()
        except ConnectionError:
            pass
        writer.close()


@asynccontextmanager
async def modelled() -> AsyncIterator[tuple[Model, str]]:
    """A model on a free port."""
    model = Model()
    server = await asyncio.start_server(model.serve, "127.0.0.1", 0)
    async with server:
        yield model, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector of OTLP."""
    with collecting() as running:
        yield running


@pytest.fixture
def traced_client(collector: Collector) -> Iterator[None]:
    """This process, as the client's application, traces too."""
    provider = TracerProvider(resource=Resource.create({"service.name": "selfhost-transport-client"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"{collector.url}/v1/traces")))
    before = trace._TRACER_PROVIDER
    trace._TRACER_PROVIDER = provider
    yield
    trace._TRACER_PROVIDER = before
    provider.shutdown()


async def _ended(http: httpx.AsyncClient, path: str, status: str) -> None:
    async def reached() -> bool:
        return bool((await http.get(path)).json()["status"] == status)

    await wait_until(reached, 10)


async def test_one_trace_of_an_interrupted_turn(
    stack: Stack, collector: Collector, traced_client: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.replace("ENDPOINT", collector.url)
    async with modelled() as (model, url):
        monkeypatch.setenv("MODEL_URL", url)
        gateway = await stack.gateway(config=config)
        worker = await stack.worker(AGENT, config=config)
        async with ClientTransport.connect(
            gateway.url, key="app.key:secret", client_id="ann", channel="chat:t"
        ) as transport:
            turn = await transport.view.send("hello")
            async with asyncio.timeout(10):
                while "token" not in turn.text:
                    await asyncio.sleep(0.01)
            await turn.cancel()
        for process in (worker, gateway):
            process.terminate()
            assert await process.wait() == 0
    spans = collector.trace("turn send")
    by_name = {span.name: span for span in spans}
    assert len({span.trace for span in spans}) == 1
    assert list(by_name) == sorted(by_name, key=lambda name: by_name[name].start_ms)
    send, submit, attempt = (by_name[name] for name in ("turn send", "gateway submit", "turn attempt"))
    assert (submit.parent, attempt.parent) == (send.id, submit.id)
    assert by_name["redis submit"].parent == submit.id
    assert by_name["queue wait"].parent == submit.id
    assert by_name["tool search"].parent == by_name["model call"].parent == attempt.id
    assert by_name["turn cancel"].attributes["sht.cancelled_by"] == "ann"
    assert attempt.attributes["sht.outcome"] == "cancelled" and "first output" in attempt.events
    assert by_name["model call"].attributes["gen_ai.response.finish_reason"] == "unfinished"
    assert by_name["turn cancel"].links, "the trace that cancelled"
    # The provider was called within the trace.
    assert [one.split("-")[1] for one in model.traceparents] == [send.trace]
    shown = as_text(spans)
    print(shown)
    page = (Path(__file__).parent.parent.parent / "docs" / "tracing.md").read_text()
    # The clocks of Redis and of the processes differ, so spans that begin together change places.
    assert sorted(line.split()[:2] for line in shown.splitlines()) == sorted(
        line.split()[:2] for line in page.partition("```text\n")[2].partition("\n```")[0].splitlines()
    ), "the trace in docs/tracing.md has these spans"


async def test_a_suspension_is_a_span_of_the_same_trace(
    stack: Stack, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.replace("ENDPOINT", collector.url)
    async with modelled() as (model, url):
        model.tokens = 2
        monkeypatch.setenv("MODEL_URL", url)
        gateway = await stack.gateway(config=config)
        worker = await stack.worker(AGENT, config=config)
        async with httpx.AsyncClient(base_url=gateway.url, auth=("app.key", "secret")) as http:
            body = {"text": "approve", "clientId": "ann", "id": "m1"}
            first = await http.post("/v1/sessions/chat:s/turns", json=body, headers={"traceparent": SENT})
            # The same send again, in another trace.
            other = {"traceparent": SENT.replace("0af7", "0bf7")}
            again = await http.post("/v1/sessions/chat:s/turns", json=body, headers=other)
            assert again.json()["repeated"] is True
            turn = f"/v1/sessions/chat:s/turns/{first.json()['turnId']}"
            await _ended(http, turn, "suspended")
            answer = {"callId": "pay-1", "approved": True, "clientId": "ann"}
            assert (await http.post(f"{turn}/answers", json=answer)).status_code == 202
            await _ended(http, turn, "completed")
        for process in (worker, gateway):
            process.terminate()
            assert await process.wait() == 0
    spans = [span for span in collector.spans if span.trace == SENT.split("-")[1]]
    attempts = [span for span in spans if span.name == "turn attempt"]
    assert [span.attributes["sht.outcome"] for span in attempts] == ["suspended", "completed"]
    (suspended,) = [span for span in spans if span.name == "turn suspended"]
    assert attempts[0].start_ms < suspended.start_ms < suspended.end_ms <= attempts[1].end_ms


async def test_a_collector_that_speaks_grpc_gets_the_same(stack: Stack) -> None:
    with collecting_over_grpc() as collector:
        config = CONFIG.replace("ENDPOINT", collector.url) + 'protocol = "grpc"\n'
        gateway = await stack.gateway(config=config)
        worker = await stack.worker(config=config)
        async with httpx.AsyncClient(base_url=gateway.url, auth=("app.key", "secret")) as http:
            body = {"text": "script: tokens=2 rate=0", "clientId": "ann"}
            sent = await http.post("/v1/sessions/chat:g/turns", json=body, headers={"traceparent": SENT})
            await _ended(http, f"/v1/sessions/chat:g/turns/{sent.json()['turnId']}", "completed")
        for process in (worker, gateway):
            process.terminate()
            assert await process.wait() == 0
        spans = [span for span in collector.spans if span.trace == SENT.split("-")[1]]
    assert {(span.name, span.service.rpartition("-")[2]) for span in spans} >= {
        ("gateway submit", "gateway"),
        ("redis submit", "gateway"),
        ("queue wait", "worker"),
        ("turn attempt", "worker"),
    }


def test_nothing_happens_without_the_setting() -> None:
    with tracing.tracing(load_settings(), "x"):
        assert tracing.start_span("x") is None or not tracing.is_recorded(tracing.start_span("x"))


def test_the_trace_does_not_distinguish_sends() -> None:
    (message,) = user_message([TextPart("x")], InputIds("a", "b"), client_id="c")
    traced = h.with_transport_header(message, h.TRACEPARENT, SENT)
    assert traced != message and fingerprint([traced]) == fingerprint([message])


def test_without_the_packages_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with (
        pytest.raises(InvalidArgument, match=r"pip install .*\[otel\]"),
        tracing.tracing(load_settings(tracing_endpoint="http://127.0.0.1:1"), "x"),
    ):
        os.abort()


# In a process of its own: a provider, once set, stays.
_UNASKED = """
import opentelemetry.trace
from selfhost_transport import tracing

assert tracing.is_tracing()
assert tracing.start_span("a span") is None
with tracing.span("a span") as begun:
    assert begun is None
named = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
assert tracing.traceparent_of(tracing.start_span("a span", named)) == named
opentelemetry.trace.set_tracer_provider(opentelemetry.trace.NoOpTracerProvider())
assert tracing.start_span("a span") is not None
"""


def test_where_no_one_asks_for_spans_none_are_made_and_traces_are_handed_on() -> None:
    subprocess.run([sys.executable, "-c", _UNASKED], check=True, timeout=60)
