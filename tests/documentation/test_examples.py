"""Examples of clients and commands, against one running `scripts/dev`."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from selfhost_transport.settings import load_settings
from tests.documentation.blocks import Block, all_blocks, block, blocks
from tests.documentation.conftest import Site
from tests.documentation.running import run_in_order
from tests.processes import Proc

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("in_root")]


async def test_scripts_dev_is_ready_and_the_readme_in_python_runs(dev_address: str) -> None:
    example = block("README.md", "ClientTransport.connect")
    assert "\n\n    " not in example.text, "the interactive console ends a block at an empty line"
    async with asyncio.timeout(60):
        await run_in_order([example], {}, dev_address)


async def test_the_guide_of_the_sdk_runs_and_prints_what_it_shows(dev_address: str) -> None:
    async with asyncio.timeout(60):
        await run_in_order(blocks("docs/python-sdk.md", "python"), {}, dev_address)


async def test_the_client_of_the_codecs_reads_items(dev_address: str) -> None:
    async with asyncio.timeout(60):
        await run_in_order([block("docs/codecs.md", "ClientTransport.connect")], {}, dev_address)


async def test_the_examples_with_curl_run(site: Site, dev_address: str) -> None:
    example = block("README.md", "curl").text.replace("127.0.0.1:8080", dev_address)
    # What the stream of events sends has no end; a second of it is enough.
    example = example.replace("-N $S/events", "-N -m 1 $S/events || test $? = 28")
    shell = await site.sh(example.replace("curl ", "curl --fail-with-body -sS -w '\\n' "))
    assert await shell.wait(30) == 0, shell.log
    answers = [json.loads(line) for line in shell.lines if line.startswith("{")]
    assert answers[0]["turnId"] and answers[2]["matched"] == [answers[0]["turnId"]] and answers[3]["messages"]
    assert [turn["turnId"] for turn in answers[1]["turns"]] == [answers[0]["turnId"]]
    assert any(line.startswith("id: ") for line in shell.lines), shell.log


async def test_the_commands_that_look_into_a_dev_run(site: Site, dev: Proc) -> None:
    example = block("docs/getting-started.md", "inspect").text
    shell = await site.sh(
        f"curl -sS -u dev.local:development-secret {dev.url}/v1/sessions/chat-42/turns "
        "-H 'content-type: application/json' -d '{\"text\": \"script: hang_at=0 tokens=9\"}'\n"
        + example.replace(".venv/bin/", ""),
        SELFHOST_TRANSPORT_DATA_DIR=str(site.folder / "data"),
    )
    assert await shell.wait(60) == 0, shell.log
    assert "session chat-42" in shell.log and re.search(r"^cancelled 1 turn", shell.log, re.MULTILINE), (
        shell.log
    )


async def test_the_examples_in_javascript_connect(site: Site, dev_address: str) -> None:
    port = dev_address.partition(":")[2]
    for page in ("README.md", "docs/getting-started.md"):
        (example,) = blocks(page, "js")
        text = example.text.replace("port: 8080", f"port: {port}") + (
            "await client.connection.once('connected');\nconsole.log(client.auth.clientId);\nclient.close();\n"
        )
        # Where the npm packages are.
        shell = await site.sh(f"cd tests/js\nexec node --input-type=module -e {shlex.quote(text)}")
        assert await shell.wait(30) == 0, shell.log
        assert shell.lines == ["user-1"]


async def test_the_load_test_of_the_readme_runs(site: Site) -> None:
    example = block("README.md", "loadtest").text
    report = site.folder / "report.html"
    # Small: the load tests have tests of their own.
    example = example.replace("--turns 500", "--turns 3 --tokens 20 --duration 1 --warmup 0")
    shell = await site.sh(example.replace("report.html", str(report)))
    assert await shell.wait(60) == 0, shell.log
    assert report.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    "example", [one for one in all_blocks() if one.language == "toml"], ids=lambda one: one.name
)
async def test_the_configurations_load(example: Block, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(example.text)
    load_settings(tmp_path / "config.toml")


async def test_the_environment_of_the_guide_loads(site: Site) -> None:
    variables = block("docs/deployment.md", "SELFHOST_TRANSPORT_REDIS=").text
    code = "from selfhost_transport.settings import load_settings as l; s = l(); print(s.redis.prefix, s.keys[0].name)"
    shell = await site.sh(f"set -a\n{variables}\n{sys.executable} -c '{code}'")
    assert await shell.wait() == 0, shell.log
    assert shell.lines == [f"{site.stack.redis_prefix} app.web"]


async def test_the_user_of_the_guide_can_be_loaded(site: Site, dev_redis: str) -> None:
    port = re.search(r":(\d+)/", dev_redis)
    assert port is not None
    example = block("docs/deployment.md", "deploy/redis/users.acl |").text
    shell = await site.sh(
        f'redis-cli() {{ command redis-cli -p {port[1]} "$@"; }}\n{example}redis-cli ACL DELUSER transport operator',
        PASSWORD="a-password",
        OPERATOR_PASSWORD="another-password",
    )
    assert await shell.wait() == 0, shell.log
    assert shell.lines == ["OK", "OK", "2"]


async def test_a_token_made_as_the_guide_says_is_accepted_and_can_be_revoked(
    site: Site, gateway: Proc
) -> None:
    names: dict[str, object] = {}
    await run_in_order(blocks("docs/authentication.md", "python"), names, "")
    token = str(names["token"])
    address = gateway.url.removeprefix("http://")
    command = block("docs/authentication.md", "revokeTokens").text.replace(
        "$ curl", "curl -sS --fail-with-body"
    )
    command = command.replace("localhost:8080", address).replace(
        "SECRET", "choose-a-secret-of-at-least-32-characters"
    )
    me = f"curl -sS -H 'authorization: Bearer {token}' {gateway.url}/v1/me"
    shell = await site.sh(f"{me}\necho\n{command.replace('eve', 'ann')}\necho\nsleep 0.1; {me}")
    assert await shell.wait() == 0, shell.log
    first, revoked, last = map(json.loads, shell.lines)
    assert first["clientId"] == "ann" and revoked["successCount"] == 1
    assert last["error"]["code"] == 40141
