"""What is declared about every explainer: its row in the table, its docstring, its examples."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import clip_xai.xai.methods
import clip_xai.xai.targets
from clip_xai.xai.explainer import explainers
from clip_xai.xai.explainer_table import markdown

MODULES = [
    *("attribution", "examples", "explainer", "pixels", "perturbation_bank", "trace", "words"),
    *(f"methods.{module.name}" for module in pkgutil.iter_modules(clip_xai.xai.methods.__path__)),
    *(f"targets.{module.name}" for module in pkgutil.iter_modules(clip_xai.xai.targets.__path__)),
]


def test_the_table_has_a_whole_row_for_every_explainer() -> None:
    head, _, *rows = markdown().splitlines()
    assert [row.split("`")[1] for row in rows] == list(explainers)
    for row in rows:
        cells = [cell.strip() for cell in row.replace("\\|", "").strip("|").split("|")]
        assert len(cells) == head.count("|") - 1 and all(cells[:5])


@pytest.mark.parametrize("name", explainers)
def test_every_explainer_declares_itself(name: str) -> None:
    method = explainers[name]
    assert method.name == name and method.cost
    assert isinstance(method.text_dependent, bool) and isinstance(method.linear_in_target, bool)
    assert method(**method().settings) == method()
    documented = method.__doc__ or ""
    for part in ("Shapes", "Cost", "Deviations", ">>>"):
        assert part in documented, f"{name} does not document {part}"
    for setting in method().settings:
        assert f"{setting}:" in documented


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"clip_xai.xai.{name}")).failed == 0
