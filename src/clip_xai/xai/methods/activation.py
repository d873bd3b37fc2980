"""Class activation maps on the tokens of a ViT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clip_xai.xai.explainer import TraceExplainer
from clip_xai.xai.trace import Needs, Trace


@dataclass(frozen=True)
class GradCam(TraceExplainer):
    """Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391) on the patch tokens at ``ln_1`` of one block.

    With A_i in R^W the output of ``ln_1`` at patch i and s the score::

        w = mean_i ds/dA_i         H_i = ReLU(w . A_i)

    The place is the input of the block's attention because behind the last attention patch tokens no longer reach the
    class token: there the gradient is exactly zero, and so would be the map.

    Shapes: maps ``[B, T, h, w]``, raw. Cost for T targets: one forward pass and one batched backward pass from the
    read to the chosen block.

    Deviations from the published code: the class token counts neither in the channel mean nor in the map, and
    nothing is normalised, while pytorch-grad-cam scales every map to [0, 1].

    Attributes:
        layer: Block, -1 for the last.

    Raises:
        UserError: The gradient is exactly zero for some target.
    """

    layer: int = -1

    name: ClassVar[str] = "gradcam"
    linear_in_target: ClassVar[bool] = False

    def needs(self) -> Needs:
        """Activations of ``ln_1`` and their gradient."""
        return Needs(gradients=frozenset({(self.layer, "normed")}))

    def maps(self, trace: Trace) -> Tensor:
        """Return raw maps ``[B, T, h, w]``."""
        tokens = trace.block(self.layer).normed[:, 1:].detach().float()
        weights = trace.gradient(self.layer, "normed")[:, :, 1:].float().mean(dim=2)
        return torch.einsum("btw,bnw->btn", weights, tokens).relu().unflatten(-1, trace.grid)
