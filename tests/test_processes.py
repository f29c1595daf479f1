"""The test tools themselves: what a wrong tool would let pass."""

from __future__ import annotations

import sys

import psutil
import pytest
import redis

from tests.leaks import unowned_keys
from tests.processes import Proc, Stack, gone, wait_until

SERVE = "import time; print('starting'); print('ready http://127.0.0.1:4711'); time.sleep(60)"


async def _python(stack: Stack, program: str) -> Proc:
    return await stack.run(sys.executable, "-c", program)


async def test_a_process_is_ready_when_it_says_so(stack: Stack) -> None:
    proc = await _python(stack, SERVE)
    assert await proc.ready == "http://127.0.0.1:4711"
    assert proc.port == 4711 and proc.lines[0] == "starting"


async def test_a_process_that_ends_before_it_is_ready_shows_why(stack: Stack) -> None:
    proc = await _python(stack, "raise SystemExit('no such option')")
    with pytest.raises(AssertionError, match="no such option"):
        await proc.ready
    assert await proc.wait() == 1


async def test_freeze_kill_and_terminate(stack: Stack) -> None:
    frozen, killed, asked = [await _python(stack, SERVE) for _ in range(3)]
    for proc in (frozen, killed, asked):
        await proc.ready
    frozen.pause()
    await wait_until(lambda: psutil.Process(frozen.pid).status() == psutil.STATUS_STOPPED)
    frozen.proceed()
    await wait_until(lambda: psutil.Process(frozen.pid).status() != psutil.STATUS_STOPPED)
    killed.kill()
    asked.terminate()
    assert (await killed.wait(), await asked.wait()) == (-9, -15)


async def test_closing_the_stack_leaves_no_process(stack: Stack) -> None:
    program = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SERVE!r}]); {SERVE}"
    parent = await _python(stack, program)
    await parent.ready
    children = await wait_until(lambda: psutil.Process(parent.pid).children())
    parent.pause()
    await stack.close()
    await wait_until(lambda: all(gone(child) for child in children))
    assert parent.returncode == -9


async def test_wait_until_returns_the_answer_or_fails() -> None:
    answers = iter([0, None, 7])

    async def ask() -> int | None:
        return next(answers)

    assert await wait_until(ask) == 7
    with pytest.raises(AssertionError, match=r"not so within 0\.02 s: the moon"):
        await wait_until(lambda: False, timeout=0.02, what="the moon")


def test_p9_a_key_needs_a_ttl_or_an_owner(redis_url: str, redis_prefix: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        stray = [f"{redis_prefix}:{{b1}}:zz:session", f"{redis_prefix}:s:session", f"{redis_prefix}x"]
        for key in stray:
            client.set(key, "1")
        client.set(f"{redis_prefix}:{{b1}}:zz:brief", "1", ex=60)
        client.set(f"{redis_prefix}:{{b1}}:s:session", "1")
        assert unowned_keys(client, redis_prefix) == sorted(stray)
        client.delete(*stray)
