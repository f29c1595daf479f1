"""Who a connection or request is, and which clientIds it may use (protocol sections 6.6, 8.2, 10.6)."""

from __future__ import annotations

from dataclasses import dataclass

from selfhost_transport.errors import BadRequest, Unauthorized
from selfhost_transport.wire.codes import Code

WILDCARD = "*"


@dataclass(frozen=True, slots=True)
class Identity:
    """`client_id` is who it is, or None; with `may_assume_any` it may name any clientId."""

    client_id: str | None
    may_assume_any: bool

    @property
    def announced(self) -> str | None:
        """`connectionDetails.clientId`: the identity, `*`, or None for an anonymous client."""
        if self.client_id is not None:
            return self.client_id
        return WILDCARD if self.may_assume_any else None

    def stamp(self, claimed: str | None) -> str | None:
        """The clientId of something sent that names `claimed`. Raises BadRequest 40012 where it may not."""
        if claimed is None or claimed == self.client_id:
            return self.client_id
        if claimed in ("", WILDCARD):
            raise BadRequest(f"{claimed!r} is not a clientId", code=Code.INVALID_CLIENT_ID)
        if self.client_id is not None or not self.may_assume_any:
            who = "an anonymous client" if self.client_id is None else f"client {self.client_id[:64]!r}"
            raise BadRequest(f"{who} may not act as {claimed[:64]!r}", code=Code.INVALID_CLIENT_ID)
        return claimed


def key_identity(requested: str | None) -> Identity:
    """The identity of a connection with an API key and the query's clientId."""
    if requested in (None, "", WILDCARD):
        return Identity(None, may_assume_any=True)
    return Identity(requested, may_assume_any=False)


def token_identity(token_client_id: str | None, requested: str | None) -> Identity:
    """The identity of a connection with a token and the query's clientId. Raises Unauthorized 40102."""
    requested = requested or None
    if token_client_id == WILDCARD:
        return key_identity(requested)
    if requested is not None and requested != token_client_id:
        reason = f"the token does not permit clientId {requested[:64]!r}"
        raise Unauthorized(reason, code=Code.INCOMPATIBLE_CREDENTIALS)
    return Identity(token_client_id, may_assume_any=False)
