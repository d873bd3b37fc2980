"""The explainers, one file a family; each registers itself in ``clip_xai.xai.explainer.explainers``.

A new one is a new file in this folder: a class with a docstring, whose fields are its settings, decorated with its
name, its title and its group. Every class can be imported from here.
"""

from __future__ import annotations

from typing import Any

from clip_xai.xai.explainer import explainers


def __getattr__(name: str) -> Any:
    """Return the explainer of a class's name, from whichever file here it is."""
    if not name.startswith("_"):
        for method in explainers.values():
            if method.__name__ == name and method.__module__.startswith(f"{__name__}."):
                return method
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
