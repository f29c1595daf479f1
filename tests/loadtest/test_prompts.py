"""What people say, read from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.loadtest.prompts import read_prompts


def test_text_has_a_conversation_a_line_and_tabs_between_messages(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("Hello\tAnd then?\n\n# a note\n  One more  \n", encoding="utf-8")
    assert read_prompts(path) == (("Hello", "And then?"), ("One more",))


def test_json_has_the_forms_that_others_write(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(
        '"Hello"\n["One", "Two"]\n{"prompt": "P"}\n{"turns": ["A", "B"]}\n'
        '{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"},'
        ' {"role": "assistant", "content": ""}, {"role": "user", "content": [{"type": "text", "text": "R"}]}]}\n',
        encoding="utf-8",
    )
    assert read_prompts(path) == (("Hello",), ("One", "Two"), ("P",), ("A", "B"), ("Q", "R"))


@pytest.mark.parametrize("text", ["{", "5", "[]", '{"question": "x"}', '["a", 5]'])
def test_a_line_that_is_no_conversation_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(f'"fine"\n{text}\n', encoding="utf-8")
    with pytest.raises(InvalidArgument, match="line 2"):
        read_prompts(path)


def test_a_file_that_is_not_there_or_says_nothing(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot read"):
        read_prompts(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n# only a note\n")
    with pytest.raises(InvalidArgument, match="no conversation"):
        read_prompts(tmp_path / "empty.txt")
