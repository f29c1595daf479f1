"""Former names of public things work for one release, and say what to use instead."""

from __future__ import annotations

import inspect

import pytest

import agent_worker
from agent_worker import CancelRequest, Turn
from selfhost_transport import errors
from selfhost_transport.turns.seed import Seed


@pytest.mark.parametrize(("former", "now"), [("WentBack", "LogRewound"), ("SeamLost", "ResumePointLost")])
def test_the_former_name_of_an_error(former: str, now: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"use {now}"):
        assert errors.__getattr__(former) is getattr(errors, now)
    with pytest.raises(AttributeError, match="NoSuchError"):
        errors.__getattr__("NoSuchError")


def test_the_former_name_of_an_output_chunk() -> None:
    with pytest.warns(DeprecationWarning, match="use OutputChunk"):
        assert agent_worker.__getattr__("Piece") is agent_worker.OutputChunk
    with pytest.raises(AttributeError, match="NoSuchName"):
        agent_worker.__getattr__("NoSuchName")


def test_the_former_name_of_a_resume_point() -> None:
    point = "01767225600010-000@aaaaaaaaaa"
    with pytest.warns(DeprecationWarning, match="use resume_point"):
        assert Seed((), seam=point) == Seed((), point)
    with pytest.warns(DeprecationWarning, match="use resume_point"):
        assert Seed.from_json([], seam=point).resume_point == point


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
