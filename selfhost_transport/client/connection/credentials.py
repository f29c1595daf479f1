"""What a client proves itself with: an API key, a token, or a callback that fetches tokens (section 10)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeAlias, TypeGuard

from selfhost_transport.errors import InvalidArgument, TokenError
from selfhost_transport.hooks import call_hook, said
from selfhost_transport.wire.tokens import ApiKey

TokenCallback: TypeAlias = Callable[[], "Awaitable[str | Mapping[str, Any]] | str | Mapping[str, Any]"]
"""Returns a token or JWT as text, or a map with the token under `token`. A plain function runs in a thread."""


class Credentials(Protocol):
    """Proof of identity, as a header of the websocket's upgrade and of requests: addresses end in access logs."""

    @property
    def renewable(self) -> bool:
        """Whether `renew` can give something new."""

    async def header(self) -> str:
        """Value of the `Authorization` header."""

    async def renew(self) -> str:
        """Fetch another token and return it. Raises TokenError."""


class KeyCredentials:
    """An API key; never use it where others can read it, such as in a browser."""

    renewable = False

    def __init__(self, key: str) -> None:
        ApiKey.parse(key)
        self._key = key

    async def header(self) -> str:
        """Basic authentication."""
        return f"Basic {b64encode(self._key.encode()).decode()}"

    async def renew(self) -> str:
        """A key cannot be renewed. Raises TokenError 40171."""
        raise _no_renewal()


class TokenCredentials:
    """A token, and where the next one comes from."""

    def __init__(self, token: str | None = None, callback: TokenCallback | None = None) -> None:
        self._token = token
        self._callback = callback

    @property
    def renewable(self) -> bool:
        """True with a callback."""
        return self._callback is not None

    async def header(self) -> str:
        """Bearer authentication, in base64 as the SDKs send it; the token is fetched on first use."""
        token = self._token or await self.renew()
        return f"Bearer {b64encode(token.encode()).decode()}"

    async def renew(self) -> str:
        """Ask the callback. Raises TokenError 40170 when it fails, 40171 when there is none."""
        if self._callback is None:
            raise _no_renewal()
        try:
            value = await call_hook(self._callback)
        except Exception as error:
            raise TokenError(f"the auth callback failed: {said(error)}", code=40170) from error
        self._token = _token_text(value)
        return self._token


def make_credentials(
    key: str | None, token: str | None, auth_callback: TokenCallback | None
) -> KeyCredentials | TokenCredentials:
    """The credentials for what the application gave. Raises InvalidArgument, Unauthorized 40101."""
    if key is not None and (token is not None or auth_callback is not None):
        raise InvalidArgument("give either a key, or a token and/or an auth_callback")
    if key is not None:
        if not _is_text(key):
            raise InvalidArgument("a key is a text, appId.keyId:secret")
        return KeyCredentials(key)
    if token is None and auth_callback is None:
        raise InvalidArgument("give a key, a token, or an auth_callback")
    if token is not None and not _is_text(token):
        raise InvalidArgument("a token is a text that is not empty")
    if auth_callback is not None and not callable(auth_callback):
        raise InvalidArgument("an auth_callback is a function that returns a token")
    return TokenCredentials(token, auth_callback)


def _is_text(value: object) -> TypeGuard[str]:
    """Whether it is a text that can be sent: half of a surrogate pair cannot."""
    return isinstance(value, str) and bool(value) and value == value.encode("utf-8", "replace").decode()


def _token_text(value: object) -> str:
    token = value.get("token") if isinstance(value, Mapping) else value
    if not _is_text(token):
        raise TokenError("the auth callback returned neither a token nor a map that holds one", code=40170)
    return token


def _no_renewal() -> TokenError:
    return TokenError("the credentials were refused and there is no auth_callback to renew them", code=40171)
