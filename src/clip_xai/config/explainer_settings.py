"""The settings of every explainer, read without importing one: a mistyped setting is refused at once.

Written by ``python -m clip_xai.jobs.generate`` from the explainers' own classes; change those, and run it again.
"""

# fmt: off
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from clip_xai.ranges import Checked, setting


@dataclass
class GradcamSettings(Checked):
    """Grad-CAM: ``xai.gradcam``."""

    prefix: ClassVar[str] = "xai.gradcam"

    layer: int = -1


@dataclass
class GradcamPlusplusSettings(Checked):
    """Grad-CAM++: ``xai.gradcam_plusplus``."""

    prefix: ClassVar[str] = "xai.gradcam_plusplus"

    layer: int = -1
    epsilon: float = setting(1e-06, least=0)


@dataclass
class LayercamSettings(Checked):
    """LayerCAM: ``xai.layercam``."""

    prefix: ClassVar[str] = "xai.layercam"

    layer: int = -1


@dataclass
class HirescamSettings(Checked):
    """HiResCAM: ``xai.hirescam``."""

    prefix: ClassVar[str] = "xai.hirescam"

    layer: int = -1


@dataclass
class ScorecamSettings(Checked):
    """Score-CAM: ``xai.scorecam``."""

    prefix: ClassVar[str] = "xai.scorecam"

    layer: int = -1
    weighting: str = setting("softmax", one_of=("softmax", "relu_delta", "linear"))
    temperature: float = setting(0.0, least=0)
    fill: float = 0.0
    chunk_size: int = setting(64, least=1)


@dataclass
class AblationcamSettings(Checked):
    """Ablation-CAM: ``xai.ablationcam``."""

    prefix: ClassVar[str] = "xai.ablationcam"

    layer: int = -1
    ablation: str = setting("zero", one_of=("zero", "mean"))
    chunk_size: int = setting(64, least=1)


@dataclass
class AbscamInitSettings(Checked):
    """Abs-CAM, initial: ``xai.abscam_init``."""

    prefix: ClassVar[str] = "xai.abscam_init"

    layer: int = -1


@dataclass
class AbscamFinalSettings(Checked):
    """Abs-CAM, final: ``xai.abscam_final``."""

    prefix: ClassVar[str] = "xai.abscam_final"

    layer: int = -1
    fill: float = 0.0
    chunk_size: int = setting(64, least=1)


@dataclass
class AttentionRolloutSettings(Checked):
    """Attention rollout: ``xai.attention_rollout``."""

    prefix: ClassVar[str] = "xai.attention_rollout"

    head_fusion: str = setting("mean", one_of=("mean", "max", "min"))


@dataclass
class AttentionGradientSettings(Checked):
    """Attention × gradient: ``xai.attention_gradient``."""

    prefix: ClassVar[str] = "xai.attention_gradient"

    start_layer: int = 0


@dataclass
class GradeclipSettings(Checked):
    """Grad-ECLIP: ``xai.gradeclip``."""

    prefix: ClassVar[str] = "xai.gradeclip"

    layer: int = -1
    layers: int = setting(1, least=1)
    heads: str = setting("per_head", one_of=("per_head", "single"))


@dataclass
class LegradSettings(Checked):
    """LeGrad: ``xai.legrad``."""

    prefix: ClassVar[str] = "xai.legrad"

    layers: int = setting(2, least=1)


@dataclass
class ClipSurgerySettings(Checked):
    """CLIP Surgery: ``xai.clip_surgery``."""

    prefix: ClassVar[str] = "xai.clip_surgery"

    layers: int = setting(6, least=1)
    redundancy: str = setting("empty", one_of=("empty", "texts", "none"))


@dataclass
class SaliencySettings(Checked):
    """Saliency: ``xai.saliency``."""

    prefix: ClassVar[str] = "xai.saliency"

    resolution: str = setting("patches", one_of=("patches", "pixels"))


@dataclass
class InputXGradientSettings(Checked):
    """Input × gradient: ``xai.input_x_gradient``."""

    prefix: ClassVar[str] = "xai.input_x_gradient"

    resolution: str = setting("patches", one_of=("patches", "pixels"))


@dataclass
class SmoothgradSettings(Checked):
    """SmoothGrad: ``xai.smoothgrad``."""

    prefix: ClassVar[str] = "xai.smoothgrad"

    samples: int = setting(32, least=1)
    noise: float = setting(0.15, least=0)
    squared: bool = False
    seed: int = setting(0, least=0)
    resolution: str = setting("patches", one_of=("patches", "pixels"))
    chunk_size: int = setting(16, least=1)


