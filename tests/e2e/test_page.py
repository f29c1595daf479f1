"""The chat page in a real browser, served by `selfhost-transport dev`; and that its built files are current."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

import pytest

import gateway
from selfhost_transport.settings import DEV_KEY_NAME, DEV_KEY_SECRET
from tests.e2e.node import run_suite
from tests.processes import Stack

GATEWAY = Path(gateway.__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def source_hash(web: Path) -> str:
    """The hash that `gateway/web/build.mjs` writes into the bundle."""
    files = [web / name for name in ("build.mjs", "index.html", "package-lock.json")]
    for folder in (web / "src", web / "../../clients/javascript/src"):
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


@pytest.mark.parametrize("suite", ["page.test.mjs"])
async def test_chat_page_in_a_browser(stack: Stack, tmp_path: Path, suite: str) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert browser, f"no browser on the PATH: one of {', '.join(BROWSERS)} is needed"
    dev = await stack.dev("tests.e2e.page_agent:worker")
    shots = tmp_path / "shots"
    shots.mkdir()
    env = {
        "URL": dev.url,
        "PORTS": str(dev.port),
        "KEY": f"{DEV_KEY_NAME}:{DEV_KEY_SECRET}",
        "CHROMIUM": browser,
    }
    await run_suite(stack, suite, {**env, "SHOTS": str(shots)})
