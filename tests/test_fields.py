"""The package is of no one field: words of skin stand in ``data/`` alone, in no text, default or setting elsewhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "clip_xai"
VOCABULARY = yaml.safe_load((PACKAGE / "data" / "vocabularies" / "skin.yaml").read_text(encoding="utf-8"))
NAMES = {name for name, entry in VOCABULARY["diagnoses"].items() for name in (name, *entry.get("synonyms", ()))}
_NAMED = "|".join(re.escape(name) for name in sorted(NAMES))
WORDS = re.compile(rf"melanom|derm(?:at)?oscop|\b(?:na?ev(?:us|i)|skin|{_NAMED})s?\b", re.IGNORECASE)
FREE = {
    "models/backbones/catalogue.py",  # says what published weights were trained on
    "xai/examples.py",  # what the examples in docstrings share
}


def modules() -> list[Path]:
    found = sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "data")
    return [path for path in found if path.relative_to(PACKAGE).as_posix() not in FREE]


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Every text in a module but its docstrings, with its line."""
    tree = ast.parse(source)
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, kinds)]
    said = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.lineno, node.value


def values(loaded: Any) -> Iterator[str]:
    if isinstance(loaded, dict):
        for key, value in loaded.items():
            yield from (str(key), *values(value))
    elif isinstance(loaded, list):
        for value in loaded:
            yield from values(value)
    else:
        yield str(loaded)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_text_outside_data_is_about_skin(path: Path) -> None:
    found = [(line, text) for line, text in texts(path.read_text(encoding="utf-8")) if WORDS.search(text)]
    assert not found, f"{path}: take it from the vocabulary: {found}"


@pytest.mark.parametrize("path", sorted((ROOT / "conf").rglob("*.yaml")), ids=lambda path: path.name)
def test_no_setting_is_about_skin(path: Path) -> None:
    if path.relative_to(ROOT / "conf").parts[0] in ("data", "experiment"):
        return  # which are of a data set, or of a published model
    found = [value for value in values(yaml.safe_load(path.read_text(encoding="utf-8"))) if WORDS.search(value)]
    assert not found, f"{path}: take it from the vocabulary: {found}"


def test_the_search_finds_what_it_looks_for() -> None:
    source = 'def f(x="a photo of Melanoma"):\n    """Of skin."""\n    return f"{x}: a nevus"\n'
    assert [text for _, text in texts(source) if WORDS.search(text)] == ["a photo of Melanoma", ": a nevus"]
    assert [text for text in ("healthy skin", "dermoscopic", "skincap", "scarce") if WORDS.search(text)] == [
        "healthy skin",
        "dermoscopic",
    ]
    assert list(values({"against": ["a", {"b": 1}]})) == ["against", "a", "b", "1"]
