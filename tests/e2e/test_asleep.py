"""Clients of the npm SDK that were away for a while with a turn in progress: as long as the window, and longer."""

from __future__ import annotations

from selfhost_transport.settings import DEV_KEY_NAME, DEV_KEY_SECRET, GatewaySettings
from tests.e2e.node import run_suite
from tests.processes import Stack

WINDOW_S = 3
CONFIG = f"""
[gateway]
resume_window_s = {WINDOW_S}
connection_state_ttl_ms = {WINDOW_S * 1000}
"""
LID_S = 15 * 60


def test_by_default_a_client_may_be_away_for_as_long_as_a_lid_is_shut() -> None:
    gateway = GatewaySettings()
    assert gateway.resume_window_s > LID_S
    assert gateway.connection_state_ttl_ms > LID_S * 1000


async def test_within_the_window_a_turn_goes_on_and_beyond_it_the_client_is_notified(stack: Stack) -> None:
    dev = await stack.dev(config=CONFIG)
    env = {
        "PORTS": str(dev.port),
        "KEY": f"{DEV_KEY_NAME}:{DEV_KEY_SECRET}",
        "RESUME_WINDOW_MS": str(WINDOW_S * 1000),
    }
    await run_suite(stack, "asleep.test.mjs", env)
