"""The token of one websocket: renewed in-band, asked for in time, and the connection's end when it expires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from gateway.auth.authenticator import Authenticator, Credential, now_ms
from gateway.auth.callers import RequestInfo
from gateway.realtime.connection import Connection, Phase
from gateway.realtime.effects import Effect
from selfhost_transport.errors import ErrorInfo, StoreUnavailable, TransportError
from selfhost_transport.wire.codes import Code, error_info
from selfhost_transport.wire.connection_key import issue_connection_key

RENEW_BEFORE_S: Final = 30.0
TOO_LATE_TO_RENEW_S: Final = 5.5
SHORTEST_RENEWAL_S: Final = 1.0


class TokenWatch:
    """Keeps the credentials of a connection's core. `is_used`: whether a reconnect would interrupt something.

    `secret` signs connection keys; `carry_out` takes what the core wants done, `disconnect` sends the client away.
    """

    __slots__ = (
        "_authenticator",
        "_carry_out",
        "_core",
        "_disconnect",
        "_info",
        "_is_used",
        "_secret",
        "_timers",
        "key_prefix",
    )

    def __init__(
        self,
        core: Connection,
        authenticator: Authenticator,
        secret: bytes,
        info: RequestInfo,
        carry_out: Callable[[Sequence[Effect]], None],
        disconnect: Callable[[ErrorInfo], None],
        is_used: Callable[[], int],
    ) -> None:
        # Goes before every connection key; known once the socket is open.
        self.key_prefix = ""
        self._core = core
        self._authenticator = authenticator
        self._secret = secret
        self._info = info
        self._carry_out = carry_out
        self._disconnect = disconnect
        self._is_used = is_used
        self._timers: list[asyncio.TimerHandle] = []

    async def authenticate(self, token: str) -> None:
        """Verify a token that came in-band, and replace the present one."""
        identity = self._core.credential.identity
        try:
            credential = await self._authenticator.again(self._info, token, identity.client_id)
        except StoreUnavailable:
            # Nothing is wrong with the token: the client tries again with a new connection.
            self._disconnect(error_info(Code.DISCONNECTED, "the token cannot be verified right now"))
            return
        except TransportError as error:
            self._carry_out(self._core.authentication_failed(error))
            return
        self._carry_out(self._core.reauthenticated(credential, self.new_key()))
        if self._core.phase is Phase.CONNECTED:
            self.watch(credential)

    def revoke(self, applies_at: int) -> None:
        """The token was revoked; where that applies later, the client may renew it until then (section 10.7)."""
        if applies_at > now_ms():
            self._carry_out(self._core.request_token())
        else:
            self._disconnect(error_info(Code.TOKEN_REVOKED))

    def watch(self, credential: Credential) -> None:
        """From now on ask for a new token in time; end the connection when its token expires (section 4.7)."""
        self.stop()
        if credential.expires_ms is None:
            return
        loop = asyncio.get_running_loop()
        left = (credential.expires_ms - now_ms()) / 1000
        self._timers.append(loop.call_later(max(0.0, left), self._expire))
        if left > TOO_LATE_TO_RENEW_S:
            renew = max(0.0, left - RENEW_BEFORE_S)
            self._timers.append(loop.call_later(renew, lambda: self._carry_out(self._core.request_token())))
        elif left > SHORTEST_RENEWAL_S:
            self._timers.append(loop.call_later(left / 2, self._renew_what_is_used))

    def _renew_what_is_used(self) -> None:
        """Tokens that live for seconds are renewed only where a reconnect would interrupt something (AUT-5).

        The SDKs' own tests expect an idle connection with such a token to be disconnected when it expires.
        """
        if self._is_used():
            self._carry_out(self._core.request_token())

    def _expire(self) -> None:
        self._disconnect(error_info(Code.TOKEN_EXPIRED))

    def new_key(self) -> str:
        """The connection key that goes with the present credentials."""
        credential = self._core.credential
        return self.key_prefix + issue_connection_key(
            self._secret,
            self._core.connection_id,
            app_id=credential.app_id,
            client_id=credential.identity.client_id,
            now_ms=now_ms(),
        )

    def stop(self) -> None:
        """Ask for nothing any more."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
