"""Class activation maps whose channel weights come from masking the image or from ablating the channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.base import Backbone
from clip_xai.models.backbones.trace import Point, VisualTrace, evaluation_mode
from clip_xai.models.backbones.transformer import Block, TransformerTower
from clip_xai.xai.explainer import BankExplainer
from clip_xai.xai.masks import ActivationMasks
from clip_xai.xai.methods.activation import ActivationMap, cam_point
from clip_xai.xai.perturbation import PerturbationBank
from clip_xai.xai.target import Target
from clip_xai.xai.trace import Needs, Trace

WEIGHTINGS = ("softmax", "relu_delta", "linear")
ABLATIONS = ("zero", "mean")


@dataclass(frozen=True)
class ScoreCam(BankExplainer):
    """Score-CAM (Wang et al., CVPR Workshops 2020, arXiv 1910.01279) on the tokens that enter one block's attention.

    With A_k channel k of the patch tokens after the norm in front of attention (of a convolutional tower: of a stage's
    output), enlarged to the image and scaled to [0, 1] as M_k, and x_b the image of the fill alone::

        y_k = s(x * M_k)
        softmax       w = softmax over k of  temperature * y_k
        relu_delta    w_k = ReLU( y_k - s(x_b) )
        linear        w_k = y_k - s(x_b)
        H = ReLU( sum over k of w_k A_k )

    The softmax is the paper's, which subtracts s(x_b) first: that changes no softmax. Cosines of masked copies of one
    image lie so close together that their softmax is nearly uniform, and the map the same for every text; so a cosine
    is multiplied by the model's own tau first, as CLIP does before every softmax. ``temperature`` set to 1 gives the
    plain form.

    Shapes: maps ``[B, T, h, w]``, raw. Cost: one forward pass for each of C channels, for the image and for the fill,
    shared by all T targets; no backward pass. The result does not depend on ``chunk_size``.

    Deviations from pytorch-grad-cam: masks are enlarged with the same alignment as the final map (``align_corners``
    False; there the two differ), a constant channel masks everything, and the map is not scaled to [0, 1].

    Attributes:
        layer: Block, -1 for the last.
        weighting: ``"softmax"``, ``"relu_delta"`` or ``"linear"``.
        temperature: Factor in the softmax; 0 for the model's tau where the score is a cosine, and else 1.
        fill: Normalised value where a mask is 0; 0 is the mean colour of the tower's training data.
        chunk_size: Masked images in one forward pass; halved when memory runs out.

    Raises:
        UserError: The weighting is unknown.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> ScoreCam().explain(*example()).values.shape
        torch.Size([2, 2, 4, 4])
    """

    layer: int = -1
    weighting: str = "softmax"
    temperature: float = 0.0
    fill: float = 0.0
    chunk_size: int = 64

    name: ClassVar[str] = "scorecam"
    linear_in_target: ClassVar[bool] = False
    cost: ClassVar[str] = "C + 2 F"

    def __post_init__(self) -> None:
        if self.weighting not in WEIGHTINGS:
            raise UserError(f"xai.scorecam.weighting={self.weighting}: choose one of {', '.join(WEIGHTINGS)}")

    def maps(self, bank: PerturbationBank, target: Target, trace: Trace | None) -> tuple[Tensor, Tensor]:
        """Return raw maps ``[B, T, h, w]`` and the scores of the images."""
        channels = channels_of(bank.backbone, bank.pixels, self.layer)
        masks = ActivationMasks(channels, ("activations", *cam_point(bank.backbone, self.layer)))
        masked = bank.scores(masks, target, fill=self.fill, chunk_size=self.chunk_size)
        if self.weighting == "softmax":
            weights = (self._scale(bank.backbone, target) * masked).softmax(dim=1)
        else:
            nothing = torch.zeros(1, 1, 1)
            weights = masked - bank.scores(nothing, target, fill=self.fill)
            weights = weights.relu() if self.weighting == "relu_delta" else weights
        return torch.einsum("bct,bchw->bthw", weights, channels).relu(), bank.whole_scores(target)

    def _scale(self, backbone: Backbone, target: Target) -> float:
        if self.temperature:
            return self.temperature
        return float(backbone.logit_scale.detach()) if target.settings.get("kind") == "cosine" else 1.0


@dataclass(frozen=True)
class AbsCamInit(ActivationMap):
    """The initial map of Abs-CAM (Zeng et al., Visual Computer 2023, arXiv 2207.03648).

    With A_ik channel k at patch i of the tokens that enter one block's attention and s the score::

        w_k = mean over patches i of | ds/dA_ik |         H_i = sum over k of  w_k A_ik

    Shapes: maps ``[B, T, h, w]``, signed: the released code takes no ReLU here. Cost for T targets: one forward pass
    and one batched backward pass from the read to the chosen block.

    Deviations from the published code: nothing is scaled to [0, 1].

    Attributes:
        layer: Block, -1 for the last.

    Raises:
        UserError: The gradient is exactly zero for some target.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> AbsCamInit().explain(*example()).values.shape
        torch.Size([2, 2, 4, 4])
    """

    name: ClassVar[str] = "abscam_init"

    def combined(self, tokens: Tensor, gradients: Tensor) -> Tensor:
        """Weigh channels by the mean size of their gradient."""
        return torch.einsum("btw,bnw->btn", gradients.abs().mean(dim=2), tokens)


@dataclass(frozen=True)
class AbsCamFinal(BankExplainer):
    """The final map of Abs-CAM (Zeng et al., Visual Computer 2023, arXiv 2207.03648).

    With w_k and A_k as in ``abscam_init`` and minmax scaling each channel of each image to [0, 1]::

        M_k = minmax( enlarged w_k A_k )         y_k = | s(x * M_k) |         H = ReLU( sum over k of  y_k M_k )

    Because w_k is not negative, M_k is minmax(A_k) wherever w_k > 0: the masked images are the same for all targets,
    and those of Score-CAM at the same layer, whose forward passes are shared. Where w_k is 0 for some target, its mask
    keeps nothing and adds nothing.

    Shapes: maps ``[B, T, h, w]``, raw: the mean over the pixels of each patch. Cost: one forward pass, one batched
    backward pass to the chosen block, and one forward pass for each of C channels, shared by all T targets (the
    published code runs T times C of them, all in one batch). The result does not depend on ``chunk_size``.

    Deviations from the published code: none in the map; as released, it too lacks a closing min-max. Refused for
    log-probabilities: they are negative, so that the sizes y_k would weigh most what explains least.

    Attributes:
        layer: Block, -1 for the last.
        fill: Normalised value where a mask is 0; 0 is the mean colour of the tower's training data.
        chunk_size: Masked images in one forward pass; halved when memory runs out.

    Raises:
        UserError: The gradient is exactly zero for some target.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> AbsCamFinal().explain(*example()).values.shape
        torch.Size([2, 2, 4, 4])
    """

    layer: int = -1
    fill: float = 0.0
    chunk_size: int = 64

    name: ClassVar[str] = "abscam_final"
    linear_in_target: ClassVar[bool] = False
    cost: ClassVar[str] = "C + 1 F, 1 batched B down to the block"

    def refusal(self, backbone: Backbone, target: Target) -> str | None:
        """Return why the method is not defined; see the base class."""
        if target.score_name == "log-probability":
            return "weighs masks by the size of the score, which for a log-probability is largest for the worst"
        return super().refusal(backbone, target)

    def needs(self, backbone: Backbone, target: Target) -> Needs:
        """Activations at one point and their gradient."""
        return Needs(gradients=frozenset({cam_point(backbone, self.layer)}))

    def maps(self, bank: PerturbationBank, target: Target, trace: Trace | None) -> tuple[Tensor, Tensor]:
        """Return raw maps ``[B, T, h, w]`` and the scores of the images."""
        assert trace is not None
        layer, name = cam_point(bank.backbone, self.layer)
        prefix = trace.prefix_tokens if trace.tower.family == "transformer" else 0
        weights = trace.gradient(layer, name)[:, :, prefix:].float().abs().mean(dim=2)
        channels = _channels(trace.tower, (layer, name))
        masks = ActivationMasks(channels, ("activations", layer, name))
        scores = bank.scores(masks, target, fill=self.fill, chunk_size=self.chunk_size).abs()
        scores = scores * (weights > 0).transpose(1, 2)
        values = []
        for image in range(len(channels)):
            cells = masks.cells(image, bank.pixels.shape[-1], bank.backbone.grid)
            values.append(torch.einsum("ct,chw->thw", scores[image], cells).relu())
        return torch.stack(values), bank.whole_scores(target)


@dataclass(frozen=True)
class AblationCam(BankExplainer):
    """Ablation-CAM (Desai and Ramaswamy, WACV 2020) on the tokens that enter one block's attention.

    With A_k channel k of all tokens after the norm in front of attention, and s_k the score once A_k is replaced::

        w_k = ( s - s_k ) / |s|         H = ReLU( sum over k of w_k A_k )

    At the last block of a tower that reads its class token there is a closed form: replacing a channel is a change of
    rank one in the queries, keys and values, and only the class token's row of attention counts. So all C ablations
    together cost one forward pass, C rows of attention and C rows of the last feed-forward part.

    Shapes: maps ``[B, T, h, w]``, raw. Cost: in closed form one forward pass and less than one block of C tokens;
    elsewhere one forward pass up to the block and C passes from there on; shared by all T targets; no backward pass.

    Deviations from the paper: it divides by s, which turns the map over where the score is negative (every
    log-probability is); here by its size. Deviations from pytorch-grad-cam: a channel is replaced by 0 or its mean,
    there by its smallest value minus 1e7, which is no ablation of signed tokens; the model is not changed meanwhile.

    Attributes:
        layer: Block, -1 for the last.
        ablation: What a channel is replaced by: ``"zero"``, or ``"mean"``, its mean over the image's tokens.
        chunk_size: Ablated images in one pass; halved when memory runs out.

    Raises:
        UserError: The ablation is unknown, the tower has no attention over all tokens, or a score is exactly 0.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> AblationCam().explain(*example()).values.shape
        torch.Size([2, 2, 4, 4])
    """

    layer: int = -1
    ablation: str = "zero"
    chunk_size: int = 64

    name: ClassVar[str] = "ablationcam"
    linear_in_target: ClassVar[bool] = False
    needs_of_tower: ClassVar[frozenset[str]] = frozenset({"attention"})
    cost: ClassVar[str] = "1 F at the last block in closed form, else C F from the block on"

    def __post_init__(self) -> None:
        if self.ablation not in ABLATIONS:
            raise UserError(f"xai.ablationcam.ablation={self.ablation}: choose one of {', '.join(ABLATIONS)}")

    def maps(self, bank: PerturbationBank, target: Target, trace: Trace | None) -> tuple[Tensor, Tensor]:
        """Return raw maps ``[B, T, h, w]`` and the scores of the images."""
        tower = bank.backbone.image_tower
        assert isinstance(tower, TransformerTower)
        whole = bank.whole_scores(target)
        if (whole == 0).any():
            raise UserError("a score is exactly 0, so that no share of it can be told: choose scorecam or gradcam")
        with evaluation_mode(tower.module), torch.no_grad():
            tokens, layer = _tokens_before(tower, bank.pixels, self.layer)
            block = tower.blocks[layer]
            normed = block.normed(tokens)
            instead = normed.mean(dim=1) if self.ablation == "mean" else torch.zeros_like(normed[:, 0])
            scores = []
            for image in range(len(tokens)):
                one = (tokens[image : image + 1], normed[image : image + 1], instead[image : image + 1])
                parts = self._ablated(tower, layer, *one, target.reads)
                scores.append(torch.cat([target.score(part).float() for part in parts]))
        weights = (whole[:, None] - torch.stack(scores)) / whole[:, None].abs()
        channels = normed[:, tower.prefix_tokens :].float().unflatten(1, tower.grid)
        return torch.einsum("bct,bhwc->bthw", weights, channels).relu(), whole

    def _ablated(
        self, tower: TransformerTower, layer: int, tokens: Tensor, normed: Tensor, instead: Tensor, reads: str
    ) -> list[Tensor]:
        """What the tower hands over for one image with each channel replaced, in chunks."""
        blocks = tower.blocks
        last = layer == len(blocks) - 1 and tower.reads_class_token and reads == "pooled"
        if last:
            context = _ablated_context(blocks[layer], normed, normed - instead[:, None])
            if context is not None:
                rows = tokens[:, :1].expand(-1, context.shape[2], -1)
                attended = blocks[layer].project(context.transpose(1, 2).flatten(2))
                outputs = blocks[layer].finish(rows, attended)
                return [tower.pooled(outputs[0][:, None])]
        parts = []
        first, size = 0, self.chunk_size
        while first < normed.shape[-1]:
            channels = torch.arange(first, min(first + size, normed.shape[-1]), device=normed.device)
            try:
                parts.append(self._tail(tower, layer, tokens, normed, instead, channels, reads))
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                size = (size + 1) // 2
                continue
            first += len(channels)
        return parts

    @staticmethod
    def _tail(
        tower: TransformerTower,
        layer: int,
        tokens: Tensor,
        normed: Tensor,
        instead: Tensor,
        channels: Tensor,
        reads: str,
    ) -> Tensor:
        blocks = tower.blocks
        changed = normed.repeat(len(channels), 1, 1)
        each = torch.arange(len(channels), device=channels.device)
        changed[each, :, channels] = instead[0, channels, None]
        query, key, value = blocks[layer].query_key_value(changed, slice(None))
        context = F.scaled_dot_product_attention(query, key, value)
        attended = blocks[layer].project(context.transpose(1, 2).flatten(2))
        outputs = blocks[layer].finish(tokens.expand(len(channels), -1, -1), attended)
        for block in blocks[layer + 1 :]:
            outputs = block.run(outputs, None)
        return tower.read(outputs, reads)


def channels_of(backbone: Backbone, pixels: Tensor, layer: int) -> Tensor:
    """Return the channels that a CAM reads at a layer, ``[B, C, h, w]`` in float32, from one pass of the tower."""
    return _channels(backbone.trace(pixels, record=(layer,)), cam_point(backbone, layer))


def _channels(tower: VisualTrace, point: Point) -> Tensor:
    layer, name = point
    tokens = (tower.block(layer).normed if name == "normed" else tower.block(layer).computed).detach().float()
    tokens = tokens[:, tower.prefix_tokens :] if tower.family == "transformer" else tokens
    return tokens.transpose(1, 2).unflatten(2, tower.grid_of(layer))


def _tokens_before(tower: TransformerTower, pixels: Tensor, layer: int) -> tuple[Tensor, int]:
    """What enters a block, and the block's own index."""
    blocks = tower.blocks
    if not -len(blocks) <= layer < len(blocks):
        raise UserError(f"the tower has {len(blocks)} blocks: choose a layer from {-len(blocks)} to {len(blocks) - 1}")
    layer %= len(blocks)
    tokens = tower.embed(pixels)
    for block in blocks[:layer]:
        tokens = block.run(tokens, None)
    return tokens, layer


