"""The examples in the docstrings run."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["attributes", "caption_metrics", "intervals"])
def test_examples_run(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"clip_xai.metrics.{name}"))
    assert found.attempted > 0
    assert found.failed == 0
