"""Connection ids, and signed keys that resume them on any node without a look-up (protocol section 4.5).

A key is `<connectionId>!<issued>-<nonce>-<identity>-<mac>`. `issued` is ms in hex; `identity` is a keyed
digest of application and clientId, so that another client's key is distinguished from a forged one. Before it may stand
`<node>.`, the process that holds a connection over HTTP: not signed, for it only says where to ask first.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass
from hashlib import sha256

from selfhost_transport.errors import ConnectionFailed
from selfhost_transport.wire.codes import Code

_KEY = re.compile(
    r"(?:([a-z0-9-]{1,64})\.)?([A-Za-z0-9]{4,64})!([0-9a-f]{1,16})-([0-9a-f]{16})-([0-9a-f]{16})-([0-9a-f]{32})"
)
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
_ID_LENGTH = 12


@dataclass(frozen=True, slots=True)
class ConnectionKey:
    """An authentic key: whose connection, and when the key was issued (ms since the epoch)."""

    connection_id: str
    issued_ms: int
    identity: str
    # The process that holds the connection, as the key says; '' if it does not.
    node: str = ""


def new_connection_id() -> str:
    """A connection id: 12 random letters and digits, no `:` (it prefixes message ids)."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))


def issue_connection_key(
    secret: bytes, connection_id: str, *, app_id: str, client_id: str | None, now_ms: int
) -> str:
    """A new key for a connection, different from every earlier one."""
    identity = _identity(secret, app_id, client_id)
    signed = f"{connection_id}!{now_ms:x}-{secrets.token_hex(8)}-{identity}"
    return f"{signed}-{_mac(secret, signed)}"


def read_connection_key(secret: bytes, key: str) -> ConnectionKey:
    """Check that a key is authentic. Raises ConnectionFailed 80018."""
    match = _KEY.fullmatch(key)
    if match is not None:
        signed = key[match.start(2) :].rpartition("-")[0]
        if hmac.compare_digest(_mac(secret, signed), match[6]):
            return ConnectionKey(match[2], int(match[3], 16), match[5], match[1] or "")
    raise ConnectionFailed(
        "unknown connection key; a new connection was made",
        code=Code.INVALID_CONNECTION_KEY,
    )


def verify_connection_key(secret: bytes, key: str, *, app_id: str, client_id: str | None) -> ConnectionKey:
    """Check that a key is authentic and of this application and clientId.

    Raises ConnectionFailed: 80018 when it is not authentic, 80011 when it is another client's.
    """
    found = read_connection_key(secret, key)
    if not hmac.compare_digest(_identity(secret, app_id, client_id), found.identity):
        raise ConnectionFailed(
            "the connection belongs to another application or client; a new connection was made",
            code=Code.RESUME_INCOMPATIBLE,
        )
    return found


def _identity(secret: bytes, app_id: str, client_id: str | None) -> str:
    # An anonymous client is not the client with the empty name; lengths keep the parts apart.
    client = "-" if client_id is None else f"={client_id}"
    text = f"identity\n{len(app_id)}\n{app_id}\n{client}"
    return hmac.new(secret, text.encode("utf-8", "replace"), sha256).hexdigest()[:16]


def _mac(secret: bytes, signed: str) -> str:
    return hmac.new(secret, f"key\n{signed}".encode(), sha256).hexdigest()[:32]
