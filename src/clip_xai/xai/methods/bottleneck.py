"""M2IB: how much information about each patch a score needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.chunks import in_chunks
from clip_xai.models.backbones.recording import evaluation_mode, outside_inference
from clip_xai.models.backbones.transformer import TransformerTower
from clip_xai.ranges import setting
from clip_xai.xai.explainer import BankExplainer, explainers
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import Target
from clip_xai.xai.trace import Trace


@explainers.register("m2ib", title="M2IB", group="perturbation", order=6)
@dataclass(frozen=True)
class M2ib(BankExplainer):
    """The image side of M2IB, multi-modal information bottleneck attribution (Wang, Rudner and Wilson, NeurIPS 2023).

    With Z the tokens after one block, gates lambda = sigmoid(alpha), one for each entry, and noise e ~ N(0, 1)::

        Z' = lambda Z + (1 - lambda) e         C = KL( N(lambda Z, (1 - lambda)^2) || N(0, 1) )   for each entry
        alpha minimises   beta mean(C) - mean over noise of s(Z')         H_i = sum over channels of C_i

    in ``steps`` steps of Adam from alpha = 5. The capacity C tells, in nats, how much of a patch the score needs.

    Shapes: maps ``[B, T, h, w]``, at least 0. Cost: one forward pass up to the block for each image, and ``steps``
    forward and backward passes through the blocks behind it for each target and noise draw. All images and targets meet
    the same noise, drawn from ``seed``, so that the result depends neither on the batch nor on ``chunk_size``.

    Deviations from the published code (which has no licence; this is written from the paper): the map is that of the
    final gates, not of those before the last step; the noise is seeded; the part of the tower in front of the block
    runs once; it works for any target, not for a cosine alone. The text side is not offered.

    Attributes:
        layer: Block after which the bottleneck stands; -3 is the paper's ninth of a tower of twelve, from 0.
        beta: Weight of the capacity.
        steps: Steps of Adam.
        rate: Its learning rate.
        draws: Noise draws in each step.
        seed: Seed of the noise.
        chunk_size: Noisy images in one pass; halved when memory runs out.

    Raises:
        UserError: The tower has no attention over all tokens, or nothing after the block.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> found = M2ib(layer=0).explain(*example())
        >>> bool((found.values > 0).all())
        True
    """

    reading: ClassVar[str] = "How much of each patch has to pass through noise for photograph and text to stay alike."

    layer: int = -3
    beta: float = setting(0.1, least=0)
    steps: int = setting(10, least=1)
    rate: float = setting(1.0, above=0)
    draws: int = setting(10, least=1)
    seed: int = setting(0, least=0)
    chunk_size: int = setting(64, least=1)

    every_word: ClassVar[bool] = False
    linear_in_target: ClassVar[bool] = False
    needs_of_tower: ClassVar[frozenset[str]] = frozenset({"attention"})
    cost: ClassVar[str] = "1 F, T x steps x draws (F + B) behind the block"

    def maps(self, bank: PerturbationBank, target: Target, trace: Trace | None) -> tuple[Tensor, Tensor]:
        """Return raw maps ``[B, T, h, w]`` and the scores of the images."""
        tower = bank.backbone.image_tower
        assert isinstance(tower, TransformerTower)
        depth = len(tower.blocks)
        if not -depth <= self.layer < depth or self.layer % depth == depth - 1:
            raise UserError(
                f"xai.m2ib.layer={self.layer} leaves no block of {depth} behind it: choose 0 to {depth - 2}"
            )
        layer = self.layer % depth
        whole = bank.whole_scores(target)
        size = max(1, self.chunk_size // self.draws)
        with evaluation_mode(bank.backbone), torch.inference_mode(False):
            with torch.no_grad():
                tokens = tower.embed(outside_inference(bank.pixels))
                for block in tower.blocks[: layer + 1]:
                    tokens = block.run(tokens, None)
            noise = self._noise(tokens)
            images, which = torch.cartesian_prod(*(torch.arange(n, device=tokens.device) for n in whole.shape)).T

            def capacities(rows: slice) -> Tensor:
                return self._capacities(tower, layer, tokens[images[rows]], which[rows], noise, target)

            found = torch.cat([part for _, part in in_chunks(capacities, len(images), size)])
        return found.unflatten(0, tuple(whole.shape)).unflatten(2, tower.grid), whole

    def _noise(self, tokens: Tensor) -> Tensor:
        """Noise of all steps, ``[steps, draws, S, W]``."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(self.steps, self.draws, *tokens.shape[1:], generator=generator).to(tokens.device)

    def _capacities(
        self, tower: TransformerTower, layer: int, tokens: Tensor, which: Tensor, noise: Tensor, target: Target
    ) -> Tensor:
        """The capacity of each patch ``[n, N]`` for some images ``[n, S, W]`` and one target each."""
        whole = tokens.float()
        rows = torch.arange(len(which), device=which.device).repeat_interleave(self.draws)
        with torch.enable_grad():
            alpha = torch.full_like(whole, 5.0).requires_grad_()
            optimiser = torch.optim.Adam([alpha], lr=self.rate)
            for noises in noise:
                gate = alpha.sigmoid()
                mixed = gate[:, None] * whole[:, None] + (1 - gate)[:, None] * noises
                outputs = mixed.flatten(0, 1).to(tokens.dtype)
                for block in tower.blocks[layer + 1 :]:
                    outputs = block.run(outputs, None)
                read = tower.read(outputs, target.reads)
                scores = target.score(read).float().gather(1, which[rows, None]).unflatten(0, (-1, self.draws))
                # Each row has its own gates, so the sum over rows lets each descend on its own.
                loss = (self.beta * _capacity(whole, alpha).mean(dim=(1, 2)) - scores.mean(dim=(1, 2))).sum()
                (alpha.grad,) = torch.autograd.grad(loss, alpha)
                optimiser.step()
        with torch.no_grad():
            return _capacity(whole, alpha).sum(dim=-1)[:, tower.prefix_tokens :]


def _capacity(tokens: Tensor, alpha: Tensor) -> Tensor:
    """KL of each entry's distribution to the standard normal one, in nats."""
    variance_log = 2 * F.logsigmoid(-alpha)  # log (1 - sigmoid(alpha))^2, also where that rounds to 0
    return ((alpha.sigmoid() * tokens).square() + variance_log.exp() - 1 - variance_log) / 2
