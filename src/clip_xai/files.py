"""Files that another command reads: written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to, and move what was written there into place at the end.

    A reader sees the old file or the new one, never a part of either; after an error the old one stands.

    Args:
        path: The file to write. Its directory must be there.

    Yields:
        A path in the same directory, with the same suffix.
    """
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}.unfinished{path.suffix}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, indent: int = 2) -> None:
    """Write a JSON file, whole or not at all.

    Raises:
        ValueError: A number is not finite: JSON has no NaN, and a measure that is not there is None.
    """
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")
