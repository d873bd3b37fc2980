"""One direction, no loops: a room imports from rooms below it only, and Hydra and Lightning stay where they belong."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "clip_xai"
ROOMS = ("data", "models", "xai", "metrics", "training", "report", "runs")  # from the ground up
GROUND = {"disk", "errors", "files", "page", "progress", "ranges", "text"}
# Explanation is none of training's business, and the other way round; a report shows numbers that others computed.
NEVER = {"metrics": {"models"}, "training": {"xai", "metrics"}, "report": {"training"}}
LIBRARIES = {
    "hydra": {"runs"},
    "omegaconf": {"runs"},
    "lightning": {"training", "runs"},
    "wandb": {"report", "runs"},
    "matplotlib": {"report"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            if node.module == "clip_xai":
                yield from (f"clip_xai.{alias.name}" for alias in node.names)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_from_rooms_below_it_only(path: Path) -> None:
    room = room_of(path)
    below = set(ROOMS[: ROOMS.index(room)]) if room in ROOMS else set()
    allowed = (below - NEVER.get(room, set())) | GROUND | {room, "__init__"}
    if room == "__init__":  # the front door leads to the top floor, and hands out captioners
        allowed |= {"runs", "models"}
    for name in imported(path):
        if name.startswith("clip_xai."):
            assert name.split(".")[1] in allowed, f"{path.relative_to(ROOT)} ({room}) reaches {name}"
        library = name.split(".")[0]
        assert room in LIBRARIES.get(library, {room}), f"{path.relative_to(ROOT)} ({room}) imports {library}"


def test_every_folder_of_the_package_is_a_room() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert folders - {"assets"} == set(ROOMS)


@pytest.mark.parametrize("job", ["train", "evaluate", "explain"])
def test_entry_points_hold_no_logic(job: str) -> None:
    text = (ROOT / f"{job}.py").read_text()
    assert len(text.splitlines()) < 40
    assert {name for name in imported(ROOT / f"{job}.py") if name.startswith("clip_xai")} == {"clip_xai.runs.cli"}


def test_the_check_sees_an_upward_import(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f():\n    from clip_xai.runs import train\n    import clip_xai.report.html\n")
    assert list(imported(tmp_path / "a.py")) == ["clip_xai.runs", "clip_xai.report.html"]
