"""Turn signals: what a publish in a bound namespace commands."""

from __future__ import annotations

import pytest

from gateway.commands.commands import CancelTurns, Continue, Publish, Submit
from selfhost_transport.store.turn_request import trigger_of, unpack_context
from selfhost_transport.store.turn_store import CancelFilter, Policy, Scope
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.context import turn_id_for
from selfhost_transport.turns.inputs import InputIds, cancel, regenerate, tool_result, user_message
from selfhost_transport.turns.ui import TextPart
from selfhost_transport.wire.actions import Flag
from selfhost_transport.wire.codes import Code
from selfhost_transport.wire.message import Message
from tests.gateway.cores import attached, commit, credential, opened, publish, sent

CHANNEL = "bound:1"
IDS = InputIds("m1", "e1")


def ask(**headers: str) -> list[Message]:
    messages = user_message([TextPart("hi"), TextPart("there")], IDS, client_id="alice")
    for message in messages:
        assert message.extras is not None
        message.extras["ai"]["transport"] |= headers
    return messages


def own_cancel(**headers: str) -> Message:
    return Message(name=h.AI_CANCEL, extras=h.make_extras(headers))


def refused(message: Message, rights: str = '{"*":["*"]}', client_id: str | None = "alice") -> int:
    error = sent(publish(opened(credential(client_id, rights)), 0, message, channel=CHANNEL))[0].error
    assert error is not None
    return error.code


def test_an_input_becomes_a_turn_with_all_its_parts() -> None:
    operation = commit(publish(opened(), 0, *ask(), channel=CHANNEL)).operation
    assert isinstance(operation, Submit)
    request = operation.request
    assert request.turn_id == turn_id_for(CHANNEL, "m1")
    assert (request.owner, request.input_id, request.event_id) == ("alice", "m1", "e1")
    assert len(request.messages) == 2
    context = unpack_context(request.context)
    assert (context.parent, context.owner_client_id, context.agent_client_id) == ("m1", "alice", "assistant")


def test_the_owner_is_who_sent_it_not_who_it_claims_to_be() -> None:
    messages = user_message([TextPart("hi")], IDS, client_id="mallory")
    operation = commit(publish(opened(), 0, *messages, channel=CHANNEL)).operation
    assert isinstance(operation, Submit)
    assert operation.request.owner == "alice"
    # What readers see is the same; nothing else of the input is touched.
    headers = h.read_headers(operation.request.messages[0])
    assert headers is not None
    assert headers.get(h.RUN_CLIENT_ID) == "alice"
    assert headers.codec_message_id == "m1"


@pytest.mark.parametrize("run_id", [None, "some-turn"])
def test_an_input_without_an_identity_names_no_owner(run_id: str | None) -> None:
    messages = user_message([TextPart("hi")], IDS, client_id="mallory", run_id=run_id)
    operation = commit(publish(opened(credential(None)), 0, *messages, channel=CHANNEL)).operation
    assert isinstance(operation, Submit | Continue)
    stored = operation.request.messages if isinstance(operation, Submit) else operation.inputs[0].messages
    headers = h.read_headers(stored[0])
    assert headers is not None
    assert headers.get(h.RUN_CLIENT_ID) is None


