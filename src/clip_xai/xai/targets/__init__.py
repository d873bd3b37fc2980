"""What can be explained, one file a kind of score."""

from clip_xai.xai.targets.base import Target
from clip_xai.xai.targets.caption import CaptionContrastTarget, CaptionTarget
from clip_xai.xai.targets.caption_total import CaptionTotalTarget
from clip_xai.xai.targets.classes import ClassifierTarget, ClassTarget
from clip_xai.xai.targets.embedding import EmbeddingDimensionTarget
from clip_xai.xai.targets.similarity import ContrastTarget, SimilarityTarget

__all__ = [
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
