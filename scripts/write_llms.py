"""Writes docs/llms.txt: the pages of the documentation with what each is for, for programs that read them (llmstxt.org)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parent.parent
FILE = ROOT / "docs" / "llms.txt"
_ROW = re.compile(r"^\| \[[^\]]+\]\(([^)]+)\) \| (.+) \|$", re.MULTILINE)


class Page(NamedTuple):
    """One page: the section of the site, its path below docs/, its title, what it is for."""

    section: str
    path: str
    title: str
    about: str


def site() -> dict[str, Any]:
    """mkdocs.yml."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    return loaded


def pages() -> Iterator[Page]:
    """The pages in the order of the site; their descriptions are those of docs/README.md. Raises KeyError without one."""
    about = dict(_ROW.findall((ROOT / "docs" / "README.md").read_text()))
    for entry in site()["nav"]:
        for section, paths in entry.items():
            if isinstance(paths, list):
                for path in paths:
                    title = (ROOT / "docs" / path).read_text().partition("\n")[0].removeprefix("# ")
                    yield Page(section, path, title, about[path])


def render() -> str:
    """The whole file."""
    lines = [f"# {site()['site_name']}", "", f"> {site()['site_description']}", ""]
    lines += [
        "The unmodified Ably SDKs connect to it, and so do plain HTTP clients and a Python SDK. All pages in one file:",
        "[llms-full.txt](llms-full.txt)",
    ]
    section = ""
    for page in pages():
        if page.section != section:
            section = page.section
            lines += ["", f"## {section}", ""]
        lines.append(f"- [{page.title}]({page.path}): {page.about}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    FILE.write_text(render())
