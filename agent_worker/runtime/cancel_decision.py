"""A cancel of a turn whose agent has a hook: the hook decides, the store carries it out."""

from __future__ import annotations

import logging

from agent_worker.agent.agent import Agent
from agent_worker.agent.cancel_hook import request_for
from agent_worker.agent.turn import Turn
from agent_worker.runtime.cancel_note import CLOSING_NOTE_MS
from agent_worker.runtime.turn_trace import CancelOrigin
from agent_worker.user_code.threads import Threads
from selfhost_transport.errors import TransportError
from selfhost_transport.logs import Fields
from selfhost_transport.store.entries import Ref
from selfhost_transport.store.history import HistoryReader
from selfhost_transport.store.turn_pauses import TurnPauses
from selfhost_transport.store.turn_store import Lease, TurnStore
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import lifecycle
from selfhost_transport.turns.context import TurnContext

logger = logging.getLogger(__name__)


async def decide_cancel(
    agent: Agent,
    turn: Turn,
    lease: Lease,
    context: TurnContext,
    pauses: TurnPauses,
    history: HistoryReader,
    threads: Threads,
) -> bool | None:
    """Whether the agent's hook allows the cancel that waits (CAN-7); None where there is nothing to decide any more.

    Allowed, the turn's content is refused from then on, and its terminal is still to be written. Raises LeaseLost.
    """
    hook = agent.on_cancel
    asked = await pauses.asked(lease) if hook is not None else None
    if hook is None or asked is None:
        return None
    entry = await history.state(lease.session, Ref(asked.position))
    decision = await hook.decision(request_for(turn, asked, entry.message), threads, agent.name)
    message = lifecycle.cancel_verdict(
        context, asked.requester, allowed=decision.allowed, error=decision.error
    )
    await pauses.decide(lease, allow=decision.allowed, message=message, grace_ms=CLOSING_NOTE_MS)
    return decision.allowed


async def cancel_origin(
    turns: TurnStore, history: HistoryReader, lease: Lease, names: Fields
) -> CancelOrigin | None:
    """Read the cancel that ended a turn; None where it cannot be had. `names`: the attempt's, for the log."""
    try:
        record = await turns.record(lease.session, lease.turn_id)
        if record is None or record.cancel_position is None:
            return None
        entry = await history.state(lease.session, Ref(record.cancel_position))
    except TransportError as error:
        logger.debug("turn.cancel_unread %s error=%s", names, error)
        return None
    headers = h.read_headers(entry.message)
    traceparent = headers.get(h.TRACEPARENT) if headers is not None else None
    return CancelOrigin(record.cancel_position.ms, entry.message.client_id, traceparent)
