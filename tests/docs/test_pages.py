"""The pages under docs/ hold against the code: messages that a page explains exist, tables are drawn, links lead on."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if not path.is_relative_to(DOCS / "_build"))
EXPLAINED = re.findall(r"^\| `([^`|]+)` \|", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)


def literals() -> list[str]:
    """Every text of the package as it is printed; what is filled in becomes ``...``."""
    found = []
    for path in sorted((ROOT / "src" / "clip_xai").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(v.value) if isinstance(v, ast.Constant) else "..." for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return literals()


@pytest.mark.parametrize("message", EXPLAINED)
def test_a_message_that_is_explained_is_one_of_the_program(message: str, texts: list[str]) -> None:
    parts = [part.strip() for part in message.split("...") if len(part.strip(" ,;:()=")) > 2]
    pattern = re.compile(".*?".join(map(re.escape, parts)), re.DOTALL)
    assert parts and any(pattern.search(text) for text in texts), message


def test_messages_are_explained() -> None:
    assert len(EXPLAINED) > 20


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        place = page.parent / target
        generated = target.removeprefix("../").startswith("api/")
        assert generated or place.exists() or place.with_suffix(".md").exists(), f"{page.name}: {target}"


@pytest.mark.parametrize(("page", "table"), [("backbones", "backbones"), ("backbones", "mappers"), ("explainers",) * 2])
def test_a_table_is_drawn_from_the_code(page: str, table: str) -> None:
    assert f"<!-- table: {table} -->" in (DOCS / f"{page}.md").read_text(encoding="utf-8")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