def test_a_repeat_has_the_same_fingerprint_and_another_text_has_not() -> None:
    prints = []
    for text in ("a", "a", "b"):
        messages = user_message([TextPart(text)], IDS, client_id="alice")
        operation = commit(publish(opened(), 0, *messages, channel=CHANNEL)).operation
        assert isinstance(operation, Submit)
        prints.append(operation.request.fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_a_regenerate_is_a_turn_of_its_own() -> None:
    message = regenerate(IDS, "answer", parent="question", client_id="alice")
    operation = commit(publish(opened(), 0, message, channel=CHANNEL)).operation
    assert isinstance(operation, Submit)
    context = unpack_context(operation.request.context)
    assert (context.parent, context.msg_regenerate) == ("question", "answer")


def test_elsewhere_it_is_plain_publishing() -> None:
    operation = commit(publish(opened(), 0, *ask(), channel="free:1")).operation
    assert isinstance(operation, Publish)


@pytest.mark.parametrize(
    ("headers", "policy", "interrupts"),
    [
        ({"turn-policy": "queue"}, Policy.QUEUE, CancelFilter(Scope.ALL)),
        ({"turn-policy": "interrupt"}, Policy.INTERRUPT, CancelFilter(Scope.OWNER, "alice")),
        ({"turn-policy": "interrupt", "cancel-all": "true"}, Policy.INTERRUPT, CancelFilter(Scope.ALL)),
        (
            {"turn-policy": "interrupt", "cancel-client-id": "bob"},
            Policy.INTERRUPT,
            CancelFilter(Scope.OWNER, "bob"),
        ),
        (
            {"turn-policy": "interrupt", "cancel-run-id": "t9"},
            Policy.INTERRUPT,
            CancelFilter(Scope.TURN, "t9"),
        ),
    ],
)
def test_a_send_may_choose_its_policy(
    headers: dict[str, str], policy: Policy, interrupts: CancelFilter
) -> None:
    operation = commit(publish(opened(), 0, *ask(**headers), channel=CHANNEL)).operation
    assert isinstance(operation, Submit)
    assert (operation.request.policy, operation.request.interrupts) == (policy, interrupts)
    assert (operation.request.cancel_message is not None) is (policy is Policy.INTERRUPT)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (cancel(event_id="e", run_id="t1"), CancelFilter(Scope.TURN, "t1")),
        (cancel(event_id="e", run_id="t1", input_codec_message_id="m1"), CancelFilter(Scope.TURN, "t1")),
        (cancel(event_id="e", input_codec_message_id="m1"), CancelFilter(Scope.INPUT, "m1")),
        (own_cancel(**{"cancel-own": "true"}), CancelFilter(Scope.OWNER, "alice")),
        (own_cancel(**{"cancel-client-id": "bob"}), CancelFilter(Scope.OWNER, "bob")),
        (own_cancel(**{"cancel-all": "true"}), CancelFilter(Scope.ALL)),
    ],
)
def test_what_a_cancel_names(message: Message, expected: CancelFilter) -> None:
    operation = commit(publish(opened(), 0, message, channel=CHANNEL)).operation
    assert isinstance(operation, CancelTurns)
    assert operation.filter == expected
    assert operation.message.client_id == "alice"


def test_an_early_cancel_knows_its_turn() -> None:
    message = cancel(event_id="e", input_codec_message_id="m1")
    operation = commit(publish(opened(), 0, message, channel=CHANNEL)).operation
    assert isinstance(operation, CancelTurns)
    assert operation.input_turn == turn_id_for(CHANNEL, "m1")


@pytest.mark.parametrize("name", sorted(h.AGENT_MESSAGES))
def test_only_workers_publish_what_agents_say(name: str) -> None:
    assert refused(Message(name=name)) == 40160


def test_starting_and_cancelling_are_separate_rights() -> None:
    start, stop = ask()[0], cancel(event_id="e", run_id="t1")
    assert refused(start, '{"*":["publish","turn-cancel"]}') == 40160
    assert refused(stop, '{"*":["publish","turn-start"]}') == 40160
    assert refused(stop, '{"*":["subscribe"]}') == 40160
    # A send is a publish too, with whatever else it carries; so are steers and answers.
    assert refused(start, '{"*":["subscribe","turn-start"]}') == 40160
    steer = user_message([TextPart("hi")], IDS, client_id="alice", run_id="some-turn")[0]
    assert refused(steer, '{"*":["subscribe","turn-start"]}') == 40160
    cancelling = opened(credential(rights='{"*":["subscribe","turn-cancel"]}'))
    assert isinstance(commit(publish(cancelling, 0, stop, channel=CHANNEL)).operation, CancelTurns)


