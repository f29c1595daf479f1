"""What every frame and every reply of the service must have, whatever the scenario (protocol sections 2.4, 3, 6, 9)."""

from __future__ import annotations

import re
from typing import Any

import httpx

from selfhost_transport.wire.codec import Format, unpack

Map = dict[str, Any]

_LINK = re.compile(r'<\./(\w+)\?([^>]*)>; rel="(\w+)"')
_ERROR_FIELDS = {"code", "statusCode", "message"}


def check_frame(frame: Map) -> None:
    """The structure that SDKs rely on. Raises AssertionError."""
    assert not _has_null(frame), f"a null on the wire: {frame}"
    if "error" in frame:
        assert frame["error"].keys() >= _ERROR_FIELDS, frame
    match frame["action"]:
        case 1 | 2:
            assert {"msgSerial", "count"} <= frame.keys(), frame
        case 4:
            _check_connected(frame)
        case 6:
            assert frame["error"]["statusCode"] < 500, f"ably-python hangs on it: {frame}"
        case 11:
            assert frame["channelSerial"] and frame["flags"], frame
        case 15:
            assert {"channel", "channelSerial", "messages"} <= frame.keys(), frame
            for message in frame["messages"]:
                _check_message(message)
        case 14 | 16:
            for member in frame["presence"]:
                assert {"action", "clientId", "connectionId", "timestamp"} <= member.keys(), frame


def _check_connected(frame: Map) -> None:
    details = frame["connectionDetails"]
    needed = {"connectionKey", "maxMessageSize", "connectionStateTtl", "maxIdleInterval", "maxFrameSize"}
    assert needed <= details.keys(), frame
    assert ":" not in frame["connectionId"]


def _check_message(message: Map) -> None:
    assert {"id", "serial", "action", "timestamp", "version"} <= message.keys(), message
    assert {"serial", "timestamp"} <= message["version"].keys(), message
    assert message["version"]["serial"] >= message["serial"]
    if isinstance(message.get("data"), bytes):
        assert not message.get("encoding", "").endswith("base64"), message


def _has_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(item is None or _has_null(item) for item in value.values())
    return isinstance(value, list) and any(_has_null(item) for item in value)


def check_reply(request: Map, recorded: Map, reply: httpx.Response) -> Map | None:
    """Status, type, error form and shape of a reply are those the SDK was recorded with.

    Returns the query of the page's `next` link, if it has one. Raises AssertionError.
    """
    where = (
        f"{request['method']} {request['path']}{request['raw_query']}: {reply.status_code} {reply.text[:300]}"
    )
    assert reply.status_code == recorded["status"], where
    if reply.status_code >= 400:
        _check_error(reply, where)
        assert reply.headers["x-ably-errorcode"] == recorded["headers"]["x-ably-errorcode"], where
        return None
    assert reply.headers["content-type"] == recorded["headers"]["content-type"], where
    msgpack = "msgpack" in reply.headers["content-type"]
    body, expected = unpack(reply.content, Format.MSGPACK if msgpack else Format.JSON), recorded["body"]
    _check_shape(body, expected, where)
    return _check_links(body, expected, recorded, reply, where)


def _check_error(reply: httpx.Response, where: str) -> None:
    assert reply.headers["content-type"] == "application/json", where
    error = reply.json()["error"]
    assert error.keys() >= _ERROR_FIELDS, where
    assert error["statusCode"] == reply.status_code, where
    assert reply.headers["x-ably-errorcode"] == str(error["code"]), where


def _check_shape(body: Any, expected: Any, where: str) -> None:
    """Fields of the recorded answer are there, with values of the same kind."""
    if isinstance(expected, dict) and set(expected) != {"$bin_base64"}:
        assert isinstance(body, dict), where
        for name in expected.keys() - {"headers", "schema", "error"}:
            assert name in body, f"{name} is missing: {where}"
            _check_shape(body[name], expected[name], where)
    elif isinstance(expected, list):
        assert isinstance(body, list), where
        # Statistics are not kept here, annotations were not there; else as much is listed as by the recorded server.
        if "/stats" not in where and "/annotations" not in where:
            assert len(body) == len(expected), f"{len(body)} items, not {len(expected)}: {where}"
        for got, item in zip(body, expected, strict=False):
            _check_shape(got, item, where)
    elif isinstance(expected, str):
        assert isinstance(body, str | bytes), where


def _check_links(body: Any, expected: Any, recorded: Map, reply: httpx.Response, where: str) -> Map | None:
    enveloped = isinstance(expected, dict) and "statusCode" in expected
    old = expected["headers"].get("link", "") if enveloped else recorded["headers"].get("link", "")
    text = body["headers"].get("link", "") if enveloped else reply.headers.get("link", "")
    links = {rel: (resource, query) for resource, query, rel in _LINK.findall(text)}
    for resource, _, rel in _LINK.findall(old):
        if "/stats" in where:
            continue
        assert rel in links, f"no link {rel}: {where} {text}"
        assert links[rel][0] == resource, f"{links[rel]}: {where}"
    if "next" not in links:
        return None
    assert 'rel="next"' in old, f"a next page that should not be: {where}"
    return dict(httpx.QueryParams(links["next"][1]))
