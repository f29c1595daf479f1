"""Traces with OpenTelemetry, where an application or the setting `tracing.endpoint` uses it; else nothing, at no cost.

A trace is handed on as `traceparent` (W3C): in the header of a request, in a transport header of the message that asks
for a turn, and in the turn's context, from which its worker continues it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.extras import install_command
from selfhost_transport.version import __version__

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from selfhost_transport.settings import Settings

Attributes: TypeAlias = Mapping[str, str | int | float | bool | None]
"""What a span says beside its name; values of None are left out."""

TRACEPARENT: Final = "traceparent"
_NAME: Final = "selfhost-transport"
_FLUSH_MS: Final = 5_000

_incoming: ContextVar[str | None] = ContextVar("incoming_traceparent", default=None)


def is_tracing() -> bool:
    """Whether anything in this process uses OpenTelemetry; without it there is no one to give spans to."""
    return "opentelemetry.trace" in sys.modules


def _has_receiver() -> bool:
    """Whether spans go anywhere. Libraries import OpenTelemetry where it is installed, without any use of it."""
    from opentelemetry import trace

    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _tracer() -> Tracer:
    from opentelemetry import trace

    return _tracer_of(trace.get_tracer_provider())


@lru_cache(maxsize=1)
def _tracer_of(provider: TracerProvider) -> Tracer:
    """Making one costs as much as a span."""
    return provider.get_tracer(_NAME, __version__)


def context_of(traceparent: str | None) -> Context | None:
    """The context that a header stands for; None: the current one."""
    if not traceparent or not is_tracing():
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({TRACEPARENT: traceparent})


def traceparent_of(span: Span | None) -> str | None:
    """The header that hands a span on; None for one that belongs to no trace."""
    if span is None:
        return None
    at = span.get_span_context()
    if not at.is_valid:
        return None
    return f"00-{at.trace_id:032x}-{at.span_id:016x}-{at.trace_flags:02x}"


def start_span(
    name: str,
    parent: str | None = None,
    attributes: Attributes | None = None,
    *,
    kind: str = "INTERNAL",
    start_ms: float | None = None,
    links: tuple[str, ...] = (),
) -> Span | None:
    """A span for the caller to end; None without OpenTelemetry, or where it would belong to no trace and go nowhere.

    `parent`: a traceparent; without one, the current span. `start_ms`: when it began, ms since the epoch.
    """
    if not is_tracing() or not (parent or _has_receiver()):
        return None
    from opentelemetry import trace

    contexts = [trace.get_current_span(context_of(link)).get_span_context() for link in links if link]
    return _tracer().start_span(
        name,
        context_of(parent),
        kind=trace.SpanKind[kind],
        start_time=None if start_ms is None else int(start_ms * 1_000_000),
        links=[trace.Link(one) for one in contexts if one.is_valid],
        attributes={name: value for name, value in (attributes or {}).items() if value is not None},
    )


@contextmanager
def span(
    name: str,
    parent: str | None = None,
    attributes: Attributes | None = None,
    *,
    kind: str = "INTERNAL",
) -> Iterator[Span | None]:
    """A span around a block, the current one of its task; an exception is recorded. None without OpenTelemetry."""
    begun = start_span(name, parent, attributes, kind=kind)
    if begun is None:
        yield None
        return
    from opentelemetry import trace

    with trace.use_span(begun, end_on_exit=True):
        yield begun


@contextmanager
def under(begun: Span | None) -> Iterator[None]:
    """Make a span the current one while the block runs; it is not ended."""
    if begun is None:
        yield
        return
    from opentelemetry import trace

    with trace.use_span(begun, end_on_exit=False):
        yield


@contextmanager
def incoming(traceparent: str | None) -> Iterator[None]:
    """Remember the trace that a request belongs to, for the spans made while it is answered."""
    if traceparent is None or not is_tracing():
        yield
        return
    token = _incoming.set(traceparent)
    try:
        yield
    finally:
        _incoming.reset(token)


def incoming_traceparent() -> str | None:
    """The trace that the request being answered belongs to."""
    return _incoming.get()


def end_span(
    begun: Span | None, attributes: Attributes | None = None, error: BaseException | None = None
) -> None:
    """End a span of `start_span`; None is ignored."""
    if begun is None:
        return
    begun.set_attributes({name: value for name, value in (attributes or {}).items() if value is not None})
    if error is not None:
        from opentelemetry.trace import Status, StatusCode

        begun.record_exception(error)
        begun.set_status(Status(StatusCode.ERROR, type(error).__name__))
    begun.end()


def is_recorded(begun: Span | None) -> bool:
    """Whether a span goes anywhere: details are read for such only."""
    return begun is not None and begun.is_recording()


def trace_headers() -> Mapping[str, str]:
    """The current trace as HTTP headers, for the `extra_headers` of a model call; empty without one."""
    if not is_tracing():
        return {}
    from opentelemetry import trace

    header = traceparent_of(trace.get_current_span())
    return {} if header is None else {TRACEPARENT: header}


def exemplar_of(begun: Span | None) -> dict[str, str] | None:
    """What leads from a histogram to a trace; None for one that is not recorded."""
    if begun is None or not begun.is_recording():
        return None
    return {"trace_id": f"{begun.get_span_context().trace_id:032x}"}


def now_ms() -> float:
    """The time as spans count it."""
    return time.time() * 1000


@contextmanager
def tracing(settings: Settings, service: str) -> Iterator[None]:
    """Send the spans of this process to `tracing.endpoint` while the body runs; nothing where that is not set.

    Raises InvalidArgument without the packages of the extra `otel`, or `otel-grpc`.
    """
    configured = settings.tracing
    if configured.endpoint is None:
        yield
        return
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

        exporter = _exporter(configured.endpoint, configured.protocol)
    except ModuleNotFoundError as error:
        extra = "otel" if configured.protocol == "http" else "otel-grpc"
        raise InvalidArgument(f"tracing.endpoint needs OpenTelemetry: {install_command(extra)}") from error
    named: dict[str, Any] = {"service.name": service, "service.version": __version__}
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(configured.ratio)), resource=Resource.create(named)
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.force_flush(_FLUSH_MS)
        provider.shutdown()


def _exporter(endpoint: str, protocol: str) -> SpanExporter:
    """Raises ModuleNotFoundError."""
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

        # Plain where the address says http, as over HTTP.
        return OverGrpc(endpoint=endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
