"""Numbers and what they count, in every message."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clip_xai.text import counted, decimals, plural, with_bounds

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


@pytest.mark.parametrize("digits", [0, 2, 3])
@pytest.mark.parametrize("sign", ["", "+"])
def test_no_sign_stands_before_a_zero_and_every_other_minus_is_a_true_one(digits: int, sign: str) -> None:
    for step in range(-3000, 3001):
        value = step / 2000
        text = decimals(value, digits, sign)
        # Only what rounds to nothing loses its sign; the digits are those of round() at the exact binary value.
        assert float(text.replace("−", "-")) == round(value, digits) and "-" not in text
        zero = round(value, digits) == 0
        assert text.startswith("−") == (value < 0 and not zero)
        assert text.startswith("+") == (sign == "+" and value >= 0 and not zero)


def test_an_interval_is_shown_with_both_its_bounds_or_with_none() -> None:
    assert with_bounds(-0.001, -0.2, 0.001) == "0.00 [−0.20, 0.00]"
    nan = float("nan")
    assert with_bounds(0.5, nan, nan) == with_bounds(0.5, None, None) == "0.50"
    assert with_bounds(nan, nan, nan) == with_bounds(None, None, None) == "–"


#: A number in a bracket behind another one, or one with its sign, that is rounded where it stands.
BY_HAND = re.compile(r"\[\{[^{}]*:[^{}]*\.\d[fg]\}, |\{[^{}]*:\+\.\d[fg%]\}")


def test_values_with_bounds_or_signs_are_written_by_the_one_formatter() -> None:
    lines = [
        f"{file.name}: {line.strip()}"
        for file in sorted(SOURCES.rglob("*.py"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if BY_HAND.search(line)
    ]
    assert not lines
    assert BY_HAND.search('f"{value:.2f} [{low:.2f}, {high:.2f}]"') and BY_HAND.search('f"{effect:+.2f}"')
