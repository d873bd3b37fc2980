"""The layers of the package: one imports from layers below it only, and Hydra and Lightning stay where they belong."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "clip_xai"
LAYERS = (  # from the ground up
    *("data", "models", "metrics", "config", "xai", "training", "report"),
    *("runs", "explanations", "tasks", "jobs", "api", "studies"),
)
GROUND = {"disk", "errors", "files", "page", "private_api", "progress", "ranges", "registry", "text"}
# Explanation is none of training's business, and the other way round; a report shows numbers that others computed;
# what a notebook imports starts no job.
NEVER = {
    "metrics": {"models"}, "training": {"xai"}, "xai": {"config", "metrics"}, "report": {"training", "config"},
    "api": {"jobs", "tasks", "config", "training"},
}  # fmt: skip
ABOVE_REPORT = set(LAYERS[LAYERS.index("report") + 1 :])
LIBRARIES = {
    "hydra": {"config", "jobs"},
    "omegaconf": {"config", "jobs"},
    "lightning": {"training", *ABOVE_REPORT},
    "wandb": {"report", "runs", "jobs"},
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


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_layer_imports_from_layers_below_it_only(path: Path) -> None:
    layer = layer_of(path)
    below = set(LAYERS[: LAYERS.index(layer)]) if layer in LAYERS else set()
    allowed = (below - NEVER.get(layer, set())) | GROUND | {layer, "__init__"}
    if layer == "__init__":  # what `import clip_xai` hands out
        allowed |= {"api", "models"}
    for name in imported(path):
        if name.startswith("clip_xai."):
            assert name.split(".")[1] in allowed, f"{path.relative_to(ROOT)} ({layer}) reaches {name}"
        library = name.split(".")[0]
        assert layer in LIBRARIES.get(library, {layer}), f"{path.relative_to(ROOT)} ({layer}) imports {library}"


def test_every_folder_of_the_package_is_a_layer() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert folders - {"assets"} == set(LAYERS) - {"api"}


@pytest.mark.parametrize("path", [p for p in modules() if layer_of(p) not in ("jobs", "studies")], ids=str)
def test_libraries_hold_no_program(path: Path) -> None:
    """Tables that ``python -m PACKAGE`` prints are in ``__main__.py``."""
    assert path.name == "__main__.py" or "__main__" not in path.read_text(), f"{path} is a program"


@pytest.mark.parametrize("path", [p for p in modules() if layer_of(p) not in ("jobs", "studies")], ids=str)
def test_no_library_imports_a_job_or_a_study(path: Path) -> None:
    assert not {name for name in imported(path) if name.startswith(("clip_xai.jobs", "clip_xai.studies"))}


@pytest.mark.parametrize("job", ["train", "evaluate", "explain"])
def test_entry_points_hold_no_logic(job: str) -> None:
    text = (ROOT / f"{job}.py").read_text()
    assert len(text.splitlines()) < 40
    assert {name for name in imported(ROOT / f"{job}.py") if name.startswith("clip_xai")} == {"clip_xai.config.cli"}


def test_the_check_sees_an_upward_import(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f():\n    from clip_xai.jobs import train\n    import clip_xai.report.html\n")
    assert list(imported(tmp_path / "a.py")) == ["clip_xai.jobs", "clip_xai.report.html"]
