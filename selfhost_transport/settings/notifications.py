"""Whom the gateways notify of what happens to turns: applications by webhook, people by web push."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from selfhost_transport.settings.section import Count, Duration, PositiveInt, Section
from selfhost_transport.settings_values import require_push_service, require_vapid_key
from selfhost_transport.wire.vapid import public_key_of


class WebhookRule(Section):
    """An address that is sent what happens to turns, signed."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")
    """Names its queue in Redis: keep it when the address changes."""
    url: str = Field(pattern=r"^https?://")
    """Where events are posted."""
    secret: SecretStr = Field(min_length=16)
    """Signs them: `whsec_` and base64."""
    events: tuple[Literal["turn.ended", "turn.suspended", "turn.escalated", "turn.dead_letter"], ...] = (
        "turn.ended",
        "turn.suspended",
        "turn.escalated",
        "turn.dead_letter",
    )
    """What is sent."""
    max_attempts: PositiveInt = 12
    """Deliveries before an event is given up; pauses between them double, up to 30 s."""
    timeout_ms: PositiveInt = 10_000
    """How long the address may take to answer, ms."""


class PushSettings(Section):
    """Web push: notifications of answers whose readers have left; needs the extra `push`."""

    private_key: Annotated[SecretStr, AfterValidator(require_vapid_key)] | None = None
    """VAPID key, as `selfhost-transport push keys` makes it; absent: no pushes. Another key ends all subscriptions."""
    subject: str = Field(default="", pattern=r"^(mailto:\S+@\S+|https://\S+)?$")
    """Where push services reach the operator: `mailto:ops@example.com` or an address of yours."""
    services: tuple[Annotated[str, AfterValidator(require_push_service)], ...] = (
        "https://fcm.googleapis.com",
        "https://updates.push.services.mozilla.com",
        "https://*.notify.windows.com",
        "https://*.push.apple.com",
    )
    """Push services of browsers, a list: endpoints anywhere else are refused. `*.` stands for any first part of a host."""
    keep: Duration = timedelta(days=60)
    """How long a browser that does not open the page keeps its subscription."""
    ttl: Duration = timedelta(days=1)
    """How long a push is tried, and kept by the push service while the device is off."""
    wait_ms: Count = 2_000
    """Time after the end of a turn at which its sender must have left to be sent a push, ms."""
    max_attempts: PositiveInt = 8
    """Attempts before a push is given up; pauses between them double, from 5 s to 10 min."""
    timeout_ms: PositiveInt = 10_000
    """How long a push service may take to answer, ms."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.private_key is not None and not self.subject:
            raise ValueError("push services want a `subject`: mailto:ops@example.com, or an https address")
        if self.keep < timedelta(minutes=1) or self.ttl < timedelta(seconds=1):
            raise ValueError("`keep` is a minute or more, `ttl` a second or more")
        return self

    @property
    def public_key(self) -> str | None:
        """What browsers subscribe with; None without pushes."""
        return None if self.private_key is None else public_key_of(self.private_key.get_secret_value())
