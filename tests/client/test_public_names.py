"""The public surface: what the package promises to export."""

from __future__ import annotations

import subprocess
import sys

import selfhost_transport
from selfhost_transport import client


def test_what_the_package_exports() -> None:
    assert sorted(selfhost_transport.__all__) == [
        "CancelResult",
        "ClientOptions",
        "ClientTransport",
        "ConversationMessage",
        "DataPart",
        "FilePart",
        "OpenCall",
        "ReasoningDelta",
        "Seed",
        "SendPolicy",
        "StreamReset",
        "SyncClientTransport",
        "SyncTurn",
        "TextDelta",
        "TextPart",
        "ToolPart",
        "Turn",
        "TurnStatus",
        "UIMessage",
        "View",
        "Waiting",
    ]
    for name in selfhost_transport.__all__:
        assert getattr(selfhost_transport, name) is getattr(client, name)
    for name in client.__all__:
        assert hasattr(client, name), name


def test_the_sdk_is_loaded_on_first_use_only() -> None:
    """Gateways and workers import the package for what is shared, and do not pay for an HTTP client."""
    code = "import sys, selfhost_transport.errors; print('httpx' in sys.modules, 'websockets' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]
