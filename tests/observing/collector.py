"""A collector that speaks OTLP over HTTP or gRPC: takes the protobufs of spans, and gives them as a trace."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Received:
    """A span as it arrived. Times in ms since the epoch."""

    name: str
    service: str
    trace: str
    id: str
    parent: str
    start_ms: float
    end_ms: float
    attributes: dict[str, Any]
    events: list[str]
    links: list[str]
    failed: bool


@dataclass
class Collector:
    """What has arrived so far."""

    url: str
    spans: list[Received] = field(default_factory=list)

    def trace(self, name: str) -> list[Received]:
        """The spans of the trace that has a span of this name, by start."""
        traces = {span.trace for span in self.spans if span.name == name}
        return sorted((span for span in self.spans if span.trace in traces), key=lambda span: span.start_ms)

    def take(self, request: ExportTraceServiceRequest) -> None:
        """Read one export."""
        for of_resource in request.resource_spans:
            service = _attributes(of_resource.resource.attributes)["service.name"]
            for of_scope in of_resource.scope_spans:
                self.spans += [_received(span, service) for span in of_scope.spans]


def _received(span: Any, service: str) -> Received:
    return Received(
        name=span.name,
        service=service,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        start_ms=span.start_time_unix_nano / 1e6,
        end_ms=span.end_time_unix_nano / 1e6,
        attributes=_attributes(span.attributes),
        events=[event.name for event in span.events],
        links=[link.trace_id.hex() for link in span.links],
        failed=span.status.code == 2,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def as_text(spans: list[Received]) -> str:
    """A trace as an indented list, in ms from its first span."""
    ids, first = {span.id for span in spans}, spans[0].start_ms

    def lines(parent: str, depth: int) -> Iterator[str]:
        for span in spans:
            if span.parent == parent or (depth == 0 and span.parent not in ids):
                name = f"{'  ' * depth}{span.name}"
                more = [f"cancelled by {v}" for k, v in span.attributes.items() if k == "sht.cancelled_by"]
                more += [
                    v
                    for k, v in span.attributes.items()
                    if k in ("sht.outcome", "gen_ai.response.finish_reason")
                ]
                took = f"{span.start_ms - first:8.1f} {span.end_ms - span.start_ms:8.1f}"
                yield f"{name:<28}{took}  {span.service.removeprefix('selfhost-transport-'):<8} {' '.join(more)}".rstrip()
                yield from lines(span.id, depth + 1)

    return "\n".join(lines("", 0))


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces", self.path
            collector.take(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def collecting_over_grpc() -> Iterator[Collector]:
    """A collector on a free port, with gRPC."""

    class Service(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            collector.take(request)
            return ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]
    collector = Collector(f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()
