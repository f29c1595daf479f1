"""What each package offers: its names, its version, and texts that need no other page to be understood."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

import agent_worker
import gateway
import selfhost_transport
from agent_worker import Worker
from gateway import Gateway
from selfhost_transport import ClientTransport, Settings, SyncClientTransport, errors
from selfhost_transport.client.session.stream import TurnStream

PACKAGES = [selfhost_transport, gateway, agent_worker]
NAMES = {
    "selfhost_transport": """
        BranchSelection CancelResult ClientOptions ClientTransport ConnectionState ConversationMessage DataPart
        Discontinuity EndedTurn Entry FilePart HistoryPage NamespaceRule OpenCall ReasoningDelta RedisSettings RunInfo
        Seed SendPolicy Settings StateChange StreamPart StreamReset SyncClientTransport SyncTurn SyncTurnStream SyncView
        TextDelta TextPart ToolPart TransportError Turn TurnExporter TurnStatus TurnStream UIMessage View Waiting
        load_settings
    """,
    "gateway": "Gateway HostIdentity Identify RequestInfo create_app run_gateway",
    "agent_worker": """
        AbortCause AgentError AgentHost AgentSession Answer CancelRequest Default HeldTurn OnSteer OutputChunk PipeReason
        PipeResult Reasoning Seed ToolCall Turn Undecided Usage Worker WorkerStatistics working
    """,
}
# The number of a rule or of a section of the protocol's description, in brackets.
CITATION = re.compile(
    r"\((?:[^()]*\b(?:P\d{1,2}|[A-Z]{2,4}-\d+)\b[^()]*|(?:[\w-]+ )?sections? [\d.]+[^()]*)\)"
)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_a_package_exports_its_names(package: ModuleType) -> None:
    names = {*NAMES[package.__name__].split(), "__version__"}
    assert set(package.__all__) == names
    assert names <= set(dir(package))
    assert all(getattr(package, name) is not None for name in names)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", package.__version__)
    with pytest.raises(AttributeError, match="NoSuchName"):
        getattr(package, "NoSuchName")  # noqa: B009


def public_docstrings() -> Iterator[tuple[str, str | None]]:
    """Every exported thing and its public members, and all errors, with their docstrings."""
    things = {
        f"{package.__name__}.{name}": getattr(package, name)
        for package in PACKAGES
        for name in package.__all__
    }
    things |= {name: thing for name, thing in vars(errors).items() if inspect.isclass(thing)}
    for name, thing in things.items():
        if (
            not (inspect.isclass(thing) or inspect.isfunction(thing))
            or "selfhost" not in thing.__module__ + "selfhost"
        ):
            continue
        if thing.__module__.partition(".")[0] in ("selfhost_transport", "gateway", "agent_worker"):
            yield name, thing.__doc__
            for member, value in vars(thing).items() if inspect.isclass(thing) else ():
                value = getattr(value, "__func__", value)
                if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    yield f"{name}.{member}", value.__doc__


def test_public_things_are_described_without_the_numbers_of_rules() -> None:
    described = list(public_docstrings())
    assert len(described) > 250
    assert [name for name, text in described if not text] == []
    assert [f"{name}: {found[0]}" for name, text in described if (found := CITATION.search(text or ""))] == []


def test_things_say_what_they_are() -> None:
    worker = Worker(Settings(), worker_id="w1")
    worker.agent("assistant")(lambda turn: None)  # type: ignore[type-var]
    transport = ClientTransport("http://127.0.0.1:1", key="a.b:c", client_id="alice", channel="room")
    assert repr(worker) == "<Worker w1 of assistant: 0 turns>"
    assert repr(Gateway(Settings())) == "<Gateway 'sht' not running>"
    assert repr(transport).startswith("<ClientTransport 'room' as alice at 127.0.0.1:1:")
    assert repr(TurnStream()).startswith("<TurnStream open")
    for shown in (
        agent_worker.Turn,
        selfhost_transport.View,
        agent_worker.HeldTurn,
        selfhost_transport.Turn,
        SyncClientTransport,
    ):
        assert shown.__repr__ is not object.__repr__


def test_the_sdk_is_loaded_when_it_is_used() -> None:
    module = importlib.import_module("selfhost_transport")
    assert module.__getattr__("View") is selfhost_transport.View


def test_the_sdk_is_loaded_on_first_use_only() -> None:
    """Gateways and workers import the package for what is shared, and do not pay for an HTTP client."""
    code = "import sys, selfhost_transport.errors; print('httpx' in sys.modules, 'websockets' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]
