"""Ablation-CAM: channels weighted by what the score loses once they are replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.chunks import in_chunks
from clip_xai.models.backbones.recording import evaluation_mode
from clip_xai.models.backbones.stages import StagedTower
from clip_xai.models.backbones.tower import ImageTower
from clip_xai.models.backbones.transformer import Block, TransformerTower
from clip_xai.ranges import setting
from clip_xai.xai.explainer import BankExplainer, explainers
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import Target
from clip_xai.xai.trace import Trace

ABLATIONS = ("zero", "mean")


@explainers.register("ablationcam", title="Ablation-CAM", group="activation maps", order=6)
@dataclass(frozen=True)
class AblationCam(BankExplainer):
    """Ablation-CAM (Desai and Ramaswamy, WACV 2020) on the tokens that enter one block's attention.

    With A_k channel k of all tokens after the norm in front of attention (of a convolutional or windowed tower: of a
    block's output), and s_k the score once A_k is replaced::

        w_k = ( s - s_k ) / |s|         H = ReLU( sum over k of w_k A_k )

    At the last block of a tower that reads its class token there is a closed form: replacing a channel is a change of
    rank one in the queries, keys and values, and only the class token's row of attention counts. So all C ablations
    together cost one forward pass, C rows of attention and C rows of the last feed-forward part.

    Shapes: maps ``[B, T, h, w]``, raw, over the block's own grid. Cost: in closed form one forward pass and less than
    one block of C tokens; elsewhere one forward pass up to the block and C passes from there on; shared by all T
    targets; no backward pass.

    Deviations from the paper: it divides by s, which turns the map over where the score is negative (every
    log-probability is); here by its size. Deviations from pytorch-grad-cam: a channel is replaced by 0 or its mean,
    there by its smallest value minus 1e7 where tokens are signed, which is not an ablation of them; the model is not
    changed meanwhile.

    Attributes:
        layer: Block (or stage), -1 for the last.
        ablation: What a channel is replaced by: ``"zero"``, or ``"mean"``, its mean over the image's tokens.
        chunk_size: Ablated images in one pass; halved when memory runs out.

    Raises:
        UserError: The ablation is unknown, the tower's blocks cannot be opened, or a score is exactly 0.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> AblationCam().explain(*example()).values.shape
        torch.Size([2, 2, 4, 4])
    """

    reading: ClassVar[str] = "Activations weighted by how much the score falls when each is taken out."

    layer: int = -1
    ablation: str = setting("zero", one_of=ABLATIONS)
    chunk_size: int = setting(64, least=1)

    linear_in_target: ClassVar[bool] = False
    needs_of_tower: ClassVar[frozenset[str]] = frozenset({"output_gradients"})
    cost: ClassVar[str] = "1 F at the last block in closed form, else C F from the block on"

    def maps(self, bank: PerturbationBank, target: Target, trace: Trace | None) -> tuple[Tensor, Tensor]:
        """Return raw maps ``[B, T, h, w]`` and the scores of the images."""
        tower = bank.backbone.image_tower
        whole = bank.whole_scores(target)
        if (whole == 0).any():
            raise UserError("a score is exactly 0, so no share of it can be computed: choose scorecam or gradcam")
        with evaluation_mode(tower.module), torch.no_grad():
            opened = _opened(tower, bank.pixels, self.layer)
            tokens = opened.tokens
            instead = tokens.mean(dim=1) if self.ablation == "mean" else torch.zeros_like(tokens[:, 0])
            scores = [
                torch.cat([target.score(part).float() for part in self._ablated(opened, image, own, target.reads)])
                for image, own in enumerate(instead)
            ]
        weights = (whole[:, None] - torch.stack(scores)) / whole[:, None].abs()
        channels = tokens[:, opened.prefix_tokens :].float().unflatten(1, opened.grid)
        return torch.einsum("bct,bhwc->bthw", weights, channels).relu(), whole

    def _ablated(self, opened: _Opened, image: int, instead: Tensor, reads: str) -> Iterator[Tensor]:
        """What the tower hands over for one image with each channel replaced, in their order."""
        together = opened.together(image, instead, reads) if opened.together else None
        if together is not None:
            yield together
            return
        tokens = opened.tokens[image]

        def behind(rows: slice) -> Tensor:
            channels = torch.arange(rows.start, rows.stop, device=tokens.device)
            changed = tokens.repeat(len(channels), 1, 1)
            changed[torch.arange(len(channels), device=tokens.device), :, channels] = instead[channels, None]
            return opened.behind(image, changed, reads)

        for _, read in in_chunks(behind, tokens.shape[-1], self.chunk_size):
            yield read


@dataclass(frozen=True)
class _Opened:
    """A tower cut in two at one layer.

    Attributes:
        tokens: What is ablated, ``[B, S, W]``.
        prefix_tokens: Tokens before the patches.
        grid: Rows and columns of the patches.
        behind: From an image's number and its changed tokens ``[n, S, W]`` to what the tower hands over for them.
        together: The same for all channels at once, by a closed form, from an image's number and what replaces each
            channel ``[W]``; it, or what it returns, is None where there is none.
    """

    tokens: Tensor
    prefix_tokens: int
    grid: tuple[int, int]
    behind: Callable[[int, Tensor, str], Tensor]
    together: Callable[[int, Tensor, str], Tensor | None] | None = None


def _opened(tower: ImageTower, pixels: Tensor, layer: int) -> _Opened:
    """Cut a tower at a layer; in a transformer, behind the norm in front of its attention.

    Raises:
        UserError: There is no such layer.
    """
    if not isinstance(tower, TransformerTower):
        trace = tower.trace(pixels, record=(layer,))
        staged, index = cast(StagedTower, tower), layer % trace.depth
        tokens = trace.block(layer).computed
        return _Opened(
            tokens, 0, trace.grid_of(layer), lambda image, changed, reads: staged.behind(index, changed, reads)
        )
    entered, layer = _tokens_before(tower, pixels, layer)
    block, last = tower.blocks[layer], layer == len(tower.blocks) - 1
    normed = block.normed(entered)

    def behind(image: int, changed: Tensor, reads: str) -> Tensor:
        query, key, value = block.query_key_value(changed, slice(None))
        context = F.scaled_dot_product_attention(query, key, value)
        attended = block.project(context.transpose(1, 2).flatten(2))
        outputs = block.finish(entered[image].expand(len(changed), -1, -1), attended)
        for later in tower.blocks[layer + 1 :]:
            outputs = later.run(outputs, None)
        return tower.read(outputs, reads)

    def together(image: int, instead: Tensor, reads: str) -> Tensor | None:
        own = normed[image : image + 1]
        context = _ablated_context(block, own, own - instead) if reads == "pooled" else None
        if context is None:
            return None
        rows = entered[image : image + 1, :1].expand(-1, context.shape[2], -1)
        outputs = block.finish(rows, block.project(context.transpose(1, 2).flatten(2)))
        return tower.pooled(outputs[0][:, None])

    closed = together if last and tower.reads_class_token else None
    return _Opened(normed, tower.prefix_tokens, tower.grid, behind, closed)


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
