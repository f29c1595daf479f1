"""Connection keys: authentic forever, not forgeable from an id, and bound to their owner (section 4.5)."""

from __future__ import annotations

import pytest

from selfhost_transport.errors import ConnectionFailed
from selfhost_transport.wire.connection_key import (
    issue_connection_key,
    new_connection_id,
    read_connection_key,
    verify_connection_key,
)

SECRET = b"secret"
NOW = 1_763_000_000_000


def issue(client_id: str | None = "alice", app_id: str = "app", connection_id: str = "Conn12345678") -> str:
    return issue_connection_key(SECRET, connection_id, app_id=app_id, client_id=client_id, now_ms=NOW)


def test_a_key_is_read_back_by_any_node() -> None:
    key = verify_connection_key(SECRET, issue(), app_id="app", client_id="alice")
    assert (key.connection_id, key.issued_ms) == ("Conn12345678", NOW)
    assert read_connection_key(SECRET, issue(None)).connection_id == "Conn12345678"


def test_every_key_differs() -> None:
    assert len({issue() for _ in range(50)}) == 50


def test_ids_are_short_and_without_colon() -> None:
    ids = {new_connection_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(made) == 12 and made.isalnum() for made in ids)
    key = issue(connection_id=ids.pop())
    read_connection_key(SECRET, key)


@pytest.mark.parametrize("position", range(0, 80, 3))
def test_a_changed_key_is_not_authentic(position: int) -> None:
    key = issue()
    changed = key[:position] + ("0" if key[position] != "0" else "1") + key[position + 1 :]
    with pytest.raises(ConnectionFailed) as caught:
        verify_connection_key(SECRET, changed, app_id="app", client_id="alice")
    assert (caught.value.info.code, caught.value.info.status_code) == (80018, 400)


@pytest.mark.parametrize("key", ["", "x", "Conn12345678", "Conn12345678!", "a!b-c-d-e", "é" * 40])
def test_foreign_keys(key: str) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        read_connection_key(SECRET, key)
    assert caught.value.info.code == 80018


def test_another_secret_makes_no_valid_key() -> None:
    with pytest.raises(ConnectionFailed):
        read_connection_key(b"other", issue())


@pytest.mark.parametrize(
    ("app_id", "client_id"), [("app", "bob"), ("other", "alice"), ("app", None), ("app", "")]
)
def test_another_clients_key_is_distinguished_from_a_forged_one(app_id: str, client_id: str | None) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        verify_connection_key(SECRET, issue(), app_id=app_id, client_id=client_id)
    assert (caught.value.info.code, caught.value.info.status_code) == (80011, 400)


def test_anonymous_is_not_the_empty_name() -> None:
    verify_connection_key(SECRET, issue(None), app_id="app", client_id=None)
    with pytest.raises(ConnectionFailed):
        verify_connection_key(SECRET, issue(None), app_id="app", client_id="")
