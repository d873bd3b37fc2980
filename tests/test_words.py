"""Words that were replaced stay replaced, in names, messages and pages: CONTRIBUTING.md has the list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
REPLACED = {
    "room": r"\b(?:a|the|every|each|which|that|own) rooms?\b|\brooms (?:below|above)\b",
    "house": r"\bhouse\b",
    "Inquiry": r"\binquir(?:y|ies)\b",
    "Asked": r"\bAsked\b",
    "has not": r"\b(?:has|have|had) not (?:a|an|any|enough|the|its|one)\b",
    "no multiple of": r"\bno multiples? of\b",
    "choose of": r"\bchoose of\b",
    "leave looks out": r"\bleave looks out\b",
    "mind": r"\bmind (?:the|their|its|whose)\b",
}
PLACES = ("src", "conf", "docs", "README.md", "benchmarks")


def written() -> Iterator[Path]:
    """Every text of the repository that a person reads, beside the list itself."""
    for place in (ROOT / name for name in PLACES):
        files = place.rglob("*") if place.is_dir() else [place]
        kinds = {".py", ".yaml", ".md", ".html", ".js", ".css", ".txt"}
        yield from (
            file
            for file in files
            if file.suffix in kinds and not {"_build", "api", "assets"} & set(file.relative_to(ROOT).parts)
        )


@pytest.mark.parametrize("word", REPLACED)
def test_a_word_that_was_replaced_is_gone(word: str) -> None:
    pattern = re.compile(REPLACED[word], 0 if word[0].isupper() and word == "Asked" else re.IGNORECASE)
    found = [
        f"{file.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
        for file in written()
        for text in [file.read_text(encoding="utf-8")]
        for match in pattern.finditer(text)
    ]
    assert not found, found


@pytest.mark.parametrize("word", REPLACED)
def test_the_list_names_it(word: str) -> None:
    assert word in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_search_finds_what_it_looks_for() -> None:
    assert re.search(REPLACED["room"], "what the rooms below hold") and not re.search(REPLACED["room"], "no room left")
    assert re.search(REPLACED["has not"], "the tower has not enough blocks")
