"""Numbers and what they count, in every message."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clip_xai.text import counted, plural

SOURCES = Path(__file__).parents[1] / "src" / "clip_xai"
COUNTED = (
    *("photographs", "masks", "captions", "files", "texts", "words", "runs", "rows", "groups", "sources", "methods"),
    *("epochs", "steps", "patients", "weights", "records", "descriptions", "trials", "diagnoses", "labels", "columns"),
    *("cells", "tensors", "images", "lesions", "remarks"),
)
#: A number that is filled in and no constant, an adjective or none, and a plural that would also stand behind 1.
HARD = re.compile(
    r"(?:\{(?![A-Z_]+\})[^{}]*\}\}?|%d)(?: (?!of |in |from |on |the |its |as )[a-z-]+)? (" + "|".join(COUNTED) + r")\b"
)


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 masks"), (1, "1 mask"), (2, "2 masks"), (1000, "1000 masks")], ids=str
)
def test_a_noun_agrees_with_its_number(count: int, said: str) -> None:
    assert counted(count, "mask") == said
    assert plural(count, "diagnosis", "diagnoses") == ("diagnosis" if count == 1 else "diagnoses")


def lines_with_hard_plurals(text: str) -> list[str]:
    text = re.sub(r'"\s*\n\s*f?"', "", text)  # strings that are written on several lines
    strings = (line.strip() for line in text.splitlines() if '"' in line or "`" in line or "{{" in line)
    # What only a programmer sees names shapes and lengths, and says so by its own exception.
    return [line for line in strings if HARD.search(line) and "raise ValueError" not in line]


def test_the_scan_finds_what_it_looks_for() -> None:
    assert lines_with_hard_plurals('log.info("%d photographs are done", 1)')
    assert lines_with_hard_plurals("""f"{len(idle)} empty masks measure nothing" """)
    assert lines_with_hard_plurals("<p>{{ report.photographs }} photographs</p>")
    assert not lines_with_hard_plurals('f"under {FEWEST} groups"')
    assert not lines_with_hard_plurals("""f"{counted(n, 'photograph')} left" """)


@pytest.mark.parametrize("path", sorted(SOURCES.rglob("*.py")) + sorted(SOURCES.rglob("*.j2")), ids=lambda p: p.stem)
def test_no_message_counts_one_as_many(path: Path) -> None:
    assert lines_with_hard_plurals(path.read_text(encoding="utf-8")) == []
