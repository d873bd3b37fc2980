"""What is to be explained: differentiable scores of what an image tower hands over; see ``clip_xai.xai.targets``."""

from clip_xai.xai.targets import (
    CaptionContrastTarget,
    CaptionTarget,
    CaptionTotalTarget,
    ClassifierTarget,
    ClassTarget,
    ContrastTarget,
    EmbeddingDimensionTarget,
    SimilarityTarget,
    Target,
)
from clip_xai.xai.targets.similarity import KINDS

__all__ = [
    "KINDS",
    "CaptionContrastTarget",
    "CaptionTarget",
    "CaptionTotalTarget",
    "ClassTarget",
    "ClassifierTarget",
    "ContrastTarget",
    "EmbeddingDimensionTarget",
    "SimilarityTarget",
    "Target",
]
