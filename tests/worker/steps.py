"""What steps write, and how they are read."""

from __future__ import annotations

from agent_worker import Turn
from selfhost_transport.turns import ui
from tests.worker.people import People
from tests.worker.session import Room


async def say(turn: Turn, text: str) -> None:
    (await turn.pipe([text])).raise_for_error()


async def visible(room: Room, turn: str) -> str:
    """The text of a turn as a late joiner sees it."""
    return "".join(part.text for part in await People(room).parts(turn) if isinstance(part, ui.TextPart))


async def steps_of(room: Room, turn: str) -> list[tuple[str, str, int]]:
    """Id, status and number of attempts of a turn's steps."""
    node = (await People(room).tree()).run_node(turn)
    assert node is not None and node.run is not None
    return [(step.step_id, step.status, step.attempt_count) for step in node.run.info().steps]
