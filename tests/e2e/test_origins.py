"""Pages of other origins in a real browser: what they cannot do with what the browser adds by itself."""

from __future__ import annotations

from tests.e2e.cookie_host import hosted
from tests.e2e.node import run_suite
from tests.machine import browser, free_port
from tests.processes import Stack

CONFIG = """
[gateway]
allowed_origins = ["http://friend.example:{port}"]

[[keys]]
name = "app.key"
secret = "secret"

[[trusted_proxies]]
addresses = ["127.0.0.1"]
header = "X-User"
capability = {{ "*" = ["*"] }}

[[namespaces]]
id = "bound"
agent = "assistant"
"""


async def test_pages_of_other_origins_in_a_browser(stack: Stack) -> None:
    port = free_port()
    dev = await stack.dev()
    gateway = await stack.gateway(config=CONFIG.format(port=port))
    await stack.worker(config=CONFIG.format(port=port))
    allowed = f"http://friend.example:{port}"
    env = {
        "HOSTED": await hosted(stack, allowed),
        "DEV": dev.url,
        "GATEWAY": gateway.url,
        "ALLOWED": allowed,
        "KEY": "app.key:secret",
        "CHROMIUM": browser(),
    }
    await run_suite(stack, "origins.test.mjs", env)
