"""Errors received from the service keep their type."""

from __future__ import annotations

import pytest

from selfhost_transport import errors
from selfhost_transport.errors import ErrorInfo, TransportError
from selfhost_transport.wire.codes import CODES


@pytest.mark.parametrize(
    "raised",
    [
        errors.InvalidArgument("x"),
        errors.TurnEnded("x"),
        errors.Busy("x"),
        errors.RateLimited("x"),
        errors.CapabilityError("x"),
        errors.StoreUnavailable("x"),
        errors.Conflict("x"),
        errors.MessageTooLarge("x"),
    ],
)
def test_an_error_survives_the_wire(raised: TransportError) -> None:
    assert type(TransportError.from_info(ErrorInfo.from_wire(raised.info.to_wire()))) is type(raised)


KINDS_WITH_A_CODE: list[type[TransportError]] = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, TransportError) and "code" in vars(kind)
    if kind is not TransportError
]


def test_every_error_of_the_tree_that_has_a_code_of_its_own_survives_the_wire() -> None:
    for kind in KINDS_WITH_A_CODE:
        assert type(TransportError.from_info(ErrorInfo(kind.code, kind.status_code, "x"))) is kind


# Classes of the codes that have none of their own; each other code of the table is a BadRequest.
OF_A_KIND = {
    errors.Unauthorized: {40100, 40101, 40102, 40104, 40105, 40130, 40131, 40132, 40133},
    errors.TokenError: {40140, 40141, 40142, 40143, 40144, 40145},
    errors.CapabilityError: {40160, 40161, 40162, 40163, 40165, 40166},
    errors.RateLimited: {42910, 42911, 42913, 42920, 42921, 42924},
    errors.ServiceError: {50000, 50001, 50002},
    errors.ConnectionFailed: {80000, 80001, 80002, 80003, 80008, 80011, 80016, 80017, 80018, 80023},
    errors.ContinuityLost: {80020, 90003, 90004, 90005},
}
BAD_REQUESTS = {
    40000, 40001, 40005, 40006, 40012, 40013, 40017, 40020, 40024, 40030, 40032, 40034, 40099, 40500,
    90000, 90001, 90008, 90010, 91000, 91001, 91002, 91003, 92000, 93002,
}  # fmt: skip


def test_every_code_of_the_protocol_has_the_class_of_its_kind() -> None:
    own = {kind.code for kind in KINDS_WITH_A_CODE}
    for code, row in CODES.items():
        kind = type(TransportError.from_info(ErrorInfo(code, row.status, "x")))
        expected = next((k for k, codes in OF_A_KIND.items() if code in codes), None)
        if expected is not None:
            assert kind is expected, code
        elif code in BAD_REQUESTS:
            assert kind is errors.BadRequest, code
        else:
            assert code in own and kind.code == code, code


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.BadRequest),
        (401, errors.Unauthorized),
        (404, errors.NotFound),
        (429, errors.RateLimited),
        (502, errors.ServiceError),
    ],
)
def test_a_code_that_is_not_known_goes_by_its_status(status: int, kind: type[TransportError]) -> None:
    assert type(TransportError.from_info(ErrorInfo(123456, status, "x"))) is kind


def test_a_redis_that_went_back_is_an_error_of_its_own() -> None:
    assert type(TransportError.from_info(errors.LogRewound("x").info)) is errors.LogRewound
