"""The certificate of the gateway's port: loaded from its files, and again when they change.

What was renewed counts for the connections that come after it; those that exist keep what they agreed on.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Final

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.settings import GatewaySettings

logger = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 1.0
_Stamp = tuple[tuple[int, int, int], ...]


class Certificate:
    """A certificate with its private key. `context` is that of the next connection.

    Raises InvalidArgument when the files cannot be used.
    """

    def __init__(self, cert: Path, key: Path | None) -> None:
        self._cert, self._key = cert, key
        self._seen = self._stamp()
        self.context = self._load()

    @classmethod
    def of(cls, settings: GatewaySettings) -> Certificate | None:
        """The certificate of the settings; None where the port is a plain one."""
        return None if settings.tls_cert is None else cls(settings.tls_cert, settings.tls_key)

    async def watch(self) -> None:
        """Load the files again whenever they change, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        """Load the files again if they have changed. While they cannot be used, the last good ones count."""
        stamp = self._stamp()
        if stamp == self._seen:
            return
        # Files that are written one after the other do not fit for a moment: the second change loads both.
        self._seen = stamp
        try:
            self.context = self._load()
        except InvalidArgument as error:
            logger.warning(
                "tls.reload_failed error=%s: the certificate that was loaded before stays in use", error
            )
        else:
            logger.info("tls.reloaded cert=%s", self._cert)

    def _stamp(self) -> _Stamp:
        """What changes with the files, also when a link to them is moved."""
        return tuple(_stamp_of(path) for path in (self._cert, self._key) if path is not None)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # Without a password of ours OpenSSL would ask the terminal for that of an encrypted key.
            context.load_cert_chain(self._cert, self._key, password="")
        except (OSError, ValueError) as error:
            raise InvalidArgument(self._complaint(error)) from error
        return context

    def _complaint(self, error: Exception) -> str:
        files = f"tls_cert {str(self._cert)!r}"
        if self._key is not None:
            files += f" with tls_key {str(self._key)!r}"
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        return (
            f"{files} cannot be used: {reason}; both are PEM files, the certificate with those that lead to its authority, "
            "the key without a password"
        )


def _stamp_of(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino
