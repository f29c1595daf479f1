"""Filters of derived channels, `[filter=<base64>]name`: JMESPath over a message's name, clientId and headers.

An expression sees `{"name", "clientId", "headers", "extras"}`, `headers` being `extras.headers`, never the data; a message
is delivered where it gives anything but null, false or something empty.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from selfhost_transport.errors import InvalidChannelName
from selfhost_transport.wire.message import Message

MAX_FILTER_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class MessageFilter:
    """One filter; those with the same text are the same."""

    text: str
    _compiled: Any = field(compare=False, repr=False)

    @classmethod
    def parse(cls, encoded: str) -> MessageFilter:
        """Read the base64 of an expression. Raises InvalidChannelName 40010."""
        if len(encoded) > MAX_FILTER_BYTES * 4 // 3 + 4:
            raise InvalidChannelName(f"a channel's filter is at most {MAX_FILTER_BYTES} bytes long")
        try:
            padded = encoded.rstrip("=") + "=" * (-len(encoded.rstrip("=")) % 4)
            text = urlsafe_b64decode(padded.replace("+", "-").replace("/", "_")).decode()
        except (Base64Error, ValueError) as error:
            raise InvalidChannelName("a channel's filter is the base64 of an expression") from error
        return _compile(text)

    def matches(self, message: Message) -> bool:
        """Whether a message is delivered. An expression that fails on it, as of another type, does not match it."""
        extras = message.extras if isinstance(message.extras, dict) else {}
        seen = {
            "name": message.name,
            "clientId": message.client_id,
            "headers": extras.get("headers"),
            "extras": extras,
        }
        try:
            found = self._compiled.search(seen)
        except Exception:  # the library raises errors of many kinds for values of a wrong type
            return False
        return found == 0 or bool(found) if not isinstance(found, bool) else found


@lru_cache(maxsize=512)
def _compile(text: str) -> MessageFilter:
    # Imported where it is needed: few deployments have such channels.
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        return MessageFilter(text, jmespath.compile(text))
    except (JMESPathError, RecursionError, ValueError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InvalidChannelName(f"the channel's filter is not a JMESPath expression: {reason}") from error
