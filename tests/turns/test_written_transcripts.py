"""Every message of every transcript is one that the Python side writes too; what it does otherwise is named here.

The streams of agents are in `test_encoder` and `test_codec_openai`, life-cycle messages in `test_lifecycle`, inputs and
cancels in `test_inputs`; here are messages sent one by one, those of hand-made peers, and the account of the rest.
"""

from __future__ import annotations

from typing import Any

import pytest

from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import decoder as d
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.codecs import OPENAI, UI_MESSAGES
from selfhost_transport.turns.encoder import Create
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.values import unpack
from selfhost_transport.turns.view import TreeView
from tests.turns.rebuilt_inputs import rebuilt as rebuilt_input
from tests.turns.rebuilt_lifecycle import rebuilt as rebuilt_lifecycle
from tests.turns.transcripts import VERCEL, Operation, Transcript, context_of, load, load_all, transport

TRANSCRIPTS = [*load_all(), *load_all("openai-responses")]
# (transcript, n of the operation): why the Python side has no such message.
FORK = "a client's tool result forks the run in useChat; a Python client resumes it (section 8.11, TOL-2)"
RECOVERY = (
    "appends are one script with the check that allows them: none can fail alone and need a recovery (P2)"
)
FOREIGN = "a message of another application, in part made to look like ours"
OTHER_APP = "other-app"
OTHERWISE = {
    ("24-append-recovery", 11): RECOVERY,
    ("28-client-tool-fork", 11): FORK,
    ("28-client-tool-fork", 12): FORK,
    **{("36-foreign-messages", n): FOREIGN for n in (1, 9, 10, 11, 12, 13)},
    ("43-usechat-client-tool", 13): FORK,
}


def streams_of(transcript: Transcript) -> set[str]:
    """Assistant messages whose chunks were recorded; they are encoded elsewhere."""
    return {stream.get("codecMessageId", "") for stream in transcript.raw.get("agent_streams", ())}


def singles() -> list[Any]:
    """Outputs that were published outside a recorded stream, without the appends to them."""
    return [
        pytest.param(transcript, operation, id=f"{transcript.name}-{operation.raw['n']}")
        for transcript in TRANSCRIPTS
        for operation in transcript.operations()
        if operation.message.name == h.AI_OUTPUT
        and operation.raw["by"] != OTHER_APP
        and transport(operation.message).get("codec-message-id") not in streams_of(transcript)
    ]


@pytest.mark.parametrize(("transcript", "operation"), singles())
def test_messages_sent_one_by_one(transcript: Transcript, operation: Operation) -> None:
    codec = UI_MESSAGES if transcript.codec == VERCEL else OPENAI
    message, found = operation.message, dict(transport(operation.message))
    headers = h.read_headers(message)
    assert headers is not None
    for name in ("invocation-id", "step-id", "step-client-id"):
        message.extras["ai"]["transport"].setdefault(name, "")  # type: ignore[index]
    encoder = codec.encoder(
        context_of(message), found["codec-message-id"], found.get("step-start-serial", "")
    )
    start = codec.decode_stream_start(headers) if headers.is_stream else None
    chunks = [start] if start is not None else codec.decode_output(headers, unpack(message))
    # A native event and the chunk that says the same are one message; a discrete call decodes to two chunks.
    chunk = next((c for c in chunks if isinstance(c, p.Native)), chunks[-1])
    (op,) = encoder.encode(chunk)
    assert isinstance(op, Create)
    made = h.read_headers(op.message)
    assert made is not None
    assert unpack(op.message) == (message.data if headers.is_stream else unpack(message))
    assert dict(headers.codec).items() <= dict(made.codec).items()
    assert found.items() <= {**made.transport, h.STEP_START_SERIAL: found.get(h.STEP_START_SERIAL)}.items()


@pytest.mark.parametrize("name", ["70", "71", "73", "74"])
def test_hand_made_peers_write_nothing_that_ours_do_not(name: str) -> None:
    for message in load(name).live():
        if message.name is None or message.name == h.AI_OUTPUT:
            continue
        found = dict(transport(message))
        message.extras["ai"]["transport"].setdefault("invocation-id", "")  # type: ignore[index]
        is_input = message.name in (h.AI_INPUT, h.AI_CANCEL)
        made = rebuilt_input(message) if is_input else rebuilt_lifecycle(message)
        # The SDK names a parent on inputs into a run; a Python client does not (section 3.2, R; v74).
        expected = {k: v for k, v in found.items() if not (is_input and k == h.PARENT and h.RUN_ID in found)}
        assert expected.items() <= transport(made).items(), message.name


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda t: t.name)
def test_what_the_python_side_does_otherwise_is_named(transcript: Transcript) -> None:
    unaccounted = {
        (transcript.name, operation.raw["n"])
        for operation in transcript.operations()
        if not is_written(transcript, operation)
    }
    assert unaccounted == {key for key in OTHERWISE if key[0] == transcript.name}


def is_written(transcript: Transcript, operation: Operation) -> bool:
    """Whether one of the tests makes this operation."""
    message = operation.message
    if message.name in (h.AI_INPUT, h.AI_CANCEL):
        return h.SUPERSEDES not in transport(message)
    if operation.op == "update" or operation.raw["by"] == OTHER_APP:
        return False
    # An append has no name; it belongs to a stream.
    return message.name in h.AGENT_MESSAGES or message.name is None


def test_r_appends_that_fail_alone_do_not_occur_but_are_read() -> None:
    """24: the SDK's live view keeps the text it had; ours shows what the service holds (SES-4)."""
    view = TreeView(SessionTree())
    for message in load("24").live():
        view.update(view.tree.apply(message))
    assert view.messages()[-1].message.text == "one two three"


def test_r_a_turn_that_goes_on_keeps_its_parent() -> None:
    """73, section 3.2: outputs after a resume keep the run's parent, where the SDK names one inside the run."""
    by_the_sdk = [
        m for m in load("29").live() if m.name == h.AI_OUTPUT and transport(m).get("invocation-id") == "INV-2"
    ]
    assert {transport(m)["parent"] for m in by_the_sdk} == {"MSG-ASST-1"}
    outputs = [m for m in load("73").live() if m.name == h.AI_OUTPUT]
    assert len({transport(m)["parent"] for m in outputs}) == 1


def test_r_a_client_fork_is_read_as_the_sdk_writes_it() -> None:
    """28, section 8.11: ours does not write it, and shows the same branches."""
    forks = [m for m in load("28").live() if transport(m).get(h.SUPERSEDES)]
    for fork in forks:
        headers = h.read_headers(fork)
        assert headers is not None
        event = d.decode_input(headers, unpack(fork))
        assert isinstance(event, d.ToolResolved) and event.seed
