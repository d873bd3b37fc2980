"""What docstrings say of each setting, and comments made of it."""

from __future__ import annotations

import inspect
import textwrap

WIDTH = 120


def documented(docstring: str | None, section: str) -> dict[str, str]:
    """Return what a section of a docstring says of each name, on one line each.

    Args:
        docstring: In Google's style; None for none.
        section: Its heading, such as ``Attributes:`` or ``Args:``.
    """
    found: dict[str, str] = {}
    lines = inspect.cleandoc(docstring or "").splitlines()
    key = ""
    for line in lines[lines.index(section) + 1 :] if section in lines else []:
        if line and not line.startswith(" "):
            break
        if line.startswith("    ") and not line.startswith("     "):
            key, _, text = line.strip().partition(": ")
            found[key] = text
        elif line.strip() and key:
            found[key] += f" {line.strip()}"
    return found


def comment(text: str, indent: str = "") -> list[str]:
    """Return a text as the lines of a YAML comment."""
    lead = f"{indent}# "
    return textwrap.wrap(text, WIDTH, initial_indent=lead, subsequent_indent=lead, break_long_words=False)


def wrapped(text: str) -> list[str]:
    """Return one entry of a docstring's section as lines of a class's docstring, without its indent."""
    return textwrap.wrap(text, WIDTH - 4, subsequent_indent="        ", break_long_words=False)
