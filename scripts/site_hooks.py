"""What the site of the documentation needs besides its pages: links that lead out of docs/, and all pages in one file.

Called by mkdocs (`hooks` in mkdocs.yml).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from scripts.write_llms import pages

ROOT = Path(__file__).parent.parent
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Files of the repository are not on the site: a link to one becomes its path. Raises ValueError if there is none."""
    source = Path(page.file.abs_src_path)

    def replaced(found: re.Match[str]) -> str:
        text, target = found[1], found[2]
        path = (source.parent / target).resolve()
        if "://" in target or path.is_relative_to(ROOT / "docs"):
            return found[0]
        if not path.exists():
            raise ValueError(f"{source.name} links to {target}, which does not exist")
        name = str(path.relative_to(ROOT))
        return text if name in text.strip("`/") else f"{text} (`{name}` of the repository)"

    return _LINK.sub(replaced, markdown)


def on_post_build(config: Any, **_: Any) -> None:
    """What llms.txt names: the sources of the pages, and llms-full.txt, all of them in that order."""
    site, parts = Path(config.site_dir), []
    for page in pages():
        text = (ROOT / "docs" / page.path).read_text()
        (site / page.path).write_text(text)
        parts.append(f"<!-- {page.path} -->\n\n{text}")
    (site / "llms-full.txt").write_text("\n\n".join(parts))
