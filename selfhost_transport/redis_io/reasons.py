"""Why a Redis cannot be used, in one line that says what to change."""

from __future__ import annotations

import socket
import ssl
from typing import Final

import hiredis

from selfhost_transport.redis_io.address import Address
from selfhost_transport.redis_io.refusals import code_of

SPEAKS_TLS: Final = "the port expects TLS: rediss:// instead of redis:// in the URL"
SPEAKS_PLAIN: Final = "the port does not speak TLS: redis:// instead of rediss:// in the URL"

_REPLIES: Final = {
    "WRONGPASS": "it rejects the user name or password of the URL",
    "NOAUTH": "it asks for a password, and the URL has none: redis://:PASSWORD@HOST or redis://USER:PASSWORD@HOST",
    "NOPERM": "the URL's user lacks rights: see docs/deployment.md",
    "LOADING": "it is still loading its data; try again shortly",
    "MASTERDOWN": "it is a replica that has lost its primary",
    "DENIED": "it is in protected mode and takes connections from its own machine only",
}
_TEXTS: Final = {
    "without any password configured": "the URL has a password, and the server asks for none",
    "no password is set": "the URL has a password, and the server asks for none",
    "DB index": "it has no such database: the number is the last part of the URL; `databases` in its configuration is the limit",
    "SELECT is not allowed in cluster mode": (
        "it is a node of a Cluster, which has no databases: redis+cluster://HOST:PORT instead of redis:// in the URL"
    ),
    "unknown command 'SELECT'": (
        "it is a Sentinel: redis+sentinel://HOST:PORT/SERVICE instead of redis:// in the URL"
    ),
    "unknown command `SELECT`": (
        "it is a Sentinel: redis+sentinel://HOST:PORT/SERVICE instead of redis:// in the URL"
    ),
    "cluster support disabled": "it is not part of a Cluster: redis:// instead of redis+cluster:// in the URL",
    "unknown command 'SENTINEL'": "it is not a Sentinel: redis:// instead of redis+sentinel:// in the URL",
    "unknown command `SENTINEL`": "it is not a Sentinel: redis:// instead of redis+sentinel:// in the URL",
    "max number of clients": "its limit `maxclients` is reached",
}


def why_not_connected(address: Address, error: Exception) -> str:
    """The sentence for an error of connecting or greeting."""
    if isinstance(error, hiredis.ReplyError):
        return f"Redis at {address} cannot be used: {_of_reply(str(error))}"
    return f"Redis at {address} cannot be reached: {_of_network(address, error)}"


def _of_reply(text: str) -> str:
    for part, reason in _TEXTS.items():
        if part in text:
            return f"{reason} ({text})"
    known = _REPLIES.get(code_of(text))
    return text if known is None else f"{known} ({text})"


def _of_network(address: Address, error: Exception) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return (
                f"its certificate is not accepted: {error.verify_message}. The URL's options ssl_ca_certs, "
                "ssl_check_hostname and ssl_cert_reqs say what is"
            )
        case ssl.SSLError() if error.reason in (
            "WRONG_VERSION_NUMBER",
            "UNEXPECTED_EOF_WHILE_READING",
            "RECORD_LAYER_FAILURE",
        ):
            return SPEAKS_PLAIN
        case ssl.SSLError():
            return f"TLS failed: {error.reason or error}"
        case TimeoutError():
            return "it did not reply in time. Check the host, the port and the network"
        case UnicodeError():
            return f"{address.host!r} is not a host name: a part of it is empty or too long"
        case socket.gaierror():
            return f"the host name {address.host!r} is not known ({error.strerror})"
        case ConnectionRefusedError() if error.errno is not None and address.path is None:
            return "nothing listens on that port. Check the URL and the server"
        case ConnectionResetError() if address.tls is None:
            return "it closed the connection at once. Does the port expect TLS (rediss://)?"
        case FileNotFoundError():
            return "there is no such socket"
        case hiredis.ProtocolError():
            return "the server on that port is not Redis, or expects TLS (rediss://)"
    return f"{error or type(error).__name__}. Check the URL and the server"
