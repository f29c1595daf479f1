"""Former names of public things work for one release, and say what to use instead."""

from __future__ import annotations

import inspect

import pytest

from agent_worker import CancelRequest, Turn
from selfhost_transport import errors


def test_the_former_name_of_an_error() -> None:
    with pytest.warns(DeprecationWarning, match="use LogRewound"):
        assert errors.__getattr__("WentBack") is errors.LogRewound
    with pytest.raises(AttributeError, match="NoSuchError"):
        errors.__getattr__("NoSuchError")


@pytest.mark.parametrize("owner", [Turn, CancelRequest])
def test_last_word_sets_the_closing_note(owner: type[Turn] | type[CancelRequest]) -> None:
    noted: list[str] = []

    class Stand:
        """Takes the place of a turn that would need a running worker."""

        def closing_note(self, text: str) -> None:
            noted.append(text)

    assert list(inspect.signature(owner.last_word).parameters) == ["self", "text"]
    with pytest.warns(DeprecationWarning, match="use closing_note"):
        owner.last_word(Stand(), "bye")  # type: ignore[arg-type]
    assert noted == ["bye"]