@dataclass
class IntegratedGradientsSettings(Checked):
    """Integrated gradients: ``xai.integrated_gradients``."""

    prefix: ClassVar[str] = "xai.integrated_gradients"

    steps: int = setting(32, least=1)
    baseline: str = setting("mean", one_of=("mean", "black", "white", "blur"))
    resolution: str = setting("patches", one_of=("patches", "pixels"))
    chunk_size: int = setting(16, least=1)


@dataclass
class GradientShapSettings(Checked):
    """GradientSHAP: ``xai.gradient_shap``."""

    prefix: ClassVar[str] = "xai.gradient_shap"

    samples: int = setting(32, least=1)
    noise: float = setting(0.0, least=0)
    baseline: str = setting("all", one_of=("all", "mean", "black", "white", "blur"))
    seed: int = setting(0, least=0)
    resolution: str = setting("patches", one_of=("patches", "pixels"))
    chunk_size: int = setting(16, least=1)


@dataclass
class GuidedBackpropSettings(Checked):
    """Guided backpropagation: ``xai.guided_backprop``."""

    prefix: ClassVar[str] = "xai.guided_backprop"

    resolution: str = setting("patches", one_of=("patches", "pixels"))


@dataclass
class EmbeddingSpaceSettings(Checked):
    """Embedding space: ``xai.embedding_space``."""

    prefix: ClassVar[str] = "xai.embedding_space"

    method: str = "input_x_gradient"
    mode: str = setting("collapsed", one_of=("collapsed", "per_dimension"))
    options: dict[str, Any] = field(default_factory=lambda: {})
    chunk_size: int = setting(64, least=1)


@dataclass
class OcclusionSettings(Checked):
    """Occlusion: ``xai.occlusion``."""

    prefix: ClassVar[str] = "xai.occlusion"

    window: int = setting(2, least=1)
    stride: int = setting(1, least=1)
    fill: float = 0.0
    chunk_size: int = setting(64, least=1)


@dataclass
class RiseSettings(Checked):
    """RISE: ``xai.rise``."""

    prefix: ClassVar[str] = "xai.rise"

    masks: int = setting(1000, least=2)
    cells: int = setting(7, least=1)
    keep: float = setting(0.5, above=0, below=1)
    kind: str = setting("bernoulli", one_of=("bernoulli", "gaussian"))
    spread: float = setting(0.25, least=0)
    normalisation: str = setting("centred", one_of=("centred", "paper"))
    fill: float = 0.0
    seed: int = setting(0, least=0)
    chunk_size: int = setting(64, least=1)


@dataclass
class KernelshapSettings(Checked):
    """KernelSHAP: ``xai.kernelshap``."""

    prefix: ClassVar[str] = "xai.kernelshap"

    players: str = setting("grid", one_of=("grid", "superpixels"))
    cells: int = setting(7, least=2)
    samples: int = setting(1000, least=1)
    fill: float = 0.0
    seed: int = setting(0, least=0)
    chunk_size: int = setting(64, least=1)


@dataclass
class ExtremalPerturbationSettings(Checked):
    """Extremal perturbation: ``xai.extremal_perturbation``."""

    prefix: ClassVar[str] = "xai.extremal_perturbation"

    areas: list[float] = setting(factory=lambda: [0.1], above=0, below=1)
    variant: str = setting("preserve", one_of=("preserve", "delete", "dual"))
    perturbation: str = setting("blur", one_of=("blur", "fade"))
    iterations: int = setting(200, least=1)
    cells: int = setting(32, least=1)
    smoothing: float = setting(3.0, above=0)
    blur: float = setting(0.09, above=0)
    scale: float = setting(0.0, least=0)
    jitter: bool = True
    chunk_size: int = setting(16, least=1)


@dataclass
class CciSettings(Checked):
    """CCI: ``xai.cci``."""

    prefix: ClassVar[str] = "xai.cci"

    clusters: int = setting(7, least=2)
    seed: int = setting(0, least=0)
    chunk_size: int = setting(64, least=1)


@dataclass
class M2ibSettings(Checked):
    """M2IB: ``xai.m2ib``."""

    prefix: ClassVar[str] = "xai.m2ib"

    layer: int = -3
    beta: float = setting(0.1, least=0)
    steps: int = setting(10, least=1)
    rate: float = setting(1.0, above=0)
    draws: int = setting(10, least=1)
    seed: int = setting(0, least=0)
    chunk_size: int = setting(64, least=1)