def test_a_send_needs_the_publish_mode_of_its_attachment_and_a_cancel_does_not() -> None:
    core = attached(opened(), CHANNEL, Flag.SUBSCRIBE)
    steer = user_message([TextPart("hi")], IDS, client_id="alice", run_id="some-turn")
    for serial, messages in enumerate((ask(), [*ask(), Message(name="note", data="x")], steer)):
        error = sent(publish(core, serial, *messages, channel=CHANNEL))[0].error
        assert error is not None and error.code == Code.PUBLISH_MODE_MISSING
    stop = cancel(event_id="e", run_id="t1")
    assert isinstance(commit(publish(core, 3, stop, channel=CHANNEL)).operation, CancelTurns)


def test_an_anonymous_client_has_no_turns_of_its_own() -> None:
    assert refused(own_cancel(**{"cancel-own": "true"}), client_id=None) == 40012
    assert refused(ask(**{"turn-policy": "interrupt"})[0], client_id=None) == 40012


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (own_cancel(), 40003),
        (Message(name=h.AI_CANCEL), 40003),
        (Message(name=h.AI_INPUT, data="x"), 40003),
        (ask(**{"turn-policy": "sometimes"})[0], 40003),
    ],
)
def test_signals_that_name_nothing_are_refused(message: Message, code: int) -> None:
    assert refused(message) == code


def test_a_cancel_is_published_alone() -> None:
    error = sent(publish(opened(), 0, cancel(event_id="e", run_id="t"), Message(), channel=CHANNEL))[0].error
    assert error is not None
    assert error.code == 40030


def test_an_answer_to_a_turn_continues_it() -> None:
    message = tool_result("a1", "t1", "call-1", {"ok": True}, event_id="e", client_id="alice")
    assert trigger_of([message]) is None
    operation = commit(publish(opened(), 0, message, channel=CHANNEL)).operation
    assert isinstance(operation, Continue)
    (given,) = operation.inputs
    assert (given.turn_id, given.call) == ("t1", "result:call-1")


def test_answers_are_inputs_of_their_own_and_the_parts_of_a_steer_are_one() -> None:
    steer = user_message([TextPart("a"), TextPart("b")], InputIds(), client_id="alice", run_id="t1")
    answers = [tool_result("a1", "t1", f"c{n}", n, event_id=f"e{n}", client_id="alice") for n in (1, 2)]
    found = []
    for messages in (steer, answers):
        operation = commit(publish(opened(), 0, *messages, channel=CHANNEL)).operation
        assert isinstance(operation, Continue)
        found.append([(one.call, len(one.messages)) for one in operation.inputs])
    assert found == [[(None, 2)], [("result:c1", 1), ("result:c2", 1)]]


def test_inputs_into_a_turn_come_without_other_messages() -> None:
    answer = tool_result("a1", "t1", "c1", 1, event_id="e", client_id="alice")
    frames = sent(publish(opened(), 0, answer, Message(name="other"), channel=CHANNEL))
    assert frames[0].error is not None and frames[0].error.code == 40003


def test_a_client_tools_fork_ends_the_turn_that_waited() -> None:
    transport = {h.ROLE: "assistant", h.CODEC_MESSAGE_ID: "copy", h.SUPERSEDES: "t1", h.EVENT_ID: "e"}
    fork = Message(
        name=h.AI_INPUT, extras=h.make_extras(transport, {h.KIND: "tool-result", "toolCallId": "c"})
    )
    operation = commit(publish(opened(), 0, fork, channel=CHANNEL)).operation
    assert isinstance(operation, Submit)
    assert (operation.request.policy, operation.request.interrupts) == (
        Policy.INTERRUPT, CancelFilter(Scope.TURN, "t1"),
    )  # fmt: skip
