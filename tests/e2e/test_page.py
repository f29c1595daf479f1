"""The chat page in a real browser, served by `selfhost-transport dev`; and that its built files are current."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from functools import partial
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

import gateway
from gateway.server import Gateway
from selfhost_transport.settings import DEV_KEY_NAME, DEV_KEY_SECRET, load_settings
from tests.e2e.node import run_suite
from tests.machine import browser
from tests.processes import Stack, wait_until

GATEWAY = Path(gateway.__file__).parent
COMMAND = Path(sys.executable).with_name("selfhost-transport")


def source_hash(web: Path) -> str:
    """The hash that `gateway/web/build.mjs` writes into the bundle."""
    files = [web / name for name in ("build.mjs", "index.html", "package-lock.json")]
    for folder in (web / "public", web / "src", web / "../../clients/javascript/src"):
        files += [path for path in folder.rglob("*") if path.is_file()]
    digest = hashlib.sha256()
    for name, path in sorted((Path(os.path.relpath(path, web)).as_posix(), path) for path in files):
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def test_the_bundle_is_built_from_the_sources_beside_it() -> None:
    bundle = (GATEWAY / "static" / "app.js").read_text()
    stamp = re.match(r"/\* sources ([0-9a-f]{64});", bundle)
    assert stamp, "app.js does not begin with the hash of its sources"
    assert stamp[1] == source_hash(GATEWAY / "web"), "run `npm run build` in gateway/web"


def test_the_bundle_carries_the_licences_of_its_parts() -> None:
    text = (GATEWAY / "static" / "THIRD_PARTY_LICENSES.txt").read_text()
    for package in ("ably ", "@ably/ai-transport ", "react ", "react-dom ", "marked ", "highlight.js "):
        assert re.search(rf"^{re.escape(package)}\d", text, re.MULTILINE), package


SUITES = ("page", "page-reading", "page-network", "page-states", "page-speed")
LONG = os.environ.get("SELFHOST_TRANSPORT_LONG") == "1"
PICTURES = os.environ.get("SELFHOST_TRANSPORT_PICTURES")
"""A folder for pictures of the page's states: with docs/images, those of the documentation are made anew."""


@pytest.mark.timeout(900 if LONG else 400)
async def test_chat_page_in_a_browser(stack: Stack) -> None:
    # One for all suites: each test has sessions of its own.
    dev = await stack.dev("tests.e2e.page_agent:worker")
    env = {
        "URL": dev.url,
        "PORTS": str(dev.port),
        "KEY": f"{DEV_KEY_NAME}:{DEV_KEY_SECRET}",
        "CHROMIUM": browser(),
        "LONG": "1" if LONG else "",
        "SHOTS": str(Path(PICTURES).resolve()) if PICTURES else "",
    }
    for suite in SUITES:
        await run_suite(stack, f"{suite}.test.mjs", env)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (None, "No module named 'my_agents'"),
        ("agent = 1", "is not a Worker, nor a function that returns one"),
        (
            "from agent_worker import Worker\nworker = Worker()\n"
            "@worker.agent('a')\nasync def a(turn): ...\n@worker.agent('b')\nasync def b(turn): ...",
            "has the agents a, b: name the one to talk to",
        ),
    ],
)
async def test_dev_says_in_one_line_what_is_wrong_with_an_agent(
    stack: Stack, tmp_path: Path, module: str | None, reason: str
) -> None:
    if module is not None:
        (tmp_path / "my_agents.py").write_text(module)
    proc = await stack.run(
        "sh", "-c", f'cd "{tmp_path}" && exec "{COMMAND}" dev my_agents:worker --data-dir data --port 0'
    )
    assert await proc.wait() == 1
    assert len(proc.lines) == 1, proc.log
    assert reason in proc.lines[0]


async def test_dev_serves_an_agent_of_the_current_folder(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "my_agents.py").write_text(
        "from agent_worker import Worker\nworker = Worker()\n"
        "@worker.agent('mine')\nasync def mine(turn):\n    yield 'From my own agent.'\n"
    )
    proc = await stack.run(
        "sh", "-c", f'cd "{tmp_path}" && exec "{COMMAND}" dev my_agents:worker --data-dir data --port 0'
    )
    await proc.ready
    async with httpx.AsyncClient(base_url=proc.url, auth=(DEV_KEY_NAME, DEV_KEY_SECRET)) as client:
        sent = await client.post("/v1/sessions/s/turns", json={"text": "Who are you?"})
        assert sent.status_code == 202, sent.text
        await wait_until(partial(_says, client, "From my own agent."), timeout=10)


async def _says(client: httpx.AsyncClient, text: str) -> bool:
    return text in (await client.get("/v1/sessions/s/messages")).text


async def test_the_pages_files_are_compressed_and_kept_while_they_are_the_same(stack: Stack) -> None:
    gateway_ = await stack.gateway(config='[gateway]\nallowed_origins = ["https://login.example"]\n')
    async with httpx.AsyncClient(base_url=gateway_.url) as client:
        page = await client.get("/")
        assert "connect-src 'self' https://login.example;" in page.headers["content-security-policy"]
        script = await client.get("/static/app.js", headers={"accept-encoding": "gzip"})
        assert script.headers["content-encoding"] == "gzip"
        assert script.headers["content-type"].startswith("text/javascript")
        plain = await client.get("/static/app.js", headers={"accept-encoding": "gzip;q=0, identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == script.content == (GATEWAY / "static" / "app.js").read_bytes()
        again = await client.get("/static/app.js", headers={"if-none-match": script.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert (await client.head("/static/app.js")).status_code == 200
        manifest = await client.get("/static/manifest.webmanifest")
        assert manifest.headers["content-type"].startswith("application/manifest+json")
        assert "manifest-src 'self'" in page.headers["content-security-policy"]
        for name in ("nothing.js", "..%2fserver.py", "%2e%2e%2fserver.py"):
            assert (await client.get(f"/static/{name}")).status_code == 404


async def test_the_page_is_served_where_the_gateway_is_mounted() -> None:
    app = FastAPI()
    app.mount("/deep/chat", Gateway(load_settings(None).for_dev()).app())
    own_machine = httpx.ASGITransport(app, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(
        transport=own_machine, base_url="http://127.0.0.1:8080", follow_redirects=True
    ) as client:
        page = await client.get("/deep/chat")
        assert page.url.path == "/deep/chat/"
        for address in re.findall(r'(?:href|src)="(static/[^"]+)"', page.text):
            assert (await client.get(f"/deep/chat/{address}")).status_code == 200, address
        config = (await client.get("/deep/chat/config.json")).json()
        assert config["key"] == f"{DEV_KEY_NAME}:{DEV_KEY_SECRET}"
