"""The agents of README and guides, in real workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from selfhost_transport import ClientTransport, TurnStatus
from tests.adapters import frames as f
from tests.adapters.provider import Answer, Provider
from tests.documentation.blocks import block, blocks
from tests.documentation.conftest import KEY, Site, connect
from tests.documentation.running import run
from tests.processes import Proc, wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def answer_to(gateway: Proc, channel: str, text: str, key: str = KEY) -> str:
    transport = ClientTransport(gateway.url, key=key, client_id="user-1", channel=channel)
    async with transport, asyncio.timeout(30):
        turn = await transport.view.send(text)
        await turn.ended
        assert turn.status is TurnStatus.COMPLETED, turn.error
        return turn.text


async def stopped(worker: Proc) -> None:
    worker.terminate()
    assert await worker.wait() == 0, worker.log
    assert "Traceback" not in worker.log


@pytest_asyncio.fixture(loop_scope="module")
async def provider() -> AsyncIterator[Provider]:
    """A model provider on loopback."""
    running = Provider()
    await running.start()
    yield running
    await running.stop()


async def test_the_agent_of_the_readme_answers(site: Site) -> None:
    """Two files and two commands, as the page has them; only Redis' address and the port are others."""
    folder = site.folder / "readme"
    folder.mkdir()
    for example in (block("README.md", "# my_agents.py"), block("README.md", "# config.toml")):
        name = example.text.splitlines()[0].removeprefix("# ")
        (folder / name).write_text(example.text)
    worker, gateway = [
        await site.sh(
            f"cd {folder}\nexec {command}".replace("redis://127.0.0.1:6379", site.stack.redis_url).replace(
                "--port 8080", "--port 0"
            ),
            SELFHOST_TRANSPORT_REDIS_PREFIX=f"{site.stack.redis_prefix}r",
        )
        for command in block("README.md", "selfhost-transport worker").text.splitlines()
    ]
    await asyncio.gather(worker.ready, gateway.ready)
    assert (await answer_to(gateway, "chat-42", "Hello")).strip() == "An answer, word by word."
    await stopped(worker)
    await stopped(gateway)


async def test_the_agents_of_the_guide_answer(site: Site, gateway: Proc) -> None:
    worker = await site.module("guide", "\n".join(one.text for one in blocks("docs/agents.md", "python")))
    assert (await answer_to(gateway, "chat:1", "one two three")).strip() == "one two three"
    async with connect(gateway, "book:1") as transport, asyncio.timeout(30):
        turn = await transport.view.send("A room in Rome")
        await wait_until(lambda: turn.status is TurnStatus.SUSPENDED, 20)
        (call,) = turn.calls
        assert (call.tool_name, call.input, call.needs_approval) == ("book", {"sky": "clear"}, True)
        await call.approve()
        await turn.ended
        assert turn.text.strip().endswith("user-1 said yes.")
    await stopped(worker)


async def test_the_examples_of_the_adapters_talk_to_a_provider(
    site: Site, gateway: Proc, provider: Provider
) -> None:
    provider.answers = [Answer([f.chat(content="Good "), f.chat(content="morning"), f.chat("stop"), f.DONE])]
    text = "\n".join(one.text for one in blocks("docs/adapters.md", "python"))
    worker = await site.module(
        "adapters", text, OPENAI_BASE_URL=f"{provider.url}/v1", OPENAI_API_KEY="sk-test"
    )
    assert await answer_to(gateway, "chat:2", "Hello") == "Good morning"
    assert await answer_to(gateway, "read:2", "Hello") == "Good morning"
    assert provider.exchanges[0].body["messages"] == [{"role": "user", "content": "Hello"}]
    await stopped(worker)


