"""The explainers, one file a family, and all of them by name."""

from clip_xai.xai.explainer import Explainer
from clip_xai.xai.methods.ablation_cam import AblationCam
from clip_xai.xai.methods.activation import GradCam, GradCamPlusPlus, HiResCam, LayerCam
from clip_xai.xai.methods.attention import AttentionGradient, AttentionRollout, GradEclip
from clip_xai.xai.methods.bottleneck import M2ib
from clip_xai.xai.methods.cci import Cci
from clip_xai.xai.methods.embedding_space import EmbeddingSpace
from clip_xai.xai.methods.extremal import ExtremalPerturbation
from clip_xai.xai.methods.gradient import GuidedBackprop, InputXGradient, Saliency
from clip_xai.xai.methods.interactions import Fixlip
from clip_xai.xai.methods.kernel_shap import KernelShap
from clip_xai.xai.methods.legrad import LeGrad
from clip_xai.xai.methods.occlusion import Occlusion
from clip_xai.xai.methods.path import GradientShap, IntegratedGradients, SmoothGrad
from clip_xai.xai.methods.perturbed_cam import AbsCamFinal, AbsCamInit, ScoreCam
from clip_xai.xai.methods.rise import Rise
from clip_xai.xai.methods.surgery import ClipSurgery
from clip_xai.xai.methods.text_games import TokenKernelShap, TokenOcclusion
from clip_xai.xai.methods.text_methods import (
    TokenAttentionGradient,
    TokenGradEclip,
    TokenGradXInput,
    TokenIntegratedGradients,
)

# What they do to find the evidence: the sections in which reports show them.
GROUPS: dict[str, tuple[type[Explainer], ...]] = {
    "activation maps": (
        GradCam, GradCamPlusPlus, LayerCam, HiResCam, ScoreCam, AblationCam, AbsCamInit, AbsCamFinal,
    ),
    "attention": (AttentionRollout, AttentionGradient, GradEclip, LeGrad, ClipSurgery),
    "gradients": (
        Saliency, InputXGradient, SmoothGrad, IntegratedGradients, GradientShap, GuidedBackprop, EmbeddingSpace,
    ),
    "perturbation": (Occlusion, Rise, KernelShap, ExtremalPerturbation, Cci, M2ib),
    "patches and words together": (Fixlip,),
    "words": (
        TokenGradXInput, TokenIntegratedGradients, TokenOcclusion, TokenKernelShap, TokenGradEclip,
        TokenAttentionGradient,
    ),
}  # fmt: skip
METHODS: dict[str, type[Explainer]] = {method.name: method for group in GROUPS.values() for method in group}

__all__ = [
    "GROUPS",
    "METHODS",
    "AblationCam",
    "AbsCamFinal",
    "AbsCamInit",
    "AttentionGradient",
    "AttentionRollout",
    "Cci",
    "ClipSurgery",
    "EmbeddingSpace",
    "ExtremalPerturbation",
    "Fixlip",
    "GradCam",
    "GradCamPlusPlus",
    "GradEclip",
    "GradientShap",
    "GuidedBackprop",
    "HiResCam",
    "InputXGradient",
    "IntegratedGradients",
    "KernelShap",
    "LayerCam",
    "LeGrad",
    "M2ib",
    "Occlusion",
    "Rise",
    "Saliency",
    "ScoreCam",
    "SmoothGrad",
    "TokenAttentionGradient",
    "TokenGradEclip",
    "TokenGradXInput",
    "TokenIntegratedGradients",
    "TokenKernelShap",
    "TokenOcclusion",
]
