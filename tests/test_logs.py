"""Log lines: stable events with the ids of session and turn as JSON, and no credential in either form."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts import write_log_events as page
from selfhost_transport.logs import (
    PACKAGES,
    Fields,
    JsonFormatter,
    Redactor,
    TextFormatter,
    bind_log_fields,
    configure_logging,
)
from selfhost_transport.settings import load_settings
from tests.processes import Stack, wait_until

SECRET = "configured-secret-1"
CREDENTIALS = (
    "/?key=app.key:hidden-one&v=6", "wss://host/?accessToken=hidden-one", "Authorization: Bearer hidden-one",
    "Basic hidden-one=", "redis://user:hidden-one@host:6379/0", "eyJhidden-one.hidden-one.hidden-one",
    "sk-hidden-one", f"the key {SECRET}", "/x?a=1&signature=hidden-one",
)  # fmt: skip


@pytest.fixture
def written() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger that writes JSON into memory."""
    stream, logger = io.StringIO(), logging.getLogger("tests.logs.json")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(Redactor([SECRET])))
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    yield logger, stream
    logger.removeHandler(handler)


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_the_event_and_its_fields(written: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = written
    names = Fields(session="chat:a b", turn="t1")
    logger.warning("turn.end_failed %s error=%s ms=%.0f", names, "two words", 1.2503200037198)
    logger.info("%s address=%s", "redis.connected", "here")
    logger.info("something else: %d%%", 3)
    first, second, third = _lines(stream)
    assert (first["event"], first["session"], first["turn"]) == ("turn.end_failed", "chat:a b", "t1")
    assert (first["error"], first["ms"], first["level"]) == ("two words", 1.25, "warning")
    assert first["message"] == "turn.end_failed session=chat:a b turn=t1 error=two words ms=1"
    assert (second["event"], second["address"]) == ("redis.connected", "here")
    assert (third["event"], third["message"]) == ("log", "something else: 3%")


def test_lines_of_user_code_carry_the_turn(written: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = written
    bind_log_fields(session="chat:1", turn="t7")
    logger.info("thinking", extra={"tool": "search"})
    (line,) = _lines(stream)
    assert (line["session"], line["turn"], line["tool"]) == ("chat:1", "t7", "search")


@pytest.mark.parametrize("text", CREDENTIALS)
def test_no_credential_is_written(written: tuple[logging.Logger, io.StringIO], text: str) -> None:
    logger, stream = written
    try:
        raise ValueError(text)
    except ValueError:
        logger.exception("auth.failed path=%s %s", text, Fields(other=text), extra={"more": [text]})
    assert "hidden-one" not in stream.getvalue() and SECRET not in stream.getvalue()
    (line,) = _lines(stream)
    assert "***" in line["path"] and "***" in line["other"] and "***" in line["traceback"]
    record = logging.makeLogRecord({"msg": "x %s", "args": (text,)})
    shown = TextFormatter(Redactor([SECRET])).format(record)
    assert "hidden-one" not in shown and SECRET not in shown and "***" in shown


def test_configuring_twice_writes_once(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level, [logging.getLogger(one).level for one in PACKAGES])
    try:
        for _ in range(2):
            configure_logging("json", "info", [SECRET])
        logging.getLogger("gateway.x").info("gateway.tested key=%s", SECRET)
        logging.getLogger("gateway.x").debug("gateway.hidden")
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        for name, level in zip(PACKAGES, before[2], strict=True):
            logging.getLogger(name).setLevel(level)
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["key"] == "***"


def test_the_secrets_of_the_settings_are_known(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[[keys]]\nname = "app.key"\nsecret = "the-secret"\n')
    settings = load_settings(file, redis="redis://me:the-password@localhost/0", log_format="json")
    assert set(settings.secrets) == {"the-secret", "the-password"}
    assert settings.log.format == "json"


def test_every_log_call_names_its_event() -> None:
    unnamed = [
        f"{path.relative_to(page.ROOT)}:{call.lineno}: {text!r}"
        for path, call in page.calls()
        if page._NAME.match(text := page.template(call)) is None and not text.startswith(("%s", "turn.%s"))
    ]
    # `_name` of a background task stands before `.failed`.
    assert [one for one in unnamed if "'%s.failed" not in one] == []


def test_the_page_is_current() -> None:
    current = page.PAGE.read_text()
    assert page.page(current) == current, "run scripts/write_log_events.py"
    assert "`turn.finished`" in current and "`lease.expired`" in current


async def test_the_processes_write_json(stack: Stack, tmp_path: Path) -> None:
    config = f"""
[log]
format = "json"
level = "info"

[[keys]]
name = "app.key"
secret = "{SECRET}"

[[namespaces]]
id = "chat"
agent = "assistant"
"""
    gateway = await stack.gateway(config=config)
    worker = await stack.worker(config=config)
    async with httpx.AsyncClient(base_url=gateway.url, auth=("app.key", SECRET)) as http:
        sent = await http.post(
            "/v1/sessions/chat:logs/turns", json={"text": "script: tokens=3 rate=0", "clientId": "ann"}
        )
        turn = sent.json()["turnId"]

        async def status() -> bool:
            found = await http.get(f"/v1/sessions/chat:logs/turns/{turn}")
            return bool(found.json()["status"] == "completed")

        await wait_until(status)
    worker.terminate()
    assert await worker.wait() == 0
    lines = [json.loads(line) for line in worker.log.splitlines() if line.startswith("{")]
    (finished,) = [line for line in lines if line["event"] == "turn.finished"]
    assert (finished["turn"], finished["session"], finished["outcome"]) == (turn, "chat:logs", "completed")
    assert SECRET not in worker.log + gateway.log