async def test_the_agent_of_the_codecs_passes_on_the_models_events(
    site: Site, gateway: Proc, provider: Provider
) -> None:
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
    part = {"type": "output_text", "text": "", "annotations": []}
    whole = {**part, "text": "As it came"}
    events = [
        f.response_state("created", "in_progress"),
        f.response("output_item.added", output_index=1, item=message),
        f.response("content_part.added", item_id="msg_1", output_index=1, content_index=0, part=part),
        f.response_text("As it came"),
        f.response("content_part.done", item_id="msg_1", output_index=1, content_index=0, part=whole),
        f.response(
            "output_item.done", output_index=1, item={**message, "status": "completed", "content": [whole]}
        ),
        f.response_state("completed", "completed"),
    ]
    provider.answers = [Answer(events)]
    worker = await site.module(
        "codecs",
        block("docs/codecs.md", "@worker.agent").text,
        OPENAI_BASE_URL=f"{provider.url}/v1",
        OPENAI_API_KEY="sk-test",
    )
    assert await answer_to(gateway, "chat:3", "Hello") == "As it came"
    await stopped(worker)


DATABASE = '''
import json, pathlib


class Database:
    """A file for what the guide gives to a database."""

    async def upsert(self, session, turn_id, codec_message_id, message):
        self._append(["message", session, message])

    async def set_resume_point(self, session, resume_point):
        self._append(["resume_point", session, resume_point])

    def _append(self, row):
        with pathlib.Path(__file__).with_name("stored.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\\n")

    async def load(self, session):
        from types import SimpleNamespace

        text = pathlib.Path(__file__).with_name("stored.jsonl").read_text()
        rows = [json.loads(line) for line in text.splitlines()]
        return SimpleNamespace(
            messages=[row[2] for row in rows if row[:2] == ["message", session]],
            resume_point=next((row[2] for row in reversed(rows) if row[:2] == ["resume_point", session]), None),
        )


database = Database()
'''


async def test_turns_go_out_and_come_back_as_the_guide_says(site: Site, gateway: Proc) -> None:
    (site.folder / "database.py").write_text(DATABASE)
    out = block("docs/hydration.md", "TurnExporter").text.replace(
        "redis://127.0.0.1:6379/0", site.stack.redis_url
    )
    script = site.folder / "store.py"
    script.write_text(f"from database import database\n{out}")
    command = block("docs/hydration.md", "selfhost-transport export").text.removeprefix("$ ")
    command = command.replace("redis://127.0.0.1:6379/0", site.stack.redis_url)
    command = command.replace("turns.jsonl", str(lines := site.folder / "turns.jsonl"))
    exporter = await site.sh(f"exec python {script}")
    shell = await site.sh(f"exec {command.replace('--name database', '--name lines')}")
    agent = block("docs/hydration.md", "@worker.agent").text
    worker = await site.module("hydration", f"from database import database\n{agent}")
    stored = site.folder / "stored.jsonl"
    asked = 0

    async def is_exported() -> bool:
        # An exporter begins with the turns that end after its start.
        nonlocal asked
        asked += 1
        stored.touch()
        assert (await answer_to(gateway, "chat-42", "How many?")).endswith("messages")
        return has_line(stored, "resume_point") and has_line(lines, "turnId")

    await wait_until(is_exported, 30)
    exporter.terminate()
    shell.terminate()
    await asyncio.gather(exporter.wait(), shell.wait())
    code = block("docs/hydration.md", "ClientTransport.connect")
    names: dict[str, object] = {"database": _loaded(site.folder / "database.py")}
    example = replace(code, text=code.text.replace("dev.local:development-secret", KEY))
    printed = await run(example, names, gateway.url.removeprefix("http://"))
    assert printed.splitlines()[-2:] == ["user How many?", f"assistant {2 * asked - 1} messages"], printed
    assert len(printed.splitlines()) == 2 * asked
    await stopped(worker)


def has_line(file: Path, text: str) -> bool:
    return file.exists() and text in file.read_text()


def _loaded(file: Path) -> object:
    names: dict[str, object] = {"__file__": str(file)}
    exec(file.read_text(), names)
    return names["database"]
