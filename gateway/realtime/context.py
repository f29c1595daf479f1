"""What all parts of one connection's core share: whose it is, and by which rules it is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.auth.authenticator import Credential
from gateway.auth.rate_limits import Limits
from gateway.commands.turn_commands import TurnRules
from gateway.connection_terms import Terms
from selfhost_transport.store.presence import Holder
from selfhost_transport.turns.withholding import Hidden


@dataclass(slots=True)
class ConnectionContext:
    """`credential` is replaced when the client authenticates again; `holder` answers for its presence members.

    `rules_for`: the turn rules of a session, None where it is plain pub/sub. `hidden_for`: what a caller does not get
    of a session.
    """

    connection_id: str
    credential: Credential
    terms: Terms
    rules_for: Callable[[str], TurnRules | None]
    hidden_for: Callable[[Credential, str], Hidden]
    holder: Holder
    limits: Limits | None = None

    def hidden_from(self, session: str) -> Hidden:
        """What this caller does not get of a session."""
        return self.hidden_for(self.credential, session)
