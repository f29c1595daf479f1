"""Who may be whom (protocol sections 6.6 and 10.6)."""

from __future__ import annotations

import pytest

from selfhost_transport.errors import BadRequest, Unauthorized
from selfhost_transport.wire.identity import Identity, key_identity, token_identity

ANONYMOUS = Identity(None, may_assume_any=False)
WILDCARD = Identity(None, may_assume_any=True)
ALICE = Identity("alice", may_assume_any=False)


@pytest.mark.parametrize(
    ("identity", "expected", "announced"),
    [
        (key_identity(None), WILDCARD, "*"),
        (key_identity("*"), WILDCARD, "*"),
        (key_identity("alice"), ALICE, "alice"),
        (token_identity(None, None), ANONYMOUS, None),
        (token_identity("*", None), WILDCARD, "*"),
        (token_identity("*", "alice"), ALICE, "alice"),
        (token_identity("alice", None), ALICE, "alice"),
        (token_identity("alice", "alice"), ALICE, "alice"),
        (token_identity("alice", ""), ALICE, "alice"),
    ],
)
def test_identity_of_a_credential(identity: Identity, expected: Identity, announced: str | None) -> None:
    assert identity == expected
    assert identity.announced == announced


@pytest.mark.parametrize(
    ("token", "requested"), [(None, "alice"), ("alice", "bob"), ("alice", "*"), (None, "*")]
)
def test_a_client_id_that_contradicts_the_token(token: str | None, requested: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        token_identity(token, requested)
    assert (caught.value.info.code, caught.value.info.status_code) == (40102, 401)


@pytest.mark.parametrize(
    ("identity", "claimed", "stamped"),
    [
        (ALICE, None, "alice"),
        (ALICE, "alice", "alice"),
        (WILDCARD, None, None),
        (WILDCARD, "bob", "bob"),
        (ANONYMOUS, None, None),
    ],
)
def test_client_id_of_what_is_sent(identity: Identity, claimed: str | None, stamped: str | None) -> None:
    assert identity.stamp(claimed) == stamped


@pytest.mark.parametrize(
    ("identity", "claimed"),
    [(ALICE, "bob"), (ALICE, "*"), (ALICE, ""), (WILDCARD, "*"), (WILDCARD, ""), (ANONYMOUS, "bob")],
)
def test_client_id_that_may_not_be_used(identity: Identity, claimed: str) -> None:
    with pytest.raises(BadRequest) as caught:
        identity.stamp(claimed)
    assert (caught.value.info.code, caught.value.info.status_code) == (40012, 400)
