"""What tests use of the machine that they run on: a free port, a browser."""

from __future__ import annotations

import shutil
import socket

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def free_port() -> int:
    """A port of 127.0.0.1 that no one listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_browser() -> str:
    """The path of a browser that runs without a screen; empty where there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), "")


def browser() -> str:
    """As `find_browser`. Raises AssertionError where there is none."""
    found = find_browser()
    assert found, f"no browser on the PATH: one of {', '.join(BROWSERS)} is needed"
    return found
