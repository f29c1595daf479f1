"""What holds for the sessions of a namespace."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from selfhost_transport.settings.section import Count, Duration, PositiveInt, Section
from selfhost_transport.settings_values import CrashRule
from selfhost_transport.turns.commands import Policy
from selfhost_transport.turns.withholding import Traffic


class NamespaceRule(Section):
    """What holds for the sessions of one namespace; id `*` is the rule for all others."""

    id: str = Field(pattern=r"^[^:]+$")
    """The part of a channel name up to its first colon, or `*`."""
    agent: str | None = Field(default=None, min_length=1)
    """Agent that works on published inputs; absent: plain pub/sub."""
    policy: Policy = Policy.CONCURRENT
    """What a send does while a turn is active: `concurrent`, `queue`, `interrupt`, `reject` or `merge`."""
    retention: Duration = timedelta(0)
    """How long a message is kept after it was sent; a turn is removed as a whole, this long after its end. 0 = no limit."""
    max_active: Count = 0
    """Turns that may be active at once in a session; 0 = no limit."""
    queue_cap: Count = 100
    """Turns that may wait in a session; a further send is refused. 0 = none may wait."""
    on_crash: CrashRule = CrashRule.RESTART
    """What the next attempt does after a lost worker: `restart`, `continue` or `fail`."""
    max_attempts: PositiveInt | None = None
    """Attempts per turn; absent: that of `[worker]`."""
    deadline: Duration = timedelta(0)
    """Longest time a turn may be active; 0 = no limit."""
    abandon_after: Duration = timedelta(0)
    """Cancel active turns of a session that has had no reader for this long; 0 = never."""
    withhold: tuple[Traffic, ...] = ()
    """Traffic kept from clients without the right to it: `reasoning` (`reasoning-subscribe`), `tools` (`tools-subscribe`)."""


# The rule of a namespace without configuration: plain pub/sub, no retention limit.
PLAIN = NamespaceRule(id="*")
