"""Plays all suites of all SDKs and writes docs/compatibility.md: `python -m tests.compat.table`."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.compat.site import FORMATS, JS, ROOT, Outcome, Site, open_site, play_npm, play_program, play_python

PAGE = ROOT / "docs" / "compatibility.md"
PASS, FAIL, ABSENT = "pass", "**fail**", "—"
NOT_SUPPORTED = "Not supported"
_ROW_NAMES = re.compile(r"^(?:[A-Z]{3}-\d+ |(?:pre|dev)_\d+ )+", re.IGNORECASE)

_INTRODUCTION = """\
# Compatibility

<!-- Written by `python -m tests.compat.table` from runs of the SDKs: do not edit. -->

The SDKs below are the published packages, unmodified; only their endpoint is set. Each line is a test that was played
with the SDK against two gateways and a worker, once with JSON frames and once with msgpack. The same tests run with the
whole suite. How to point an SDK at a gateway: [getting started](getting-started.md).
"""


@dataclass(frozen=True, slots=True)
class Suite:
    """One file of tests. `name` is the npm suite, '' for the cases of the PyPI SDK; `language`: of neither."""

    title: str
    packages: tuple[str, ...]
    name: str = ""
    language: str = ""

    async def play(self, site: Site, wire_format: str) -> list[Outcome]:
        """The outcomes in one format."""
        if self.language:
            return await play_program(site, wire_format, self.language)
        if self.name:
            return await play_npm(site, wire_format, self.name)
        return await play_python(site, wire_format)


SUITES = (
    Suite("Messages, channels, history, tokens", ("ably",), "ably"),
    Suite("More of the SDK", ("ably",), "compat"),
    Suite("Rules in detail", ("ably",), "compat-areas"),
    Suite("Order of operations, changing rights", ("ably",), "compat-order"),
    Suite("Further methods", ("ably",), "compat-methods"),
    Suite("Without websockets", ("ably", "@ably/ai-transport"), "comet"),
    Suite("Without websockets, in a browser", ("ably",), "comet-browser"),
    Suite("Tokens, rights, revocation", ("ably",), "auth"),
    Suite("Appends gathered by the gateway", ("ably",), "rollup"),
    Suite("Errors", ("ably",), "errors"),
    Suite("Presence", ("ably",), "presence"),
    Suite("Turns", ("ably", "@ably/ai-transport"), "turns"),
    Suite("Agents written in JavaScript", ("ably", "@ably/ai-transport"), "agent"),
    Suite("Agents that go on in another process, Temporal", ("ably", "@ably/ai-transport"), "durable"),
    Suite("54 recorded conversations", ("ably", "@ably/ai-transport"), "compat-transcripts"),
    Suite("`useChat`", ("ably", "@ably/ai-transport", "ai"), "usechat"),
    Suite("Clients with the OpenAI codec", ("ably", "@ably/ai-transport"), "openai"),
    Suite("React hooks", ("ably", "@ably/ai-transport", "react"), "compat-react"),
    Suite("The Python package", ("ably (PyPI)",)),
    Suite("The Go package", ("ably-go",), language="go"),
    Suite("The Java package", ("ably-java",), language="java"),
)


def versions() -> dict[str, str]:
    """The pinned version of every package."""
    npm: dict[str, str] = json.loads((JS / "package.json").read_text())["devDependencies"]
    pinned = re.search(r"^ably==(\S+)$", (ROOT / "tests/compat/requirements.txt").read_text(), re.MULTILINE)
    assert pinned is not None, "requirements.txt does not pin ably"
    go = re.search(r"ably-go v(\S+)$", (ROOT / "tests/compat/go_sdk/go.mod").read_text(), re.MULTILINE)
    java = re.search(
        r"ably-java</artifactId>\s*<version>(.*)</version>",
        (ROOT / "tests/compat/java_sdk/pom.xml").read_text(),
    )
    assert go is not None and java is not None, "go.mod and pom.xml pin the SDKs"
    return {**npm, "ably (PyPI)": pinned[1], "ably-go": go[1], "ably-java": java[1]}


def feature_name(outcome: Outcome) -> str:
    """The feature without the names of acceptance rows, as a line of a table."""
    return _ROW_NAMES.sub("", outcome.feature).replace("|", "\\|")


def page(results: dict[Suite, dict[str, list[Outcome]]]) -> str:
    """The whole page from the outcomes per suite and format."""
    known = versions()
    lines = [_INTRODUCTION, *_summary(results), ""]
    for suite, by_format in results.items():
        titled = ", ".join(f"{package} {known[package]}" for package in suite.packages)
        lines += [f"## {suite.title}", "", titled, ""]
        lines += [*_table(by_format, supported=True), ""]
    lines += [f"## {NOT_SUPPORTED}", ""]
    lines += ["Each is refused or ignored in a way that the SDK understands; these tests check that.", ""]
    lines += ["| Feature | Package | Instead | JSON | msgpack |", "| --- | --- | --- | --- | --- |"]
    for suite, by_format in results.items():
        lines += _rows(by_format, supported=False, package=suite.packages[0])
    return "\n".join(lines) + "\n"


def _summary(results: dict[Suite, dict[str, list[Outcome]]]) -> Iterator[str]:
    yield "| Suite | Packages | Tests | JSON | msgpack |"
    yield "| --- | --- | --- | --- | --- |"
    for suite, by_format in results.items():
        tests = {outcome.feature for outcomes in by_format.values() for outcome in outcomes}
        passed = [sum(outcome.ok for outcome in by_format.get(name, [])) for name in FORMATS]
        packages = ", ".join(suite.packages)
        yield f"| {suite.title} | {packages} | {len(tests)} | {passed[0]} pass | {passed[1]} pass |"


def _table(by_format: dict[str, list[Outcome]], *, supported: bool) -> Iterator[str]:
    yield "| Feature | JSON | msgpack |"
    yield "| --- | --- | --- |"
    yield from _rows(by_format, supported=supported)


def _rows(by_format: dict[str, list[Outcome]], *, supported: bool, package: str = "") -> Iterator[str]:
    found = {
        wire_format: {outcome.feature: outcome for outcome in outcomes}
        for wire_format, outcomes in by_format.items()
    }
    features = dict.fromkeys(feature for outcomes in found.values() for feature in outcomes)
    for feature in features:
        one = next(outcomes[feature] for outcomes in found.values() if feature in outcomes)
        if supported != (not one.reason):
            continue
        cells = [_verdict(found.get(wire_format, {}).get(feature)) for wire_format in FORMATS]
        reported = [] if supported else [package, one.reason]
        yield "| " + " | ".join([feature_name(one), *reported, *cells]) + " |"


def _verdict(outcome: Outcome | None) -> str:
    if outcome is None:
        return ABSENT
    return PASS if outcome.ok else FAIL


async def _play() -> dict[Suite, dict[str, list[Outcome]]]:
    with EmbeddedRedis() as redis, tempfile.TemporaryDirectory() as folder:
        async with open_site(redis.url, Path(folder)) as site:
            return {
                suite: {wire_format: await suite.play(site, wire_format) for wire_format in FORMATS}
                for suite in SUITES
            }


def main() -> int:
    """Play, write the page, and say what failed. Returns the exit status."""
    results = asyncio.run(_play())
    PAGE.write_text(page(results))
    failed = [
        f"{suite.title}, {wire_format}: {outcome.feature}\n{outcome.error}"
        for suite, by_format in results.items()
        for wire_format, outcomes in by_format.items()
        for outcome in outcomes
        if not outcome.ok
    ]
    print("\n".join(failed) or f"all pass; {PAGE.relative_to(ROOT)} is written", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