@dataclass
class FixlipSettings(Checked):
    """FIxLIP: ``xai.fixlip``."""

    prefix: ClassVar[str] = "xai.fixlip"

    index: str = setting("banzhaf", one_of=("banzhaf", "shapley"))
    presence: float = setting(0.5, above=0, below=1)
    cells: int = setting(7, least=1)
    images: int = setting(500, least=1)
    texts: int = setting(256, least=1)
    nodes: int = setting(4, least=1)
    absent: str = setting("delete", one_of=("delete", "pad"))
    fill: float = 0.0
    seed: int = setting(0, least=0)
    chunk_size: int = setting(64, least=1)


@dataclass
class TokenGradxinputSettings(Checked):
    """Token gradient × input: ``xai.token_gradxinput``."""

    prefix: ClassVar[str] = "xai.token_gradxinput"


@dataclass
class TokenIntegratedGradientsSettings(Checked):
    """Token integrated gradients: ``xai.token_integrated_gradients``."""

    prefix: ClassVar[str] = "xai.token_integrated_gradients"

    steps: int = setting(50, least=1)


@dataclass
class TokenOcclusionSettings(Checked):
    """Token occlusion: ``xai.token_occlusion``."""

    prefix: ClassVar[str] = "xai.token_occlusion"

    absent: str = setting("delete", one_of=("delete", "pad"))
    chunk_size: int = setting(64, least=1)


@dataclass
class TokenKernelshapSettings(Checked):
    """Token KernelSHAP: ``xai.token_kernelshap``."""

    prefix: ClassVar[str] = "xai.token_kernelshap"

    samples: int = setting(512, least=1)
    absent: str = setting("delete", one_of=("delete", "pad"))
    seed: int = setting(0, least=0)
    chunk_size: int = setting(64, least=1)


@dataclass
class TokenGradeclipSettings(Checked):
    """Grad-ECLIP on the text: ``xai.token_gradeclip``."""

    prefix: ClassVar[str] = "xai.token_gradeclip"

    layers: int = setting(8, least=1)


@dataclass
class TokenAttentionGradientSettings(Checked):
    """Attention × gradient on the text: ``xai.token_attention_gradient``."""

    prefix: ClassVar[str] = "xai.token_attention_gradient"

    start_layer: int = 0


@dataclass
class XaiConfig:
    """Which explainers, each with its settings; null for one that is not asked for."""

    gradcam: GradcamSettings | None = None
    gradcam_plusplus: GradcamPlusplusSettings | None = None
    layercam: LayercamSettings | None = None
    hirescam: HirescamSettings | None = None
    scorecam: ScorecamSettings | None = None
    ablationcam: AblationcamSettings | None = None
    abscam_init: AbscamInitSettings | None = None
    abscam_final: AbscamFinalSettings | None = None
    attention_rollout: AttentionRolloutSettings | None = None
    attention_gradient: AttentionGradientSettings | None = None
    gradeclip: GradeclipSettings | None = None
    legrad: LegradSettings | None = None
    clip_surgery: ClipSurgerySettings | None = None
    saliency: SaliencySettings | None = None
    input_x_gradient: InputXGradientSettings | None = None
    smoothgrad: SmoothgradSettings | None = None
    integrated_gradients: IntegratedGradientsSettings | None = None
    gradient_shap: GradientShapSettings | None = None
    guided_backprop: GuidedBackpropSettings | None = None
    embedding_space: EmbeddingSpaceSettings | None = None
    occlusion: OcclusionSettings | None = None
    rise: RiseSettings | None = None
    kernelshap: KernelshapSettings | None = None
    extremal_perturbation: ExtremalPerturbationSettings | None = None
    cci: CciSettings | None = None
    m2ib: M2ibSettings | None = None
    fixlip: FixlipSettings | None = None
    token_gradxinput: TokenGradxinputSettings | None = None
    token_integrated_gradients: TokenIntegratedGradientsSettings | None = None
    token_occlusion: TokenOcclusionSettings | None = None
    token_kernelshap: TokenKernelshapSettings | None = None
    token_gradeclip: TokenGradeclipSettings | None = None
    token_attention_gradient: TokenAttentionGradientSettings | None = None
    best: bool = False  # those that were judged to be the best for the model, too