def _ablated_context(block: Block, normed: Tensor, change: Tensor) -> Tensor | None:
    """The class token's context for each channel taken away, ``[1, H, C, d]``; None if the projections are not affine.

    With a = what is taken away from each token in channel k, and q0, k_j, v_j the class token's query and the tokens'
    keys and values, the ablated ones are  q0 - a_0 Wq_k,  k_j - a_j Wk_k  and  v_j - a_j Wv_k.
    """
    query, key, value = (part.float() for part in block.query_key_value(normed, slice(None)))
    units = torch.eye(normed.shape[-1], dtype=normed.dtype, device=normed.device)[None]
    offset = [part.float() for part in block.query_key_value(torch.zeros_like(units[:, :1]), slice(None))]
    columns = [
        part.float() - bias for part, bias in zip(block.query_key_value(units, slice(None)), offset, strict=True)
    ]
    for part, column, bias in zip((query, key, value), columns, offset, strict=True):
        again = normed.float() @ column.transpose(1, 2).flatten(2)[0]
        again = again.unflatten(-1, (part.shape[1], -1)).transpose(1, 2) + bias
        if (again - part).abs().max() > 100 * torch.finfo(normed.dtype).eps * part.abs().max():
            return None
    to_query, to_key, to_value = (column[0] for column in columns)  # [H, C, d]
    query, key, value, taken = query[0, :, 0], key[0], value[0], change[0].float()  # [H, d], [H, S, d] twice, [S, C]
    products = torch.einsum("hd,hsd->hs", query, key)[:, None] - taken[0][None, :, None] * (
        to_query @ key.transpose(1, 2)
    )
    by_key = torch.einsum("hd,hcd->hc", query, to_key) - taken[0] * (to_query * to_key).sum(dim=-1)
    products = products - taken.T[None] * by_key[..., None]
    attention = (products / query.shape[-1] ** 0.5).softmax(dim=-1)  # [H, C, S]
    context = attention @ value - (attention * taken.T).sum(dim=-1, keepdim=True) * to_value
    return context[None].to(normed.dtype)
