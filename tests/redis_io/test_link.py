"""Replies that arrive together are handed on together."""

from __future__ import annotations

import pytest

from selfhost_transport.redis_io.link import Link


def feed(link: Link, data: bytes) -> None:
    buffer = link.get_buffer(-1)
    buffer[: len(data)] = data
    link.buffer_updated(len(data))


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([b":1\r\n"], [[1]]),
        ([b":1\r\n:2\r\n:3\r\n"], [[1, 2, 3]]),
        ([b":1\r\n:", b"2\r\n"], [[1], [2]]),
        ([b":1", b"\r\n", b":2\r\n:3\r\n"], [[1], [2, 3]]),
        ([b":1\r\n?"], [[1]]),
    ],
)
def test_what_one_read_brings_comes_in_one_call(chunks: list[bytes], expected: list[object]) -> None:
    said: list[object] = []
    link = Link(lambda reply: None, lambda error: None, said.append)
    for chunk in chunks:
        feed(link, chunk)
    assert said == expected


def test_without_such_a_call_each_reply_comes_by_itself() -> None:
    said: list[object] = []
    feed(Link(said.append, lambda error: None), b":1\r\n:2\r\n")
    assert said == [1, 2]
