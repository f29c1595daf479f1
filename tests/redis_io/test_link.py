"""Replies that arrive together are handed on together."""

from __future__ import annotations

from types import TracebackType

import pytest

from selfhost_transport.redis_io.link import Link


class Batch:
    """Notes when it is open among what is handed on."""

    def __init__(self, said: list[object]) -> None:
        self._said = said

    def __enter__(self) -> None:
        self._said.append("(")

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._said.append(")")


def feed(link: Link, data: bytes) -> None:
    buffer = link.get_buffer(-1)
    buffer[: len(data)] = data
    link.buffer_updated(len(data))


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([b":1\r\n"], [1]),
        ([b":1\r\n:2\r\n:3\r\n"], ["(", 1, 2, 3, ")"]),
        ([b":1\r\n:", b"2\r\n"], ["(", 1, ")", 2]),
        ([b":1", b"\r\n", b":2\r\n:3\r\n"], [1, "(", 2, 3, ")"]),
    ],
)
def test_a_batch_is_open_while_more_is_to_come(chunks: list[bytes], expected: list[object]) -> None:
    said: list[object] = []
    link = Link(said.append, lambda error: None, Batch(said))
    for chunk in chunks:
        feed(link, chunk)
    assert said == expected


def test_a_reply_that_makes_trouble_closes_the_batch() -> None:
    said: list[object] = []

    def fail(reply: object) -> None:
        raise RuntimeError("a fault")

    link = Link(fail, lambda error: None, Batch(said))
    with pytest.raises(RuntimeError):
        feed(link, b":1\r\n:2\r\n")
    assert said == ["(", ")"]
