"""How single configuration values are read and shown: durations, choices, addresses that hide passwords."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, SecretStr

from selfhost_transport.settings_errors import did_you_mean
from selfhost_transport.wire.capability import Operation
from selfhost_transport.wire.vapid import public_key_of

ROLLUP_WINDOWS_MS = (0, 20, 40, 100, 500)

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(\d+)\s*(ms|s|m|h|d|w)?")


class CrashRule(StrEnum):
    """What the next attempt does with the output of one whose worker was lost."""

    RESTART = "restart"
    CONTINUE = "continue"
    FAIL = "fail"


def parse_duration(value: object) -> timedelta:
    """`"0"`, `"45s"`, `"30m"`, `"12h"`, `"7d"`, or a whole number of seconds. Raises ValueError."""
    if isinstance(value, timedelta) and value >= timedelta(0):
        return value
    match = _DURATION.fullmatch(str(value).strip())
    if match is None or isinstance(value, bool):
        raise ValueError("a duration is a whole number with a unit: ms, s, m, h, d or w")
    return timedelta(**{_UNITS[match[2] or "s"]: int(match[1])})


def require_rollup_window(value: int) -> int:
    """One of the windows that Ably's SDKs may ask for (protocol section 7.6). Raises ValueError."""
    if value not in ROLLUP_WINDOWS_MS:
        raise ValueError(f"must be one of {', '.join(map(str, ROLLUP_WINDOWS_MS))}")
    return value


def require_operation(value: str) -> str:
    """The name of a right. Raises ValueError, so that a typing error does not take rights away in silence."""
    known = [operation.value for operation in Operation]
    if value not in known:
        raise ValueError(f"there is no operation {value!r}{did_you_mean(value, known)}")
    return value


Operations = tuple[Annotated[str, AfterValidator(require_operation)], ...]


def require_network(value: str) -> str:
    """An address or a network. Raises ValueError."""
    return str(ipaddress.ip_network(value))


def require_origin(value: str) -> str:
    """The origin of a page, as browsers send it. Raises ValueError."""
    if re.fullmatch(r"https?://[^\s/?#@*]+", value) is None:
        raise ValueError(
            "an origin is scheme and host, with the port if it is another, as https://chat.example.com"
        )
    return value


def unique(what: str, names: Sequence[str]) -> None:
    """Raise ValueError if a name stands twice: the second would be ignored without a word."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{what}: {name!r} is given twice")


def redact_url(url: str) -> str:
    """The address as it may be logged: no password, neither before the `@` nor in the query.

    A password whose special characters are not escaped makes no proper URL: then what may be a part of it is hidden too.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "***" if "@" in url else url
    shown = _redact_query(rest)
    login, at, hosts = shown.rpartition("@")
    user, colon, _ = login.partition(":")
    if at:
        return f"{scheme}://{user}:***@{hosts}" if colon else f"{scheme}://{user}@{hosts}"
    netloc = re.split(r"[/?#]", rest, maxsplit=1)[0]
    host, colon, port = netloc.rpartition(":")
    if colon and port and not port.isdecimal() and not port.endswith("]"):
        # What looks like a host and a port is a user and the beginning of a password.
        return f"{scheme}://{host.partition(':')[0]}:***@***"
    return f"{scheme}://{shown}"


def _redact_query(text: str) -> str:
    return re.sub(r"([?&][^=&]*(?:password|secret|token)[^=&]*=)[^&]*", r"\1***", text, flags=re.IGNORECASE)


def require_push_service(value: str) -> str:
    """Where endpoints of browsers may be: an origin, whose host may begin with `*.`. Raises ValueError."""
    if re.fullmatch(r"https?://(\*\.)?[^\s/?#@*]+", value) is None:
        raise ValueError(
            "a push service is scheme and host, as https://fcm.googleapis.com or https://*.push.apple.com"
        )
    return value.lower()


def require_vapid_key(value: SecretStr) -> SecretStr:
    """A private key of VAPID. Raises ValueError."""
    public_key_of(value.get_secret_value())
    return value
