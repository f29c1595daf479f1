"""Bytes to plain maps and back, for JSON and msgpack (protocol section 2.4).

The only place that knows the two serialisation libraries and what each of them cannot represent.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Never, TypeAlias

import msgpack
import orjson

from selfhost_transport.errors import BadRequest

MAX_DEPTH = 64
"""Levels of nesting accepted in opaque values. The JSON encoder itself stops at 254."""
MAX_CONTAINER = 16384
"""Entries of one msgpack array or map. The decoder reserves memory by the announced length."""

_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")
# What ably-js makes of `undefined` in msgpack: extension type 0 with one zero byte, in its short and its long form.
_UNDEFINED_FORMS = (b"\xd4\x00\x00", b"\xc7\x01\x00\x00")
_UNDEFINED = object()


Look: TypeAlias = Callable[[Any], None]


class Format(StrEnum):
    """The serialisation a connection or a request uses; the values are those of the `format` parameter."""

    JSON = "json"
    MSGPACK = "msgpack"


def unpack(raw: str | bytes, fmt: Format, look: Look | None = None) -> Any:
    """Decode one complete value. Raises BadRequest 40001 for anything that is not exactly one value.

    `look`: called with a value that has halves of characters, before they are replaced by U+FFFD.
    """
    return _unpack_json(raw, look) if fmt is Format.JSON else _unpack_msgpack(raw, look)


def unpack_map(raw: str | bytes, fmt: Format, look: Look | None = None) -> dict[str, Any]:
    """Decode a value that must be a map. Raises BadRequest 40001. `look`: as for `unpack`."""
    value = unpack(raw, fmt, look)
    if not isinstance(value, dict):
        raise BadRequest(f"expected a map, got {kind(value)}", code=40001)
    return value


def pack(value: Any, fmt: Format) -> bytes:
    """Encode a value; bytes inside a JSON document become base64 text.

    Raises BadRequest 40013 for what the format cannot carry (lone surrogates, integers over 64 bits).
    """
    try:
        if fmt is Format.JSON:
            return orjson.dumps(value, default=_json_default)
        return msgpack.packb(value, use_bin_type=True)  # type: ignore[no-any-return]
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRequest(f"cannot be encoded as {fmt}: {error}", code=40013) from error


def check_plain(value: Any, where: str, code: int = 40000, depth: int = 0, *, binary: bool = False) -> None:
    """Accept only what both formats carry unchanged; `binary` allows bytes. Raises BadRequest `code`."""
    if isinstance(value, str | bool) or value is None:
        return
    if isinstance(value, int):
        if not _MIN_INT <= value <= _MAX_INT:
            raise BadRequest(f"{where} holds an integer of more than 64 bits", code=code)
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise BadRequest(f"{where} holds a number that is not finite", code=code)
    elif isinstance(value, dict | list):
        _check_container(value, where, code, depth, binary)
    elif not (binary and isinstance(value, bytes)):
        raise BadRequest(f"{where} holds {kind(value)}, which JSON cannot carry", code=code)


def _check_container(value: Any, where: str, code: int, depth: int, binary: bool) -> None:
    if depth >= MAX_DEPTH:
        raise BadRequest(f"{where} is nested more than {MAX_DEPTH} levels deep", code=code)
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise BadRequest(f"{where} has a map key that is not a string", code=code)
        value = value.values()
    for item in value:
        # Most values are strings: spare them the call.
        if type(item) is not str:
            check_plain(item, where, code, depth + 1, binary=binary)


def kind(value: object) -> str:
    """The name of a value's type in the words of the wire, for error messages."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "a map"
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        bytes: "binary",
        list: "a list",
    }
    return names.get(type(value), "an extension type")


def _unpack_json(raw: str | bytes, look: Look | None) -> Any:
    try:
        return orjson.loads(raw)
    except (ValueError, RecursionError) as error:
        escape = "\\ud" if isinstance(raw, str) else b"\\ud"
        # JavaScript writes a lone surrogate as an escape that the strict parser refuses.
        if escape in raw.lower():  # type: ignore[operator]
            return _unpack_json_with_surrogates(raw, look)
        raise BadRequest(f"not a JSON document: {error}", code=40001) from error


def _unpack_json_with_surrogates(raw: str | bytes, look: Look | None) -> Any:
    try:
        value = json.loads(raw, parse_constant=_refuse_constant, parse_int=_bounded_int)
        return _mended(value, look)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"not a JSON document: {error}", code=40001) from error


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")


def _bounded_int(text: str) -> int | float:
    value = int(text)
    return value if _MIN_INT <= value <= _MAX_INT else float(text)


def _unpack_msgpack(raw: str | bytes, look: Look | None) -> Any:
    if isinstance(raw, str):
        raise BadRequest("expected a binary msgpack message, got text", code=40001)
    try:
        try:
            value = _unpackb(raw, "strict")
        except UnicodeDecodeError:
            value = _mended(_unpackb(raw, "surrogatepass"), look)
        return _without_undefined(value) if any(form in raw for form in _UNDEFINED_FORMS) else value
    except (
        ValueError,
        TypeError,
        RecursionError,
        MemoryError,
        OverflowError,
        msgpack.UnpackException,
    ) as error:
        # Some of the library's exceptions print as nothing.
        reason = str(error) or type(error).__name__
        raise BadRequest(f"not exactly one msgpack value: {reason[:200]}", code=40001) from error


def _unpackb(raw: bytes, unicode_errors: str) -> Any:
    return msgpack.unpackb(
        raw,
        raw=False,
        unicode_errors=unicode_errors,
        ext_hook=_extension,
        max_array_len=MAX_CONTAINER,
        max_map_len=MAX_CONTAINER,
    )


def _extension(code: int, data: bytes) -> object:
    return _UNDEFINED if (code, data) == (0, b"\0") else msgpack.ExtType(code, data)


def _without_undefined(value: Any) -> Any:
    """What JavaScript's JSON makes of `undefined`: no key in a map, null in a list."""
    if isinstance(value, dict):
        return {key: _without_undefined(item) for key, item in value.items() if item is not _UNDEFINED}
    if isinstance(value, list):
        return [_without_undefined(item) for item in value]
    return None if value is _UNDEFINED else value


def _mended(value: Any, look: Look | None) -> Any:
    if look is not None:
        look(value)
    return _replace_surrogates(value)


def _replace_surrogates(value: Any) -> Any:
    """Lone surrogates become U+FFFD, pairs become their character, in keys too."""
    if isinstance(value, str):
        if _SURROGATE.search(value) is None:
            return value
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_replace_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_replace_surrogates(key): _replace_surrogates(item) for key, item in value.items()}
    return value


def _json_default(value: object) -> str:
    if isinstance(value, bytes):
        return b64encode(value).decode("ascii")
    raise TypeError(f"{kind(value)} has no JSON form")
