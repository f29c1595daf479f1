"""Where the sessions live."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from selfhost_transport.settings.section import Section
from selfhost_transport.settings_values import redact_url


class RedisSettings(Section):
    """Where the sessions live."""

    url: str = "redis://127.0.0.1:6379/0"
    """Address of Redis: `redis://`, `rediss://` (TLS) or `unix://`; or of several servers: `redis+sentinel://`, `redis+cluster://`."""
    prefix: str = Field(default="sht", pattern=r"^[^{}\s]{1,64}$")
    """First part of every key and channel."""
    buckets: int | None = Field(default=None, ge=1, le=16384)
    """Hash tags that sessions are spread over. Absent: as the deployment began; a new one has 16, on a Cluster 1024."""

    durability: str = Field(default="everysec", pattern=r"^(none|everysec|wait:[1-9])$")
    """What an acknowledgement means: `everysec` (a crash may lose a second), `wait:N` (N replicas have it), `none` (no file)."""

    @property
    def replicas(self) -> int:
        """How many replicas have to have a write before it is acknowledged."""
        return int(self.durability.removeprefix("wait:")) if self.durability.startswith("wait:") else 0

    @property
    def url_given(self) -> bool:
        """Whether the address is configured; `dev` starts its own Redis if not."""
        return "url" in self.model_fields_set

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, redact_url(value) if name == "url" else value
