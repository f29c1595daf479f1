"""Both forms of what every token passes through: alike in all they answer, whatever they are given."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import hiredis
import pytest

from gateway.fanout.delivery import Delivery, OpenMessage, Variant
from selfhost_transport import accelerator
from selfhost_transport.accelerator import plain
from selfhost_transport.redis_io.link import pack
from selfhost_transport.store.entries import Ref, pack_append_body, unpack_entry
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position

LONG = os.environ.get("SELFHOST_TRANSPORT_LONG") == "1"
FRAMES = 1_000_000 if LONG else 10_000
EPOCH = "abc0123xyz"
REF = Ref(Position(1_763_000_000_000, 7), 2)
HEAD = b"A1763000000000-7:2\n"
LAST = b"1763000000001-0"
NAME = b"1763000000123-45"
needs_compiled = pytest.mark.skipif(
    accelerator.native is None, reason=f"the compiled accelerator: {accelerator.STATUS}"
)
Form = Any

# What texts are put together from: every kind of byte that is written in its own way, and each length's head.
PARTS = (
    "a", " token", '"', "\\", "/", "\b\t\n\f\r", "\x00\x01\x1f", "\x7f", "é", "€", "\U0001f600", "\u2028", "x" * 31, "y" * 32,
    "z" * 255, "q" * 256,
)  # fmt: skip


@pytest.fixture(params=["python", pytest.param("compiled", marks=needs_compiled)])
def form(request: pytest.FixtureRequest) -> Iterator[Form]:
    yield plain if request.param == "python" else accelerator.native


def text_of(source: random.Random) -> str:
    return "".join(source.choices(PARTS, k=source.choice((0, 1, 1, 1, 2, 5, 40))))


def header_of(source: random.Random) -> Message:
    return Message(
        name=source.choice((None, "ai-output", 'a"\n')),
        encoding=source.choice((None, "json", "utf-8")),
        client_id=source.choice((None, "agent", "é")),
        connection_id=source.choice((None, "c1")),
        extras=source.choice((None, {"headers": {"role": "assistant", "n": 1}})),
    )


def notification(body: bytes, name: bytes = NAME, last: bytes = LAST, head: bytes = HEAD) -> bytes:
    return b"%s %s %s%s" % (name, last, head, body)


def templates(variants: list[Variant], message: OpenMessage) -> tuple[accelerator.Template, ...]:
    return tuple(message.template(variant).fixed_parts for variant in variants)


VARIANTS = [Variant(Format.JSON, "room"), Variant(Format.MSGPACK, 'ro"om'), Variant(Format.JSON, "é")]


def test_frames_are_those_of_a_delivery(form: Form) -> None:
    source = random.Random(1)
    for number in range(300):
        message = OpenMessage(REF, header_of(source), EPOCH)
        ms = source.choice(
            (0, 9, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 10**14 - 1, 1_763_000_000_000)
        )
        name = f"{ms}-{source.choice((0, 9, 10, 999))}".encode()
        body = pack_append_body("x" * 70_000 if number == 0 else text_of(source))
        entry = unpack_entry(Position.of_name(name), HEAD + body)
        expected = tuple(Delivery(entry, EPOCH, message).frame(variant) for variant in VARIANTS)
        made = form.append_frames(
            notification(body, name), LAST, HEAD, EPOCH.encode(), templates(VARIANTS, message)
        )
        assert made == (name, ms, expected)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b" ",
        NAME,
        NAME + b" " + LAST,
        NAME + b" " + LAST + b" ",
        NAME + b" " + LAST + b" " + HEAD,
        notification(pack_append_body("x"), last=b"1763000000001-1"),
        notification(pack_append_body("x"), last=LAST + b"0"),
        notification(pack_append_body("x"), head=b"A1763000000000-7:3\n"),
        notification(pack_append_body("x"), head=b"C1763000000000-7:2\n"),
        notification(pack_append_body(b"bytes")),
        notification(pack_append_body("x", {"headers": {}})),
        notification(pack_append_body("x") + b"x"),
        notification(pack_append_body("x")[:-1]),
        notification(b"\x91"),
        notification(b"\x91\xd9"),
        notification(b"\x91\xda\x00"),
        notification(b"\x91\xdb\xff\xff\xff\xff"),
        notification(b"\x91\xdb\x00\x00"),
        notification(b"\x91\xa1\xff"),
        notification(b"\x91\xa3\xed\xa0\x80"),
        notification(b"\x91\xa2\xc0\x80"),
        notification(pack_append_body("x"), name=b"176300000000012-0"),
        notification(pack_append_body("x"), name=b"1-1000"),
        notification(pack_append_body("x"), name=b"1-"),
        notification(pack_append_body("x"), name=b"-1"),
        notification(pack_append_body("x"), name=b"+1-1"),
        notification(pack_append_body("x"), name=b"1_0-1"),
    ],
)
def test_what_is_not_the_next_append_is_not_for_it(form: Form, payload: bytes) -> None:
    assert form.append_frames(payload, LAST, HEAD, EPOCH.encode(), ()) is None


@pytest.mark.parametrize("epoch", [b"", b"short", b"ABCDEFGHIJ", b"abc0123xyz0", b'abc0123xy"'])
def test_an_epoch_that_is_none_is_not_for_it(form: Form, epoch: bytes) -> None:
    assert form.append_frames(notification(pack_append_body("x")), LAST, HEAD, epoch, ()) is None


def test_a_text_has_its_shortest_head_whatever_it_came_with(form: Form) -> None:
    long_head = notification(b"\x91\xdb\x00\x00\x00\x01x")
    fixed_parts = templates(VARIANTS, OpenMessage(REF, Message(), EPOCH))
    short = form.append_frames(notification(pack_append_body("x")), LAST, HEAD, EPOCH.encode(), fixed_parts)
    assert form.append_frames(long_head, LAST, HEAD, EPOCH.encode(), fixed_parts) == short


def test_a_command_reads_as_the_call_that_it_is(form: Form) -> None:
    head = pack(("EVALSHA", "0" * 40, 1, "key")).replace(b"*4", b"*7", 1)
    for size in (0, 1, 31, 32, 255, 256, 65_535, 65_536):
        for offset in (0, 9, 10, 2**40):
            chunk = b"c" * size
            reader = hiredis.Reader()
            reader.feed(form.append_command(head, offset, chunk, HEAD))
            entry = HEAD + pack_append_body(chunk.decode())
            assert reader.gets() == [
                b"EVALSHA", b"0" * 40, b"1", b"key", b"%d" % offset, chunk, entry[: len(entry) - size],
            ]  # fmt: skip
            assert not reader.has_data()


# The two against each other


def _mutated(source: random.Random, payload: bytes) -> bytes:
    """The payload with some bytes changed, left out, or put in."""
    changed = bytearray(payload)
    for _ in range(source.choice((1, 1, 2, 5))):
        at = source.randrange(len(changed) + 1)
        kind = source.randrange(4)
        if kind == 0 and at < len(changed):
            changed[at] = source.randrange(256)
        elif kind == 1:
            del changed[at : at + source.randrange(4)]
        elif kind == 2:
            changed[at:at] = source.randbytes(source.randrange(1, 4))
        else:
            del changed[at:]
    return bytes(changed)


@needs_compiled
def test_both_forms_answer_alike_whatever_comes() -> None:
    seed = int.from_bytes(os.urandom(4)) if LONG else 2
    print(f"seed {seed}")
    source = random.Random(seed)
    native: Any = accelerator.native
    known = taken = 0
    message = OpenMessage(REF, header_of(source), EPOCH)
    fixed_parts = templates(VARIANTS, message)
    for number in range(FRAMES // len(VARIANTS) + 1):
        if number % 50 == 0:
            message = OpenMessage(REF, header_of(source), EPOCH)
            fixed_parts = templates(VARIANTS, message)
        payload = notification(
            pack_append_body(text_of(source)), b"%d-%d" % (source.randrange(10**14), source.randrange(1000))
        )
        if source.random() < 0.5:
            payload = _mutated(source, payload)
        arguments = (payload, LAST, HEAD, EPOCH.encode(), fixed_parts)
        made = plain.append_frames(*arguments)
        assert native.append_frames(*arguments) == made, (seed, payload)
        known += 1
        taken += made is not None
        chunk = payload[: source.randrange(300)]
        command = (HEAD, source.randrange(2**48), chunk, LAST)
        assert native.append_command(*command) == plain.append_command(*command), (seed, command)
    assert known / 3 < taken < known


@needs_compiled
def test_nothing_is_kept_of_what_it_was_given() -> None:
    native: Any = accelerator.native
    payload, fixed_parts = (
        notification(pack_append_body("é\n" * 100)),
        templates(VARIANTS, OpenMessage(REF, Message(), EPOCH)),
    )
    broken = notification(b"\x91\xa1\xff")
    epoch = EPOCH.encode()

    def work() -> None:
        for _ in range(2000):
            native.append_frames(payload, LAST, HEAD, epoch, fixed_parts)
            native.append_frames(broken, LAST, HEAD, epoch, fixed_parts)
            native.append_command(HEAD, 5, payload, LAST)
            for wrong in (
                (payload, LAST, HEAD, epoch, (fixed_parts[0], None)),
                (payload, LAST, HEAD, epoch, None),
            ):
                with pytest.raises(TypeError):
                    native.append_frames(*wrong)

    work()
    held = [
        sys.getrefcount(value) for value in (payload, fixed_parts, fixed_parts[0], LAST, HEAD, epoch, broken)
    ]
    blocks = sys.getallocatedblocks()
    work()
    assert [
        sys.getrefcount(value) for value in (payload, fixed_parts, fixed_parts[0], LAST, HEAD, epoch, broken)
    ] == held
    assert sys.getallocatedblocks() - blocks < 1000


@needs_compiled
@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda native: native.append_frames(b"", b"", b"", b""), TypeError),
        (lambda native: native.append_frames("", b"", b"", b"", ()), TypeError),
        (lambda native: native.append_frames(b"", b"", b"", bytearray(10), ()), TypeError),
        (lambda native: native.append_frames(b"", b"", b"", b"", []), TypeError),
        (lambda native: native.append_command(b"", 0, b""), TypeError),
        (lambda native: native.append_command(b"", "0", b"", b""), TypeError),
        (lambda native: native.append_command(b"", 0, "", b""), TypeError),
        (lambda native: native.append_command(b"", -1, b"", b""), OverflowError),
        (lambda native: native.append_command(b"", 2**64, b"", b""), OverflowError),
    ],
)
def test_values_of_other_types_are_refused(
    call: Callable[[ModuleType], object], error: type[Exception]
) -> None:
    assert accelerator.native is not None
    with pytest.raises(error):
        call(accelerator.native)


def test_the_source_has_nothing_that_newer_headers_compile_for_newer_interpreters_only() -> None:
    # A wheel serves all versions, whichever built it. Since 3.12 Py_RETURN_… counts no reference; `#` in a format that was
    # compiled with headers of 3.13 raises SystemError in older ones.
    folder = Path(plain.__file__).parent
    sources = "".join(path.read_text() for path in [*folder.glob("*.c"), *folder.glob("*.h")])
    sources = re.sub(r"/\*.*?\*/", "", sources, flags=re.DOTALL)
    assert "Py_LIMITED_API 0x030B" in sources
    assert not re.findall(r"Py_RETURN_(?:NONE|TRUE|FALSE|NOTIMPLEMENTED)", sources)
    assert not re.findall(
        r"Py(?:_BuildValue|Arg_Parse\w*|Object_Call\w*|Err_Format)\([^\"]*\"[^\"]*#", sources
    )


# Which one is used


def _status(**environment: str) -> str:
    command = [
        sys.executable,
        "-c",
        "from selfhost_transport import accelerator as a; print(a.STATUS, a.append_frames.__module__)",
    ]
    rest = {name: value for name, value in os.environ.items() if name != "SELFHOST_TRANSPORT_PURE"}
    return subprocess.run(
        command, env=rest | environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_environment_refuses_the_compiled_form() -> None:
    assert _status(SELFHOST_TRANSPORT_PURE="1") == (
        "not used: SELFHOST_TRANSPORT_PURE is set selfhost_transport.accelerator.plain"
    )


@needs_compiled
def test_the_compiled_form_is_used_where_it_is() -> None:
    assert _status() == _status(SELFHOST_TRANSPORT_PURE="0")
    assert _status().startswith("compiled") and not _status().endswith("plain")
