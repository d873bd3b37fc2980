"""How the documentation is built: ``make docs``. Nothing here needs the network."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import clip_xai

DOCS = Path(__file__).resolve().parent
project = "CLIP-XAI"
author = "The CLIP-XAI developers"
copyright = "the CLIP-XAI developers, MIT licence"
version = release = clip_xai.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "CLIP-XAI"
html_static_path: list[str] = []
nitpicky = False
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

REFERENCE = {  # title -> packages and modules of the API reference; programs and the renderer have none
    "From Python": ("api", "errors"),
    "Data": ("data",),
    "Models": ("models",),
    "Backbones": ("models.backbones",),
    "Mappers": ("models.mappers",),
    "Explanation": ("xai",),
    "Explainers": ("xai.methods",),
    "Targets": ("xai.targets",),
    "Metrics": ("metrics",),
    "Training": ("training",),
    "Run directories and explanations": ("runs", "explanations"),
}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

TABLES = {  # what `python -m PACKAGE` prints, drawn into a page where it says <!-- table: NAME -->
    "backbones": ("clip_xai.models.backbones.backbone_table", "markdown"),
    "mappers": ("clip_xai.models.mappers.mapper_table", "mapper_table"),
    "explainers": ("clip_xai.xai.explainer_table", "markdown"),
}


def draw_tables(app: Sphinx, name: str, source: list[str]) -> None:
    """Replace each table's mark by the table that the code prints, so that no page repeats it by hand."""
    for table, (module, function) in TABLES.items():
        mark = f"<!-- table: {table} -->"
        if mark in source[0]:
            source[0] = source[0].replace(mark, getattr(importlib.import_module(module), function)())


def write_reference(app: Sphinx) -> None:
    """Write one page for each part of the API reference; nothing in them is kept in the repository."""
    folder, package = DOCS / "api", DOCS.parent / "src" / "clip_xai"
    folder.mkdir(exist_ok=True)
    names = []
    for title, parts in REFERENCE.items():
        lines = [title, "=" * len(title), ""]
        for part in parts:
            place = package.joinpath(*part.split("."))
            modules = sorted(path.stem for path in place.glob("[!_]*.py"))
            for module in [f"{part}.{name}" for name in modules] or [part]:
                name = f"clip_xai.{module}"
                lines += [name, "-" * len(name), "", f".. automodule:: {name}", "   :members:", ""]
        names.append(parts[0].replace(".", "_"))
        _write(folder / f"{names[-1]}.rst", lines)
    _write(folder / "modules.rst", ["API reference", "=============", "", ".. toctree::", "   :titlesonly:", ""]
           + [f"   {name}" for name in names])  # fmt: skip


def look_up_whole_names(app: Sphinx, page: nodes.document) -> None:
    """Let a type in a signature be found by its whole name alone: a search by endings takes half of the build."""
    for reference in page.findall(addnodes.pending_xref):
        if reference.get("refspecific") is False:
            del reference["refspecific"]


def _write(path: Path, lines: list[str]) -> None:
    """Write a page if it is not there as it is, so that a second build is quick."""
    text = "\n".join(lines) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Sphinx calls this once."""
    app.connect("builder-inited", write_reference)
    app.connect("source-read", draw_tables)
    app.connect("doctree-read", look_up_whole_names)
