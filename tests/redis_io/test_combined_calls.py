"""Calls that are sent as one stay calls of their own: their order, replies, refusals and repetitions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import hiredis
import pytest

from selfhost_transport.accelerator import append_command
from selfhost_transport.redis_io.calls import NO_CALLER, Combination, PendingCall
from selfhost_transport.redis_io.combined_calls import FEWEST, MOST, MOST_BYTES, pack_calls
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.redis_io.link import pack
from tests.redis_io.lua import NEXT, SEVERAL_NEXT, Lua

PUSH = Lua("return redis.call('RPUSH', KEYS[1], ARGV[1])")
OTHER = Lua("return 'another script'")


@pytest.fixture
def own_server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


def prepared(number: int, several: Lua = SEVERAL_NEXT, guard: bytes = b"", size: int = 1) -> PendingCall:
    """A call of NEXT about the key `k<number>` with two arguments."""
    alone = b"*6\r\n$7\r\nEVALSHA\r\n$40\r\n%s\r\n$1\r\n1\r\n$2\r\nk%d\r\n" % (NEXT.digest.encode(), number)
    combination = Combination(several, alone, b"$2\r\nk%d\r\n" % number, guard, (1, 2))
    arguments = b"$%d\r\n%s\r\n$1\r\n%d\r\n" % (size, b"x" * size, number)
    return PendingCall(arguments, NEXT, NO_CALLER, 0.0, True, None, combination)


def plain(text: str) -> PendingCall:
    return PendingCall(pack(("PING", text)), None, NO_CALLER, 0.0, False)


def sent(calls: list[PendingCall]) -> list[list[bytes]]:
    """The words of each command that leaves."""
    found = []
    for command in pack_calls(calls):
        reader = hiredis.Reader()
        reader.feed(command)
        found.append(reader.gets())
        assert reader.gets() is False
    return found


def test_what_leaves_together_is_one_command() -> None:
    calls = [prepared(number) for number in range(5)]
    assert sent(calls) == [
        [b"EVALSHA", SEVERAL_NEXT.digest.encode(), b"5", b"k0", b"k1", b"k2", b"k3", b"k4"]
        + [word for number in range(5) for word in (b"x", b"%d" % number)]
    ]
    assert [call.combined for call in calls] == [5, 0, 0, 0, 0]


def test_a_cluster_gets_one_guard_for_all() -> None:
    ((_, _, count, *keys),) = sent([prepared(number, guard=b"$1\r\ng\r\n") for number in range(4)])
    assert (count, keys[:5]) == (b"5", [b"k0", b"k1", b"k2", b"k3", b"g"])


def test_few_calls_long_ones_and_others_leave_alone_and_in_place() -> None:
    few = [prepared(number) for number in range(FEWEST - 1)]
    assert [words[1] for words in sent(few)] == [NEXT.digest.encode()] * len(few)
    mixed = [
        plain("a"), *[prepared(1) for _ in range(4)], plain("b"), *[prepared(2) for _ in range(4)],
        *[prepared(3, OTHER) for _ in range(4)], plain("c"),
    ]  # fmt: skip
    assert [words[1].decode() for words in sent(mixed)] == [
        "a", SEVERAL_NEXT.digest, "b", SEVERAL_NEXT.digest, OTHER.digest, "c",
    ]  # fmt: skip
    long = [prepared(number, size=MOST_BYTES // 4) for number in range(4)]
    assert [words[1] for words in sent(long)] == [NEXT.digest.encode()] * 4


def test_a_command_has_so_many_calls_at_most() -> None:
    calls = [prepared(number % 10) for number in range(2 * MOST + 1)]
    assert [words[2] for words in sent(calls)] == [b"%d" % MOST, b"%d" % MOST, b"1"]
    assert [call.combined for call in calls if call.combined] == [MOST, MOST]


def test_what_may_have_been_carried_out_leaves_alone() -> None:
    calls = [prepared(number) for number in range(5)]
    sent(calls)
    for call in calls:
        call.go_alone()
    assert [words[1] for words in sent(calls)] == [NEXT.digest.encode()] * 5
    assert not any(call.combined for call in calls)


class Numbers:
    """Appends numbers to lists, each of which must follow on the last one."""

    def __init__(self, connection: RedisConnection) -> None:
        keys = [f"n{number}" for number in range(4)]
        self.connection = connection
        self.lists = [
            connection.prepare(NEXT, [key], [], misplaced=b"gap", several=SEVERAL_NEXT) for key in keys
        ]
        self.answers: list[asyncio.Future[Any]] = []
        self.sent = 0

    def round(self, count: int) -> None:
        """So many numbers to each list."""
        for number in range(self.sent, self.sent + count):
            for one in self.lists:
                answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                self.answers.append(answer)
                one.call(append_command(one.head, number, b"", b""), answer, 5)
        self.sent += count

    async def check(self, *replies: bytes) -> None:
        assert set(await asyncio.gather(*self.answers)) <= {b"ok", *replies}
        for number in range(len(self.lists)):
            found = await self.connection.command("LRANGE", f"n{number}", 0, -1)
            assert [int(each) for each in found] == list(range(self.sent))


async def evaluations(connection: RedisConnection) -> int:
    """How many calls of scripts the server has counted."""
    text: bytes = await connection.command("INFO", "commandstats")
    line = next(line for line in text.splitlines() if line.startswith(b"cmdstat_evalsha:"))
    return int(line.partition(b"calls=")[2].partition(b",")[0])


async def test_calls_of_one_iteration_are_one_call(own_server: EmbeddedRedis) -> None:
    connection = RedisConnection(own_server.url)
    connection.keep_loaded([NEXT, SEVERAL_NEXT])
    numbers = Numbers(connection)
    numbers.round(2)
    await numbers.check()
    before = await evaluations(connection)
    numbers.round(8)
    await numbers.check()
    assert await evaluations(connection) - before == 1
    await connection.close()


async def test_a_script_that_was_lost_keeps_the_order(own_server: EmbeddedRedis) -> None:
    """The script of one call, that of several, and another one come back in turn."""
    connection = RedisConnection(own_server.url)
    numbers, pushed = Numbers(connection), list[asyncio.Future[Any]]()
    for step in range(120):
        if step % 30 == 10:
            pushed.append(connection.command("SCRIPT", "FLUSH"))
        if step % 4 == 0:
            pushed.append(connection.call(PUSH, ["pushed"], [step]))
        numbers.round(1 + step % 3)
        if step % 2:
            await asyncio.sleep(0)
    await numbers.check()
    await asyncio.gather(*pushed)
    assert [int(each) for each in await connection.command("LRANGE", "pushed", 0, -1)] == list(
        range(0, 120, 4)
    )
    await connection.close()


async def test_what_was_in_flight_on_a_lost_connection_is_repeated_call_by_call(
    own_server: EmbeddedRedis,
) -> None:
    """Of those that were carried out, the list says so: they are `gap` now, and are in it once."""
    connection, other = RedisConnection(own_server.url), RedisConnection(own_server.url)
    numbers = Numbers(connection)
    for _ in range(20):
        numbers.round(10)
        await asyncio.sleep(0)
        await other.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await numbers.check(b"gap")
    for each in (connection, other):
        await each.close()


async def test_a_caller_that_left_does_not_shift_the_replies(own_server: EmbeddedRedis) -> None:
    connection = RedisConnection(own_server.url)
    connection.keep_loaded([NEXT, SEVERAL_NEXT])
    numbers = Numbers(connection)
    numbers.round(4)
    for answer in numbers.answers[1::3]:
        answer.cancel()
    await asyncio.wait(numbers.answers)
    assert {answer.result() for answer in numbers.answers if not answer.cancelled()} == {b"ok"}
    numbers.answers.clear()
    numbers.round(3)
    await numbers.check()
    await connection.close()
