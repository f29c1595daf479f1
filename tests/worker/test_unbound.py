"""A worker whose agent no namespace names would wait for turns that never come: it says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent_worker import working
from selfhost_transport.settings import NamespaceRule, Settings
from tests.worker.echo import echo

MakeSettings = Callable[..., Settings]


@pytest.mark.parametrize(
    ("bound", "warned"),
    [((), False), (("assistant",), False), (("other", "assistant"), False), (("assistent",), True)],
)
async def test_an_agent_that_no_namespace_names_is_reported_at_start(
    settings: MakeSettings, caplog: pytest.LogCaptureFixture, bound: tuple[str, ...], warned: bool
) -> None:
    rules = tuple(NamespaceRule(id=f"n{number}", agent=agent) for number, agent in enumerate(bound))
    async with working(echo(settings().model_copy(update={"namespaces": rules}))):
        reported = [
            record.getMessage() for record in caplog.records if "worker.agent_not_bound" in record.message
        ]
    assert bool(reported) is warned
    assert all("agents=assistant bound=assistent" in line for line in reported)
