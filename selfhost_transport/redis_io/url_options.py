"""The options in the query of a Redis URL: those of the redis package are honoured as there, or refused by name."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import parse_qsl

from selfhost_transport.errors import InvalidArgument

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """What the query says; None where it does not. Times in seconds."""

    database: int | None = None
    username: str | None = None
    password: str | None = None
    client_name: str | None = None
    connect_timeout_s: float | None = None
    timeout_s: float | None = None
    keepalive: bool = True
    tls: ssl.SSLContext | None = None


_FALSE: Final = ("0", "F", "FALSE", "N", "NO")
_VERIFY: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_TLS: Final = frozenset(
    {
        "ssl_keyfile", "ssl_certfile", "ssl_password", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data",
        "ssl_check_hostname", "ssl_min_version", "ssl_ciphers", "ssl_include_verify_flags", "ssl_exclude_verify_flags",
    }
)  # fmt: skip
_PLAIN: Final = frozenset(
    {
        "db", "username", "password", "client_name", "socket_connect_timeout", "socket_timeout", "socket_keepalive",
        "protocol", "health_check_interval",
    }
)  # fmt: skip
_NAME: Final = re.compile(r"[a-z_]{1,40}")
_PINGED_EVERY_S: Final = 5
_POOL: Final = (
    "this service has no pool of connections: it opens one for calls, and one for each kind of notification"
)
_REPEATS: Final = "this service decides which calls it retries, and for how long"
_BYTES: Final = "replies are read as bytes"
_WHY: Final = {
    "max_connections": _POOL,
    "timeout": _POOL,
    "retry_on_timeout": _REPEATS,
    "retry_on_error": _REPEATS,
    "retry": _REPEATS,
    "decode_responses": _BYTES,
    "encoding": _BYTES,
    "encoding_errors": _BYTES,
    "legacy_responses": _BYTES,
    "ssl_validate_ocsp": "OCSP is not supported",
    "ssl_validate_ocsp_stapled": "OCSP is not supported",
}


def read(query: str, *, tls: bool) -> Options:
    """Read the query of a URL. Raises InvalidArgument that names the option, and never what a password may be."""
    given: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        _require_known(name, tls=tls)
        if not value:
            raise InvalidArgument(f"the Redis URL's option {name} has no value")
        if name in given:
            raise InvalidArgument(f"the Redis URL's option {name} is given twice")
        given[name] = value
    _check_protocol(given)
    return Options(
        database=_value(given, "db", _natural, "a number from 0 on"),
        username=given.get("username"),
        password=given.get("password"),
        client_name=_value(given, "client_name", _client_name, "without spaces and control characters"),
        connect_timeout_s=_value(given, "socket_connect_timeout", _seconds, "a number of seconds above 0"),
        timeout_s=_value(given, "socket_timeout", _seconds, "a number of seconds above 0"),
        keepalive=_flag(given, "socket_keepalive", default=True),
        tls=_context(given) if tls else None,
    )


def _require_known(name: str, *, tls: bool) -> None:
    if name in _PLAIN or (tls and name in _TLS):
        return
    if name in _TLS:
        raise InvalidArgument(f"the Redis URL's option {name} needs TLS: rediss:// instead of redis://")
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            "the Redis URL has an option that cannot be read; in a password ? is written %3F, & is %26, / is %2F, "
            "# is %23 and @ is %40"
        )
    raise InvalidArgument(
        f"the Redis URL's option {name} is not supported: {_WHY.get(name, 'the redis package has no such option')}"
    )


def _check_protocol(given: dict[str, str]) -> None:
    if given.get("protocol", "2") != "2":
        raise InvalidArgument(
            "the Redis URL's option protocol is not supported, except as 2: RESP3 is not supported"
        )
    interval = _value(given, "health_check_interval", float, "a number of seconds")
    if interval is not None and 0 < interval < _PINGED_EVERY_S:
        raise InvalidArgument(
            f"the Redis URL's option health_check_interval is not supported below {_PINGED_EVERY_S}: connections are "
            f"checked every {_PINGED_EVERY_S} s"
        )


def _value(given: dict[str, str], name: str, read: Callable[[str], T], what: str) -> T | None:
    try:
        return read(given[name]) if name in given else None
    except ValueError:
        raise InvalidArgument(f"the Redis URL's option {name} is {what}, not {given[name][:32]!r}") from None


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise ValueError
    return int(text)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise ValueError
    return value


def _client_name(text: str) -> str:
    """What CLIENT SETNAME takes."""
    if not all("!" <= character <= "~" for character in text):
        raise ValueError
    return text


def _flag(given: dict[str, str], name: str, *, default: bool) -> bool:
    """As the redis package reads it: everything but a few words is true."""
    return given[name].upper() not in _FALSE if name in given else default


def _context(given: dict[str, str]) -> ssl.SSLContext:
    wanted = given.get("ssl_cert_reqs", "required")
    if wanted not in _VERIFY:
        raise InvalidArgument(
            f"the Redis URL's option ssl_cert_reqs is one of {', '.join(_VERIFY)}, not {wanted[:32]!r}"
        )
    context = ssl.create_default_context()
    # Without a check of the certificate there is no name to compare.
    checks_name = _flag(given, "ssl_check_hostname", default=True) and wanted != "none"
    context.check_hostname = checks_name
    context.verify_mode = _VERIFY[wanted]
    for name, add in (("ssl_include_verify_flags", True), ("ssl_exclude_verify_flags", False)):
        for flag in (
            _value(given, name, _verify_flags, "names of ssl.VerifyFlags, with commas between them") or ()
        ):
            context.verify_flags = context.verify_flags | flag if add else context.verify_flags & ~flag
    lowest = _value(given, "ssl_min_version", _version, "TLSv1_2 or TLSv1_3, or their numbers")
    if lowest is not None:
        context.minimum_version = lowest
    _load_files(context, given)
    return context


def _load_files(context: ssl.SSLContext, given: dict[str, str]) -> None:
    certificate, key = given.get("ssl_certfile"), given.get("ssl_keyfile")
    if key is not None and certificate is None:
        raise InvalidArgument("the Redis URL's option ssl_keyfile needs ssl_certfile")
    ca_file, ca_path, ca_data = (given.get(f"ssl_ca_{kind}") for kind in ("certs", "path", "data"))
    names = [name for name in ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs", "ssl_ca_path") if name in given]
    for name in names:
        _require_readable(name, given[name])
    try:
        if ca_file or ca_path or ca_data:
            context.load_verify_locations(ca_file, ca_path, ca_data)
        if certificate is not None:
            # An empty password, so that OpenSSL does not prompt for one.
            context.load_cert_chain(certificate, key, given.get("ssl_password", ""))
        if "ssl_ciphers" in given:
            context.set_ciphers(given["ssl_ciphers"])
    except (OSError, ValueError, TypeError) as error:
        used = ", ".join(f"{name}={given[name]}" for name in names) or "ssl_ca_data or ssl_ciphers"
        raise InvalidArgument(f"the Redis URL's TLS options cannot be used ({used}): {error}") from None


def _require_readable(name: str, path: str) -> None:
    try:
        if name == "ssl_ca_path":
            next(iter(os.scandir(path)), None)
        else:
            Path(path).open("rb").close()
    except OSError as error:
        raise InvalidArgument(f"the Redis URL's option {name}: {path}: {error.strerror}") from None


def _verify_flags(text: str) -> list[ssl.VerifyFlags]:
    """Also in the brackets and with the class name that the redis package takes."""
    names = [name.strip().removeprefix("VerifyFlags.") for name in text.strip("[]").split(",")]
    try:
        return [ssl.VerifyFlags[name] for name in names if name]
    except KeyError:
        raise ValueError from None


def _version(text: str) -> ssl.TLSVersion:
    if text.isdecimal():
        return ssl.TLSVersion(int(text))
    try:
        return ssl.TLSVersion[text.removeprefix("TLSVersion.")]
    except KeyError:
        raise ValueError from None
