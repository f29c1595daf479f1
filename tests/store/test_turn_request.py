"""From the messages of a send to the request for its turn: what starts it, where it hangs, what a repeat is. No I/O."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.store.turn_request import (
    build_turn_request,
    continuation_for,
    fingerprint,
    traceparent_in,
    trigger_of,
    unpack_context,
    with_parent,
    with_trace,
)
from selfhost_transport.store.turn_store import CancelFilter, Policy, Scope, TurnRequest
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.inputs import InputIds, UserPart, user_message
from selfhost_transport.turns.ui import FilePart, TextPart
from selfhost_transport.wire.message import Message

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER_TRACE = "00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203332-01"


def said(text: str = "hello", *, parent: str | None = None) -> list[Message]:
    parts: list[UserPart] = [TextPart(text), FilePart("https://files.example/a.png", "image/png")]
    messages = user_message(parts, InputIds(), client_id="alice", parent=parent)
    return [replace(message, client_id="alice") for message in messages]


def built(messages: list[Message], policy: Policy = Policy.CONCURRENT) -> TurnRequest:
    return build_turn_request("chat:1", messages, agent="a", policy=policy)


def header(message: Message, name: str) -> str | None:
    headers = h.read_headers(message)
    return headers.get(name) if headers is not None else None


def test_the_last_message_that_can_starts_the_turn() -> None:
    first, last = said()
    assert trigger_of([Message(name="other"), first, last, Message(name=h.AI_INPUT)]) is last
    answer = h.with_transport_header(last, h.RUN_ID, "run")
    assert trigger_of([first, answer]) is first
    assert trigger_of([answer, Message(data="x")]) is None
    with pytest.raises(InvalidArgument, match="started by an ai-input"):
        build_turn_request("chat:1", [Message(data="x")], agent="a")


def test_all_messages_of_a_send_hang_below_the_parent() -> None:
    request = built(said())
    placed = with_parent(request, "answer-1")
    assert [header(one, h.PARENT) for one in placed.messages] == ["answer-1", "answer-1"]
    assert [header(one, h.PARENT) for one in request.messages] == [None, None]
    # A repeat of the send does not know where it hangs.
    assert (placed.fingerprint, placed.turn_id) == (request.fingerprint, request.turn_id)


def test_a_message_that_names_its_parent_keeps_it() -> None:
    placed = with_parent(built(said(parent="mine")), "answer-1")
    assert [header(one, h.PARENT) for one in placed.messages] == ["mine", "mine"]


def test_messages_beside_the_send_stay_as_they_are() -> None:
    note = Message(name="note", data="x")
    placed = with_parent(built([note, *said()]), "answer-1")
    assert placed.messages[0] is note


def test_a_repeat_differs_from_another_send_by_content_and_sender_not_by_its_trace() -> None:
    messages = said()
    again = [*messages[:-1], h.with_transport_header(messages[-1], h.TRACEPARENT, TRACE)]
    assert fingerprint(again) == fingerprint(messages)
    assert fingerprint([*messages[:-1], replace(messages[-1], data="other")]) != fingerprint(messages)
    assert fingerprint([replace(one, client_id="bob") for one in messages]) != fingerprint(messages)
    odd = [Message(extras={"ai": "x"}), Message(extras={"ai": {"transport": 1}}), Message()]
    assert len({fingerprint([one]) for one in odd}) == 3


def test_the_trace_goes_to_the_worker_and_into_the_message_that_starts_the_turn() -> None:
    traced = with_trace(built(said()), TRACE)
    assert unpack_context(traced.context).traceparent == TRACE
    assert [header(one, h.TRACEPARENT) for one in traced.messages] == [None, TRACE]
    assert traceparent_in(traced.messages) == TRACE
    assert traceparent_in(with_trace(traced, OTHER_TRACE).messages) == OTHER_TRACE
    assert traceparent_in(said()) is None
    assert traceparent_in([Message(data="x")]) is None


def test_only_a_send_that_interrupts_has_a_cancel_by_its_sender() -> None:
    assert built(said()).cancel_message is None
    found = built(said(), Policy.INTERRUPT).cancel_message
    assert found is not None and (found.name, found.client_id) == (h.AI_CANCEL, "alice")
    assert header(found, "cancel-all") == "true"
    mine = CancelFilter(Scope.OWNER, "alice")
    request = build_turn_request("chat:1", said(), agent="a", policy=Policy.INTERRUPT, interrupts=mine)
    assert request.cancel_message is not None
    assert header(request.cancel_message, "cancel-client-id") == "alice"


def test_an_answer_starts_the_next_invocation_of_its_turn() -> None:
    request = built(said())
    before = unpack_context(request.context)
    answer = h.with_transport_header(said("yes")[-1], h.RUN_ID, request.turn_id)
    after = unpack_context(continuation_for(replace(answer, client_id="bob"), before).context)
    assert (after.turn_id, after.invocation) == (before.turn_id, before.invocation + 1)
    # The one who answered is the invocation's input client; the owner stays.
    assert (after.owner_client_id, after.input_client_id) == ("alice", "bob")
    assert after.invocation_id != before.invocation_id
