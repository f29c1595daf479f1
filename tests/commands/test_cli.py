"""The command line as a newcomer meets it: help, version, and one line for whatever is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import redis

from selfhost_transport.commands.dev_folder import DevFolder, redis_of_dev
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.settings import ENV_PREFIX
from tests.commands.conftest import Call
from tests.processes import Stack
from tests.promptness import Stopwatch, prompt

PROGRAM = str(Path(sys.executable).with_name("selfhost-transport"))


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    return subprocess.run(
        [PROGRAM, *arguments],
        cwd=cwd,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "command", ["", "dev", "gateway", "worker", "inspect", "cancel", "loadtest", "token", "dead"]
)
def test_help_has_a_short_form(call: Call, command: str) -> None:
    result = call(*([command] if command else []), "-h")
    assert result.exit_code == 0 and "Usage:" in result.output


def test_help_shows_what_counts_where_nothing_is_given(call: Call) -> None:
    text = call("gateway", "-h").output
    for default in ("redis://127.0.0.1:6379/0", "127.0.0.1", "8080", "sht"):
        assert f"({default})" in text
    assert "(an embedded one)" in re.sub(r"[\s│]+", " ", call("dev", "-h").output)


def test_the_version_is_printed(call: Call) -> None:
    assert re.fullmatch(r"selfhost-transport \d+\.\d+\S*\n", call("--version").output)


def test_local_and_url_are_refused_together(call: Call) -> None:
    result = call("loadtest", "--local", "--url", "ws://127.0.0.1:1")
    assert isinstance(result.exception, InvalidArgument) and "give one of them" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gateway", "--config", "missing.toml"], "error 40003: .*missing.toml"),
        (["gateway", "--config", "config.toml"], r"error 40003: config.toml, line 2: prot in \[gateway\]: unknown key"),
        (["worker", "broken:worker"], r"error 40003: 'broken:worker' cannot be loaded: ZeroDivisionError: .*broken.py, line 2"),
        (["worker", "unparsable:worker"], "error 40003: 'unparsable:worker' cannot be loaded: SyntaxError: "),
        (["worker", "nowhere:worker"], "error 40003: 'nowhere:worker': No module named"),
        (["loadtest", "--compare", "a.json", "b.json"], "error .*a.json"),
        (["token", "--capability", '{"*": ["pubish"]}', "--dev"], "error 40000: .*pubish"),
        (["inspect", "--dev"], "error 40003: no `dev` is running with the data folder .selfhost-transport"),
    ],
)  # fmt: skip
def test_whatever_is_wrong_is_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "config.toml").write_text("[gateway]\nprot = 1\n")
    (tmp_path / "broken.py").write_text("# An application's module.\n1 / 0\n")
    (tmp_path / "unparsable.py").write_text("def :\n")
    ran = run(*arguments, cwd=tmp_path)
    assert ran.returncode == 1 and ran.stdout == ""
    assert re.match(message, ran.stderr), ran.stderr
    assert len(ran.stderr.splitlines()) == 1


async def test_a_second_dev_in_the_same_folder_says_so_at_once(stack: Stack) -> None:
    first = await stack.dev()
    data = stack.folder / "data"

    @prompt
    async def refused() -> None:
        watch = Stopwatch()
        second = await asyncio.to_thread(run, "dev", "--port", "0", "--data-dir", str(data), cwd=stack.folder)
        assert second.returncode == 1 and len(second.stderr.splitlines()) == 1
        assert f"another `dev` is running in this folder ({first.url}, process {first.pid})" in second.stderr
        watch.assert_below(5)

    await refused()
    listed = await asyncio.to_thread(
        run, "inspect", "--dev", "--json", cwd=stack.folder, SELFHOST_TRANSPORT_DATA_DIR=str(data)
    )
    assert (listed.returncode, json.loads(listed.stdout)) == (0, []), listed.stderr
    first.terminate()
    assert await first.wait() == 0
    with pytest.raises(InvalidArgument, match="no `dev` is running"):
        redis_of_dev(data)


def test_the_folder_of_a_dev_that_was_killed_is_free(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from selfhost_transport.commands.dev_folder import DevFolder;"
        "DevFolder(pathlib.Path(sys.argv[1])).__enter__().describe(url='http://x', redis='redis://x'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 9
    with pytest.raises(InvalidArgument, match="no `dev` is running"):
        redis_of_dev(tmp_path)
    with (
        DevFolder(tmp_path),
        pytest.raises(InvalidArgument, match=f"process {os.getpid()}"),
        DevFolder(tmp_path),
    ):
        pass


async def test_a_password_of_redis_stands_in_no_list_of_processes(stack: Stack) -> None:
    with EmbeddedRedis() as server, redis.Redis.from_url(server.url) as control:
        control.config_set("requirepass", "hush-hush")
        address = server.url.replace("redis://", "redis://:hush-hush@")
        dev = await stack.dev(env={f"{ENV_PREFIX}REDIS": address})
        leader = psutil.Process(dev.pid)
        processes = [leader, *leader.children(recursive=True)]
        lines = [" ".join(process.cmdline()) for process in processes]
        assert len(lines) >= 3
        assert not [line for line in lines if "hush-hush" in line]
        assert "hush-hush" not in dev.log
