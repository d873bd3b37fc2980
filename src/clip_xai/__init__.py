"""CLIP-XAI: train, judge and explain vision-language models of skin photographs.

Example:
    >>> import clip_xai
    >>> backbone = clip_xai.load_backbone("tiny")
    >>> from PIL import Image
    >>> photograph = Image.new("RGB", (120, 90), (220, 180, 160))
    >>> texts = ["a photo of melanoma", "a photo of psoriasis"]
    >>> explanations = clip_xai.explain(backbone, photograph, texts, ["gradcam", "gradeclip", "occlusion"])
    >>> [(one.method, tuple(one.values.shape)) for one in explanations.attributions]
    [('gradcam', (1, 2, 12, 12)), ('gradeclip', (1, 2, 12, 12)), ('occlusion', (1, 2, 12, 12))]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clip_xai.api import Explanations, Run, explain, load_backbone, read_run, wrap_classifier
    from clip_xai.models.export import from_pretrained

__version__ = "0.1.0"
__all__ = ["Explanations", "Run", "explain", "from_pretrained", "load_backbone", "read_run", "wrap_classifier"]


def __getattr__(name: str) -> Any:
    """Load what was asked for at first use, so that ``import clip_xai`` costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "from_pretrained":
        from clip_xai.models import export

        return export.from_pretrained
    return getattr(importlib.import_module("clip_xai.api"), name)
