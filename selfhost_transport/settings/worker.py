"""The process that runs agents."""

from __future__ import annotations

from pydantic import Field

from selfhost_transport.settings.section import Count, PositiveInt, RollupWindow, Section


class WorkerSettings(Section):
    """The process that runs agents."""

    concurrency: PositiveInt = 200
    """Turns one worker runs at once."""
    lease_ms: int = Field(default=10_000, ge=100)
    """How long a worker that falls silent keeps its turns, ms."""
    max_attempts: PositiveInt = 3
    """Attempts before a turn ends with `error`."""
    grace_ms: Count = 1_000
    """Time that a cancel hook, and a turn of a stopping worker, are given, ms."""
    rollup_window_ms: RollupWindow = 40
    """How long tokens are gathered into one append, ms: 0, 20, 40, 100 or 500."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """TCP port of the metrics; 0 = any free one, printed; absent: none."""
    metrics_host: str = Field(default="127.0.0.1", min_length=1)
    """Address that the metrics are served on."""
    free_models: bool = False
    """The agents' models cost nothing, as a fake provider or a server of your own: load tests need no `--yes`."""
    retry_errors: bool = False
    """Try a turn again whose agent failed, up to `max_attempts`; a lost worker is always followed by another."""
