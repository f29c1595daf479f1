"""Errors received from the service keep their type."""

from __future__ import annotations

import pytest

from selfhost_transport import errors
from selfhost_transport.errors import ErrorInfo, TransportError


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
