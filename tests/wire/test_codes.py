"""The table of error codes."""

from __future__ import annotations

import pytest

from selfhost_transport import errors
from selfhost_transport.wire.codes import CODES, Code, error_info, status_of


@pytest.mark.parametrize("code", Code)
def test_every_code_has_a_status_and_a_hint(code: Code) -> None:
    info = error_info(code)
    assert info.code == code
    assert 400 <= info.status_code < 600
    assert info.message == CODES[code].hint
    assert 40140 <= code < 40150 or code // 100 != 401 or info.status_code == 401


@pytest.mark.parametrize(
    ("code", "status"),
    [(40199, 401), (40499, 404), (42999, 429), (50099, 500), (80099, 400), (90003, 404), (104000, 400)],
)
def test_status_of_codes_in_and_outside_the_table(code: int, status: int) -> None:
    assert status_of(code) == status


def test_a_message_of_its_own_replaces_the_hint() -> None:
    assert error_info(Code.NOT_FOUND, "no such turn").message == "no such turn"


def test_the_tree_of_errors_agrees_with_the_table() -> None:
    # These two use the code of a bad request with the status of a conflict.
    different = {errors.Conflict, errors.TurnEnded}
    for error in vars(errors).values():
        if isinstance(error, type) and issubclass(error, errors.TransportError) and error not in different:
            assert status_of(error.code) == error.status_code or error.code not in CODES, error
