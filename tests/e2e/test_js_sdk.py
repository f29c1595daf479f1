"""The unmodified npm SDKs (`ably`, `@ably/ai-transport`, `ai`) against two gateways and a worker (SDK-1)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.settings import ENV_PREFIX
from tests.e2e.node import run_suite
from tests.processes import Proc, Stack

KEY_NAME = "app.key"
KEY_SECRET = "a-secret-of-the-tests"

CONFIG = f"""
[[keys]]
name = "{KEY_NAME}"
secret = "{KEY_SECRET}"
capability = {{ "*" = ["*"] }}

[[keys]]
name = "app.restricted"
secret = "{KEY_SECRET}"
capability = {{ "*" = ["subscribe", "publish", "presence", "history"] }}

[[namespaces]]
id = "veiled"
agent = "assistant"
withhold = ["reasoning", "tools"]

[[namespaces]]
id = "*"
agent = "assistant"

[[namespaces]]
id = "queue"
agent = "assistant"
policy = "queue"

[[namespaces]]
id = "plain"

[[namespaces]]
id = "parts"
agent = "parts"

[[namespaces]]
id = "everything"
agent = "everything"

[[namespaces]]
id = "large"
agent = "librarian"

[[namespaces]]
id = "stateful"
agent = "stateful"
"""


class Site:
    """Two gateways and one worker on one Redis, for all suites of this module."""

    def __init__(self, stack: Stack, gateways: list[Proc]) -> None:
        self.stack = stack
        self.gateways = gateways

    def environment(self, wire_format: str) -> dict[str, str]:
        """What `tests/js/support.mjs` reads."""
        return {
            "KEY": f"{KEY_NAME}:{KEY_SECRET}",
            "RESTRICTED_KEY": f"app.restricted:{KEY_SECRET}",
            "PORTS": ",".join(str(gateway.port) for gateway in self.gateways),
            "FORMAT": wire_format,
        }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """The processes are started once: the suites use channels of their own and do not meet."""
    async with Stack.opened(redis_server.url, tmp_path_factory.mktemp("site")) as stack:
        gateways = [await stack.gateway(config=CONFIG) for _ in range(2)]
        await stack.worker("tests.e2e.participants:worker", config=CONFIG)
        yield Site(stack, gateways)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("wire_format", ["json", "msgpack"])
@pytest.mark.parametrize(
    "suite",
    [
        "ably",
        "presence",
        "errors",
        "turns",
        "agent",
        "usechat",
        "rollup",
        "openai",
        "hydration",
        "withheld",
        "deleted",
        "erased",
    ],
)
async def test_sdk_1_unmodified_npm_sdks(site: Site, suite: str, wire_format: str) -> None:
    await run_suite(site.stack, f"{suite}.test.mjs", site.environment(wire_format))


@pytest.mark.asyncio(loop_scope="module")
async def test_uim_plain_usechat(site: Site) -> None:
    """UIM-1 to UIM-38: four versions of `ai`, no SDK of a session in the page."""
    await run_suite(site.stack, "uimessage.test.mjs", site.environment("json"))


@pytest.mark.asyncio(loop_scope="module")
async def test_uim_pages_of_react_and_the_transport_of_workflows(site: Site) -> None:
    await run_suite(site.stack, "pages.test.mjs", site.environment("json"))


@pytest.mark.asyncio(loop_scope="module")
async def test_rsp_openai_client(site: Site) -> None:
    """RSP-1 to RSP-12 with the npm package `openai`."""
    long = {"SELFHOST_TRANSPORT_LONG": os.environ.get("SELFHOST_TRANSPORT_LONG", "")}
    await run_suite(site.stack, "responses.test.mjs", {**site.environment("json"), **long})


@pytest.mark.asyncio(loop_scope="module")
async def test_ag_ui_clients(site: Site) -> None:
    """AG-UI's own clients of two versions, CopilotKit's core and TanStack AI's client."""
    await run_suite(site.stack, "agui.test.mjs", site.environment("json"))


@pytest.mark.asyncio(loop_scope="module")
async def test_connections_of_front_ends_that_drop_at_random_points(site: Site) -> None:
    """As often as in `DROPS` for each front end: 200 in the long form."""
    drops = "200" if os.environ.get(f"{ENV_PREFIX}LONG") == "1" else "20"
    await run_suite(site.stack, "drops.test.mjs", {**site.environment("json"), "DROPS": drops})
