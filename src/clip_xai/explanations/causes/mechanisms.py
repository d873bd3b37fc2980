"""Known mechanisms: a transformer in which nothing crosses cells, under scores whose causes are known in closed form.

The tower is an open_clip ViT of two blocks without norms. A token is the mean colour c_i of its cell i beside a one-hot
position; queries and keys see positions alone, so that attention is the identity to the last bit; values pass the
colour; the feed-forward part is zero. Each patch token is then ``4 c_i``, and the score is a function of the patch
tokens. With a_p the mean red of the m cells of part p, 1 where the part is drawn and 0 where it is filled::

    linear = a_1        and = a_1 a_2        or = a_1 + a_2 - a_1 a_2        constant = 0

Truth is the Shapley value of the parts for fill 0: linear (1, 0), and (1/2, 1/2), or (1/2, 1/2), constant (0, 0).

What methods must give, with a_1 = a_2 = 1 in the picture and red 0 elsewhere. The gradient ``ds/da`` is (1, 0) of
linear, (1, 1) of and, **(0, 0) of or**: in the saturated picture no single part moves the score.

- Gradient (saliency) and everything that multiplies it by a quantity of the same cell - input x gradient, LayerCAM,
  HiResCAM, guided backpropagation, attention x gradient and Grad-ECLIP (identity attention, so ``ReLU(g_i v_i)``): on
  part 1 alone of linear; (1, 1) of and, twice the truth, in equal shares; blank of or.
- Integrated gradients along ``alpha x``: ``ds/da = (alpha, alpha)`` of and, ``(1 - alpha, 1 - alpha)`` of or; both
  integrate to 1/2 and the midpoint rule is exact: the truth, every time.
- Grad-CAM weighs channels by the gradient's mean over cells, so the red of both parts weighs alike: of linear **half
  its heat lies on the part that does nothing**; (1/2, 1/2) in shares of and; blank of or.
- LeGrad keeps ``ReLU(ds/dA_ij) = ReLU(g_i v_j)`` off the diagonal, where attention is zero: it spreads likewise, half
  of linear on part 2. It scores each block's own output, and after the first one a_p is 1/2, where or is not saturated
  yet: (1/2, 1/2) in shares of or.
- Occlusion of single cells: linear (1, 0); and (1, 1); or (0, 0), as for the gradient: the game of single removals.
- KernelSHAP over nine cells takes all 510 coalitions: the Shapley value of the cells, which adds up to that of the
  parts for linear and for and, and to (1/2, 1/2) of or by symmetry: exact.
- Rollout reads the class token, which attends to itself alone: blank of everything.
- Constant: every gradient is exactly zero, and methods refuse or are blank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from clip_xai.errors import UserError
from clip_xai.explanations.map_evidence import heat_of
from clip_xai.models.backbones.backbone_builder import tiny_backbone
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.xai.explainer import Explainer
from clip_xai.xai.target import Target

SIDE, CELL = 24, 8
GRID = (SIDE // CELL, SIDE // CELL)
PARTS = ((0, 1), (5, 8))  # cells of the two parts, row by row
MECHANISMS = ("linear", "and", "or", "constant")
TRUTH = {"linear": (1.0, 0.0), "and": (0.5, 0.5), "or": (0.5, 0.5), "constant": (0.0, 0.0)}
_SHARP = 100.0  # queries and keys: a softmax of 2500 against 0 is one-hot in single precision
_COLOURS, _BLOCKS = 3, 2


@dataclass(frozen=True)
class Expected:
    """What a method must give on a mechanism, by derivation.

    Attributes:
        shares: Share of the map's positive mass on part 1 and on part 2; None for a blank map or a refusal.
        values: The sums over the parts themselves, where the method estimates a quantity of the score's own unit.
    """

    shares: tuple[float, float] | None
    values: tuple[float, float] | None = None


_FIRST, _BOTH = (1.0, 0.0), (0.5, 0.5)
_LOCAL = {"linear": Expected(_FIRST), "and": Expected(_BOTH), "or": Expected(None), "constant": Expected(None)}
_SPREAD = _LOCAL | {"linear": Expected(_BOTH)}
_BY_BLOCK = _SPREAD | {"or": Expected(_BOTH)}
_SINGLE = {
    "linear": Expected(_FIRST, (1.0, 0.0)), "and": Expected(_BOTH, (1.0, 1.0)),
    "or": Expected(None, (0.0, 0.0)), "constant": Expected(None, (0.0, 0.0)),
}  # fmt: skip
_SHAPLEY = {
    name: Expected(None if name == "constant" else _FIRST if name == "linear" else _BOTH, truth)
    for name, truth in TRUTH.items()
}
_BLANK = dict.fromkeys(MECHANISMS, Expected(None))
#: Method -> mechanism -> what it must give.
EXPECTED: dict[str, dict[str, Expected]] = {
    "saliency": _LOCAL,
    "input_x_gradient": _SINGLE,
    "guided_backprop": _LOCAL,
    "layercam": _LOCAL,
    "hirescam": _LOCAL,
    "attention_gradient": _LOCAL,
    "gradeclip": _LOCAL,
    "gradcam": _SPREAD,
    "legrad": _BY_BLOCK,
    "integrated_gradients": _SHAPLEY,
    "occlusion": _SINGLE,
    "kernelshap": _SHAPLEY,
    "attention_rollout": _BLANK,
}
#: Settings that a tower of nine cells needs, where a method's own are of more of them.
ADAPTED = {"occlusion": {"window": 1, "stride": 1}, "kernelshap": {"cells": 3}}
_EXACT = 1e-3


class MechanismTarget(Target):
    """One of ``MECHANISMS`` of the two parts of a picture.

    Example:
        >>> target = MechanismTarget("or")
        >>> target.score(torch.zeros(1, 9, 16)).tolist()
        [[0.0]]
    """

    name, reads, score_name = "mechanism", "patches", "mechanism"

    def __init__(self, mechanism: str) -> None:
        """Take the name of a mechanism."""
        self.mechanism = mechanism
        self.labels = [mechanism]

    def score(self, read: Tensor) -> Tensor:
        """Return the score ``[B, 1]`` of patch tokens ``[B, 9, W]``."""
        red = read[..., 0] / 2**_BLOCKS  # each block adds what is there once more
        first, second = (red[:, list(cells)].mean(dim=1) for cells in PARTS)
        scores = {"linear": first, "and": first * second, "or": first + second - first * second}
        return scores.get(self.mechanism, 0 * first)[:, None]


def mechanism_tower() -> OpenClipBackbone:
    """Build the tower in which nothing crosses cells."""
    tokens = 1 + GRID[0] * GRID[1]
    width = 16
    tokenizer = CaptionTokenizer.train(["nothing is read"], vocabulary_size=260)
    vision = {"image_size": SIDE, "patch_size": CELL, "width": width, "layers": _BLOCKS, "head_width": width}
    text = {"context_length": 8, "vocab_size": tokenizer.vocabulary_size, "width": 16, "heads": 2, "layers": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = tiny_backbone({"embed_dim": width, "vision_cfg": vision, "text_cfg": text}, tokenizer)
    visual: Any = backbone.model.visual
    visual.ln_pre, visual.ln_post = nn.Identity(), nn.Identity()
    for block in visual.transformer.resblocks:
        block.ln_1, block.ln_2 = nn.Identity(), nn.Identity()
    with torch.no_grad():
        for parameter in visual.parameters():
            parameter.zero_()
        for colour in range(_COLOURS):
            visual.conv1.weight[colour, colour] = 1 / CELL**2
        positions = torch.arange(_COLOURS, _COLOURS + tokens)
        visual.positional_embedding[torch.arange(tokens), positions] = 1.0
        for block in visual.transformer.resblocks:
            query, key, value = block.attn.in_proj_weight.chunk(3)
            for matrix in (query, key):
                matrix[positions, positions] = _SHARP
            for colour in range(_COLOURS):
                value[colour, colour] = 1.0
            block.attn.out_proj.weight.copy_(torch.eye(width))
        visual.proj.copy_(torch.eye(width))
    return backbone.eval().requires_grad_(False)


def mechanism_picture() -> Tensor:
    """Return the picture ``[1, 3, S, S]``: red 1 on both parts and 0 elsewhere, noise in the colours nobody reads."""
    cells = torch.zeros(GRID[0] * GRID[1])
    cells[[cell for part in PARTS for cell in part]] = 1.0
    red = cells.view(GRID).repeat_interleave(CELL, 0).repeat_interleave(CELL, 1)
    others = torch.rand(2, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return torch.cat([red[None], others])[None]


def on_parts(values: Tensor) -> tuple[float, float, float]:
    """Return the sums of a map ``[h, w]`` over part 1, part 2 and everything else."""
    flat = values.double().flatten()
    sums = [float(flat[list(cells)].sum()) for cells in PARTS]
    return sums[0], sums[1], float(flat.sum()) - sum(sums)


@dataclass(frozen=True)
class Given:
    """What a method gave on one mechanism.

    Attributes:
        method: Its name.
        mechanism: One of ``MECHANISMS``.
        shares: Share of its positive mass on part 1 and part 2; None for a blank map or a refusal.
        truth: The parts' own shares; None where no part has any.
        derived: Whether that is what was derived for it; None where nothing was.
    """

    method: str
    mechanism: str
    shares: tuple[float, float] | None
    truth: tuple[float, float] | None
    derived: bool | None

    @property
    def true(self) -> bool:
        """Whether the shares are the truth."""
        return _close(self.shares, self.truth)


def given(methods: Sequence[Explainer]) -> list[Given]:
    """Ask methods about every mechanism; those that are not defined for the tower are left out.

    Example:
        >>> from clip_xai.xai.methods import IntegratedGradients
        >>> [one.true for one in given([IntegratedGradients()])]
        [True, True, True, True]
    """
    tower, picture = mechanism_tower(), mechanism_picture()
    found = []
    for method in methods:
        asked = replace(method, **ADAPTED.get(method.name, {}))
        for mechanism in MECHANISMS:
            target = MechanismTarget(mechanism)
            if asked.refusal(tower, target) is not None:
                continue
            try:
                heat = heat_of(asked.explain(tower, picture, target), 0)
            except UserError:  # nothing reaches the score
                heat = torch.zeros(GRID)
            if heat is None:
                continue
            positive = on_parts(heat.nan_to_num().clamp(min=0))
            shares = (positive[0] / sum(positive), positive[1] / sum(positive)) if sum(positive) > 1e-6 else None
            total = sum(TRUTH[mechanism])
            truth = (TRUTH[mechanism][0] / total, TRUTH[mechanism][1] / total) if total else None
            known = EXPECTED.get(method.name)
            derived = None if known is None else _close(shares, known[mechanism].shares)
            found.append(Given(method.name, mechanism, shares, truth, derived))
    return found


def _close(one: tuple[float, float] | None, two: tuple[float, float] | None) -> bool:
    if one is None or two is None:
        return one is two
    return all(abs(a - b) <= _EXACT for a, b in zip(one, two, strict=True))
