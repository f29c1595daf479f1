"""A client that has asked, and the turn that answers."""

from __future__ import annotations

from selfhost_transport import ClientTransport, Turn
from selfhost_transport.wire.actions import Action
from tests.client.agent import ScriptedAgent, echo
from tests.client.scripted import ScriptedService, ScriptedSocket


async def asked(
    service: ScriptedService, text: str = "hello", *, agent: str | None = "assistant"
) -> tuple[ClientTransport, ScriptedSocket, Turn, ScriptedAgent]:
    """A send that was accepted, and the agent to answer it."""
    transport, socket = await service.open(agent=agent)
    turn = transport.view.start(text)
    frame = await socket.next(Action.MESSAGE)
    messages = echo(frame.messages or [], 105)
    socket.messages(105, *messages)
    socket.ack(frame)
    await turn.accepted
    return transport, socket, turn, ScriptedAgent(socket, messages[0])
