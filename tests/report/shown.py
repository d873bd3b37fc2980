"""What a reader sees of a page: its text and the strings of its data, without markup, styles and programs."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

SKIN = re.compile(r"lesion|skin|derma|mole\b", re.IGNORECASE)


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.inside, self.found = "", list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "style"):
            self.inside = "data" if dict(attrs).get("id") == "data" else tag
        self.found += [
            value for name, value in attrs if name in ("title", "alt", "aria-label", "placeholder") and value
        ]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "data":
            self.found += _strings(json.loads(data))
        elif not self.inside:
            self.found.append(data)


def shown_in(page: str) -> str:
    """Return all that a page says, a piece a line."""
    parser = _Text()
    parser.feed(page)
    return "\n".join(parser.found)


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [found for one in value.values() for found in _strings(one)]
    if isinstance(value, list):
        return [found for one in value for found in _strings(one)]
    return [value] if isinstance(value, str) and not value.startswith("data:") and len(value) < 5_000 else []
