"""The explainers, one file a family."""

from clip_xai.xai.methods.activation import GradCam
from clip_xai.xai.methods.attention import AttentionRollout, GradEclip
from clip_xai.xai.methods.perturbation import Occlusion
from clip_xai.xai.methods.text import TokenGradXInput

__all__ = ["AttentionRollout", "GradCam", "GradEclip", "Occlusion", "TokenGradXInput"]
