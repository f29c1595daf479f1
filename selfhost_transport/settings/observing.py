"""What the processes write about themselves: logs and traces."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from selfhost_transport.logs import Format, Level
from selfhost_transport.settings.section import Section


class LogSettings(Section):
    """What the processes write to standard error."""

    format: Format = "text"
    """`text` for people, or `json`: one object per line."""
    level: Level = "warning"
    """Least important lines that are written: `debug`, `info` (every turn), `warning` or `error`."""


class TracingSettings(Section):
    """Traces of turns, sent to an OpenTelemetry collector (OTLP); needs the extra `otel`, or `otel-grpc`."""

    endpoint: str | None = Field(default=None, pattern=r"^https?://")
    """Address of the collector, for example `http://127.0.0.1:4318`; absent: no traces."""
    protocol: Literal["http", "grpc"] = "http"
    """`http`: protobufs over HTTP; `grpc`: at the collector's port for it, 4317 as a rule."""
    ratio: float = Field(default=1.0, ge=0, le=1)
    """Fraction of the turns that are traced, unless the sender's own trace decides."""
