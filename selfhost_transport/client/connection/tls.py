"""Which certificates a client trusts: one context for the websocket and for HTTP beside it."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path

from selfhost_transport.client.connection.endpoint import Endpoint
from selfhost_transport.errors import InvalidArgument


def tls_context(
    endpoints: Iterable[Endpoint], ssl_context: ssl.SSLContext | None, ca_file: str | Path | None
) -> ssl.SSLContext:
    """The application's own context; else the system's certificates, and those of `ca_file` besides.

    OpenSSL reads SSL_CERT_FILE and SSL_CERT_DIR of the environment. Raises InvalidArgument.
    """
    if ssl_context is not None:
        if ca_file is not None:
            raise InvalidArgument("give either an ssl_context or a ca_file")
        return ssl_context
    if ca_file is None and not any(endpoint.secure for endpoint in endpoints):
        # Trusts no certificate; reading the system's takes longer than the rest of a client's start.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            reason = "it holds no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
            raise InvalidArgument(f"the ca_file {str(ca_file)!r} cannot be used: {reason}") from error
    return context


def describe_tls_failure(error: ssl.SSLError, netloc: str) -> str:
    """What went wrong in a handshake, and what to do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {netloc} is not trusted: {error.verify_message}; behind a private CA give ca_file= or "
            "ssl_context=, or set SSL_CERT_FILE"
        )
    if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return f"{netloc} does not speak TLS; use ws:// or http:// in the address"
    return f"the TLS handshake with {netloc} failed: {error.reason or error}"
