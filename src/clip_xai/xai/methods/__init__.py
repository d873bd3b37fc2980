"""The explainers, one file a family, and all of them by name."""

from clip_xai.xai.explainer import Explainer
from clip_xai.xai.methods.activation import GradCam
from clip_xai.xai.methods.attention import AttentionRollout, GradEclip
from clip_xai.xai.methods.perturbation import Occlusion
from clip_xai.xai.methods.rise import Rise
from clip_xai.xai.methods.shapley import KernelShap
from clip_xai.xai.methods.text import TokenGradXInput

METHODS: dict[str, type[Explainer]] = {
    method.name: method
    for method in (
        GradCam,
        AttentionRollout,
        GradEclip,
        Occlusion,
        Rise,
        KernelShap,
        TokenGradXInput,
    )
}  # fmt: skip

__all__ = [
    "METHODS",
    "AttentionRollout",
    "GradCam",
    "GradEclip",
    "KernelShap",
    "Occlusion",
    "Rise",
    "TokenGradXInput",
]
