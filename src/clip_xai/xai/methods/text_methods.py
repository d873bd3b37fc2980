"""Explainers of the text side: which words carry a score, by gradients."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.clip import CLIPBackbone, with_texts
from clip_xai.models.backbones.recording import batched_vjp, evaluation_mode, outside_inference
from clip_xai.models.backbones.transformer import TextTower
from clip_xai.ranges import setting
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.explainer import Explainer, explainers
from clip_xai.xai.methods.depth import no_such_block, too_deep
from clip_xai.xai.target import CaptionTarget, SimilarityTarget, Target
from clip_xai.xai.words import Word, words_of


@dataclass(frozen=True)
class TextExplainer(Explainer):
    """An explainer whose evidence lies over words: of the texts of a similarity, or of a caption and what precedes it.

    Words are joined from tokens by character offsets. For a caption, the column ``image`` stands for the mapper's
    slots, ``prompt`` (if there is one) for the prompt, and the others are the caption's words.
    """

    modality: ClassVar[str] = "text"
    captions: ClassVar[bool] = True

    def refusal(self, backbone: VisionBackbone, target: Target) -> str | None:
        """Return why the method is not defined for a tower and a target, None if it is."""
        reason = super().refusal(backbone, target)
        if reason is not None:
            return reason
        if isinstance(target, CaptionTarget):
            return None if self.captions else "reads the text tower, which a caption does not pass"
        if not isinstance(backbone, CLIPBackbone):
            return f"reads a text tower, which backbone {backbone.name} does not have"
        if isinstance(target, SimilarityTarget) and target.texts is not None:
            return None
        return "explains texts and captions; give the target its texts, or choose target=caption"

    def explain(self, backbone: VisionBackbone, pixels: Tensor, target: Target) -> Attribution:
        """Explain the target's scores by words; see the base class."""
        self.require(backbone, target)
        with torch.no_grad(), evaluation_mode(backbone):
            read = backbone.features(pixels).read(target.reads)
        with torch.inference_mode(False):
            read = outside_inference(read)
            if isinstance(target, CaptionTarget):
                return self._explain_caption(read, target)
            assert isinstance(target, SimilarityTarget) and target.texts is not None  # or it would have been refused
            return self._explain_texts(with_texts(backbone), read, target, target.texts)

    @abstractmethod
    def texts(
        self, backbone: CLIPBackbone, read: Tensor, target: SimilarityTarget, texts: list[str], words: list[list[Word]]
    ) -> tuple[list[Tensor], Tensor]:
        """Return the evidence of each text's words, T times ``[B, K_t]``, and the scores ``[B, T]``.

        Args:
            backbone: The towers.
            read: Image embeddings ``[B, D]``.
            target: What is asked.
            texts: Its T texts.
            words: Their words.
        """

    def caption(self, read: Tensor, target: CaptionTarget) -> tuple[Tensor, Tensor]:
        """Return the evidence of a caption's columns, ``[B, T, columns]``, and the scores ``[B, T]``.

        Args:
            read: What the mapper reads, ``[B, D]`` or ``[B, N, W]``.
            target: What is asked.
        """
        raise NotImplementedError(f"{self.name} is not defined for captions")

    def _explain_texts(
        self, backbone: CLIPBackbone, read: Tensor, target: SimilarityTarget, texts: list[str]
    ) -> Attribution:
        words = [words_of(text, backbone.token_spans(text)) for text in texts]
        if not all(words):
            raise UserError(f"the text {texts[[not found for found in words].index(True)]!r} has no words to explain")
        rows, scores = self.texts(backbone, read, target, texts, words)
        values = rows[0].new_full((*scores.shape, max(map(len, words))), float("nan"))
        for column, found in enumerate(rows):
            values[:, column, : found.shape[1]] = found
        return self._attribution(values, scores, target, [[word.text for word in found] for found in words])

    def _explain_caption(self, read: Tensor, target: CaptionTarget) -> Attribution:
        values, scores = self.caption(read, target)
        names = [name for name, _ in caption_columns(target)]
        return self._attribution(values, scores, target, [list(names) for _ in target.labels])


@explainers.register("token_gradxinput", title="Token gradient × input", group="words", order=1)
@dataclass(frozen=True)
class TokenGradXInput(TextExplainer):
    """Gradient times input on token embeddings, summed over channels and over the tokens of each word.

    With x_i the embedding of token i before its position is added::

        a_i = x_i . ds/dx_i         a_word = sum of a_i over the word's tokens

    For a similarity to texts, x are the text tower's token embeddings; columns are the words of each text. For a
    caption, x are the language model's inputs and s the log-probability of each of its words (Captum and inseq call
    this input x gradient): the column ``image`` sums the mapper's slots, ``prompt`` (if there is one) the prompt, and
    the others are the caption's words; words that come later have exactly zero.

    Shapes: ``[B, T, K]``, signed; K columns named in ``tokens``, NaN past the end of shorter texts. Cost: for a
    similarity one forward and one batched backward pass of the text tower for all texts and images, for a caption one
    teacher-forced forward and one batched backward pass of the language model; in both cases one forward pass of the
    image tower.

    Deviations from inseq and captum: one teacher-forced pass instead of a growing prefix (equal by causality); words
    are joined from tokens by character offsets; no norm is taken and nothing is scaled.

    Raises:
        UserError: A similarity target does not know its texts, or the target is of another kind.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> TokenGradXInput().explain(*example()).tokens
        [['a', 'brown', 'lesion'], ['melanoma']]
    """

    reading: ClassVar[str] = "Gradient × embedding of each word that had been read."
    linear_in_target: ClassVar[bool] = True
    cost: ClassVar[str] = "1 F; 1 F, 1 batched B of the text tower or language model"

    def texts(
        self, backbone: CLIPBackbone, read: Tensor, target: SimilarityTarget, texts: list[str], words: list[list[Word]]
    ) -> tuple[list[Tensor], Tensor]:
        """Return the evidence of each text's words and the scores."""
        trace = backbone.trace_text(backbone.tokenize(texts).to(read.device))
        scores, cotangents = text_cotangents(read, trace.read, target)
        products = (trace.gradients(cotangents) * trace.inputs.detach().unsqueeze(1)).sum(dim=-1)
        return [by_word(row, found, backbone.first_token) for row, found in zip(products, words, strict=True)], scores

    def caption(self, read: Tensor, target: CaptionTarget) -> tuple[Tensor, Tensor]:
        """Return the evidence of a caption's columns and the scores."""
        inputs = caption_inputs(read, target)
        scores, gradients = caption_gradients(target, inputs, 1.0)
        products = [
            (gradient * part.unsqueeze(1)).sum(dim=-1) for gradient, part in zip(gradients, inputs, strict=True)
        ]
        return by_column(torch.cat(products, dim=-1), target), scores


@explainers.register("token_integrated_gradients", title="Token integrated gradients", group="words", order=2)
@dataclass(frozen=True)
class TokenIntegratedGradients(TextExplainer):
    """Integrated gradients (Sundararajan, Taly and Yan, ICML 2017, arXiv 1703.01365) on token embeddings.

    With x the embeddings of a text's tokens (positions are added later) and x' the same with 0 for every token but the
    markers and the padding, summed over channels and over each word's tokens::

        a_i = (x_i - x'_i) . integral over alpha in [0, 1] of  ds/dx_i at x' + alpha (x - x')
        sum of a = s(x) - s(x')         (completeness; exact as ``steps`` grows)

    The integral is a Gauss-Legendre sum of ``steps`` points, as captum's. For a caption, x are all inputs of the
    language model, x' is 0, and columns are those of ``token_gradxinput``.

    Shapes: ``[B, T, K]``, signed, in units of the score. Cost: ``steps`` forward and batched backward passes of the
    text tower (of the language model), shared by all images and texts; one forward pass of the image tower.

    Deviations from captum's ``LayerIntegratedGradients``: all texts and images share each step; words are joined from
    tokens by character offsets. Each text moves alone: the others of a contrast keep their embeddings.

    Attributes:
        steps: Points of the integral.

    Raises:
        UserError: As for ``token_gradxinput``.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> TokenIntegratedGradients(steps=4).explain(*example()).values.shape
        torch.Size([2, 2, 3])
    """

    reading: ClassVar[str] = "Gradients summed on the way from empty to real embeddings of the words."

    steps: int = setting(50, least=1)

    linear_in_target: ClassVar[bool] = True
    cost: ClassVar[str] = "1 F; n (F + B) of the text tower or language model"

    def texts(
        self, backbone: CLIPBackbone, read: Tensor, target: SimilarityTarget, texts: list[str], words: list[list[Word]]
    ) -> tuple[list[Tensor], Tensor]:
        """Return the evidence of each text's words and the scores."""
        tower = text_tower(backbone)
        ids = backbone.tokenize(texts).to(read.device)
        with evaluation_mode(backbone), torch.no_grad():
            whole = tower.embeddings(ids)
            fixed = text_reads(tower, ids, whole)
            scores = target.score_of(read, fixed)
            between = torch.zeros(whole.shape[:2], device=whole.device)
            for row, found in zip(between, words, strict=True):
                row[[backbone.first_token + token for word in found for token in word.tokens]] = 1
            difference = whole * between[..., None].to(whole)
        total = torch.zeros(len(texts), len(read), *whole.shape[1:], device=whole.device)
        points = gauss_legendre(self.steps)
        size = max(1, 64 // len(texts))
        for first in range(0, len(points), size):
            shares, weights = torch.tensor(points[first : first + size], device=whole.device).T
            with evaluation_mode(backbone), torch.enable_grad():
                inputs = whole - (1 - shares).to(whole)[:, None, None, None] * difference
                inputs = inputs.flatten(0, 1).requires_grad_()
                embeddings = text_reads(tower, ids.repeat(len(shares), 1), inputs)
                cotangents = own_cotangents(read, embeddings.unflatten(0, (-1, len(texts))), target, fixed)
                gradient = batched_vjp(embeddings, [inputs], cotangents.flatten(0, 1))[0].float()
            total += torch.einsum("n,ntbmw->tbmw", weights, gradient.unflatten(0, (-1, len(texts))))
        products = (total * difference.float().unsqueeze(1)).sum(dim=-1)
        return [by_word(row, found, backbone.first_token) for row, found in zip(products, words, strict=True)], scores

    def caption(self, read: Tensor, target: CaptionTarget) -> tuple[Tensor, Tensor]:
        """Return the evidence of a caption's columns and the scores."""
        inputs = caption_inputs(read, target)
        total = [torch.zeros(len(part), len(target.labels), *part.shape[1:], device=part.device) for part in inputs]
        for alpha, weight in gauss_legendre(self.steps):
            for held, gradient in zip(total, caption_gradients(target, inputs, alpha)[1], strict=True):
                held += weight * gradient.float()
        with evaluation_mode(target.captioner), torch.no_grad():
            scores = target.score_of(*inputs)
        products = [(held * part.unsqueeze(1)).sum(dim=-1) for held, part in zip(total, inputs, strict=True)]
        return by_column(torch.cat(products, dim=-1), target), scores


@explainers.register("token_gradeclip", title="Grad-ECLIP on the text", group="words", order=5)
@dataclass(frozen=True)
class TokenGradEclip(TextExplainer):
    """Grad-ECLIP on the text tower (Zhao et al., ICML 2024, arXiv 2502.18816), multi-head.

    In block l and head h, with o the attention's context at the row r that the text is read at (its end marker), q, k,
    v its queries, keys and values::

        w = ds/do_r         lambda_i = minmax over the tokens i that r sees of cos(q_r, k_i)
        H_i = ReLU( sum over the last ``layers`` blocks, heads h and channels c of  w_c * lambda_i * v_ic )

    A word has the sum of its tokens.

    Shapes: ``[B, T, K]``, at least 0. Cost: one forward and one batched backward pass of the text tower for all texts
    and images; one forward pass of the image tower.

    Deviations from the published code: the model's own heads; the min-max is over the tokens that r sees, where the
    code also counts those behind the end marker, which change nothing that is read; nothing is scaled to a sum of 1.

    Attributes:
        layers: Blocks that count, from the end; the published 8 stand for all of them in a text tower of fewer.

    Raises:
        UserError: The target has no texts, the text tower cannot be opened, or it is not read at one token.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> bool((TokenGradEclip().explain(*example()).values.nan_to_num() >= 0).all())
        True
    """

    layers: int = setting(8, least=1)

    linear_in_target: ClassVar[bool] = False
    needs_of_tower: ClassVar[frozenset[str]] = frozenset({"text_trace"})
    captions: ClassVar[bool] = False
    cost: ClassVar[str] = "1 F; 1 F, 1 batched B of the text tower"

    def refusal(self, backbone: VisionBackbone, target: Target) -> str | None:
        """So many blocks are needed, or fewer than the published number."""
        reason = super().refusal(backbone, target)
        return reason or too_deep("token_gradeclip.layers", self.layers, len(text_tower(backbone).blocks), published=8)

    def texts(
        self, backbone: CLIPBackbone, read: Tensor, target: SimilarityTarget, texts: list[str], words: list[list[Word]]
    ) -> tuple[list[Tensor], Tensor]:
        """Return the evidence of each text's words and the scores."""
        depth = len(text_tower(backbone).blocks)
        points = [(block, "context") for block in range(max(0, depth - self.layers), depth)]
        trace = backbone.trace_text(backbone.tokenize(texts).to(read.device), watch=points)
        if trace.read_rows is None:
            raise UserError(f"{self.name} needs a text tower that is read at one token: choose token_gradxinput")
        scores, cotangents = text_cotangents(read, trace.read, target)
        gradients = trace.gradients(cotangents, points)
        rows: list[Tensor] = []
        for number, found in enumerate(words):
            last = int(trace.read_rows[number])
            evidence = torch.zeros(())
            for layer, name in points:
                block = trace.block(layer)
                attended = block.attention()[number, :, last].sum(dim=0) > 0
                weight = gradients[layer, name][number, :, :, last].float()  # [B, H, d]
                query, key, value = (
                    part[number].detach().float() for part in (block.query[:, :, last], block.key, block.value)
                )
                similar = torch.nn.functional.cosine_similarity(query[:, None], key, dim=-1)  # [H, S]
                low = similar[:, attended].amin(dim=1, keepdim=True)
                high = similar[:, attended].amax(dim=1, keepdim=True)
                flat = high == low
                loosened = torch.where(flat, 1.0, (similar - low) / torch.where(flat, 1.0, high - low))
                evidence = evidence + torch.einsum("bhd,hs,hsd->bs", weight, loosened, value)
            rows.append(by_word(evidence.relu(), found, backbone.first_token))
        return rows, scores


@explainers.register("token_attention_gradient", title="Attention × gradient on the text", group="words", order=6)
@dataclass(frozen=True)
class TokenAttentionGradient(TextExplainer):
    """Attention times gradient on the text tower (Chefer, Gur and Wolf, ICCV 2021, arXiv 2103.15679).

    With A the attention probabilities of each block and r the row that the text is read at (its end marker)::

        A' = mean over heads of ReLU( ds/dA * A )         R <- R + A' R  from R = I,  block after block
        H_i = R_ri

    A word has the sum of its tokens. Attention stays the fused kernel: ds/dA is the gradient of the context times the
    values. Because R starts from I, the scale of the score changes how blocks mix: the kind is in the settings.

    Shapes: ``[B, T, K]``, at least 0. Cost: one forward and one batched backward pass of the text tower for all texts
    and images; one forward pass of the image tower.

    Deviations from the published code: R is propagated as the one row that is read; nothing is scaled to a sum of 1.

    Attributes:
        start_layer: First block that counts, from the end if negative; 0 is the paper's form, -1 the notebook's.

    Raises:
        UserError: The target has no texts, the text tower cannot be opened, or it is not read at one token.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> bool((TokenAttentionGradient().explain(*example()).values.nan_to_num() >= 0).all())
        True
    """

    start_layer: int = 0

    linear_in_target: ClassVar[bool] = False
    needs_of_tower: ClassVar[frozenset[str]] = frozenset({"text_trace"})
    captions: ClassVar[bool] = False
    cost: ClassVar[str] = "1 F; 1 F, 1 batched B of the text tower"

    def refusal(self, backbone: VisionBackbone, target: Target) -> str | None:
        """The first block must be there."""
        reason = super().refusal(backbone, target)
        return reason or no_such_block(f"{self.name}.start_layer", self.start_layer, len(text_tower(backbone).blocks))

    def texts(
        self, backbone: CLIPBackbone, read: Tensor, target: SimilarityTarget, texts: list[str], words: list[list[Word]]
    ) -> tuple[list[Tensor], Tensor]:
        """Return the evidence of each text's words and the scores."""
        depth = len(text_tower(backbone).blocks)
        points = [(block, "context") for block in range(self.start_layer % depth, depth)]
        trace = backbone.trace_text(backbone.tokenize(texts).to(read.device), watch=points)
        if trace.read_rows is None:
            raise UserError(f"{self.name} needs a text tower that is read at one token: choose token_gradxinput")
        scores, cotangents = text_cotangents(read, trace.read, target)
        gradients = trace.gradients(cotangents, points)
        length = trace.inputs.shape[1]
        start = torch.eye(length, device=read.device)[trace.read_rows.to(read.device)]
        row = start[:, None].expand(-1, len(read), -1)  # [T, B, S]
        for point in reversed(points):
            block = trace.block(point[0])
            # One image at a time: the gradient of attention is the largest thing here.
            steps = []
            for image in range(len(read)):
                by_attention = gradients[point][:, image].float() @ block.value.detach().float().transpose(-2, -1)
                relevance = (by_attention * block.attention().float()).relu().mean(dim=1)
                steps.append(torch.einsum("ti,tij->tj", row[:, image], relevance))
            row = row + torch.stack(steps, dim=1)
        return [by_word(one, found, backbone.first_token) for one, found in zip(row, words, strict=True)], scores


def text_tower(backbone: VisionBackbone) -> TextTower:
    """Return the text tower.

    Raises:
        UserError: The backbone was built without one.
    """
    tower = with_texts(backbone).text_tower
    if tower is None:
        raise UserError(f"backbone {backbone.name} was built without its text tower: set backbone.text=true")
    return tower


def text_reads(tower: TextTower, token_ids: Tensor, embeddings: Tensor) -> Tensor:
    """Run a text tower from token embeddings ``[T, M, W_text]`` on, in the mode that it is in: ``[T, D]``."""
    outputs = [tower.embed(embeddings)]
    mask = tower.mask(token_ids)
    for block in tower.blocks:
        outputs.append(block.run(outputs[-1], mask))
    return tower.pooled(outputs, token_ids)


def text_cotangents(read: Tensor, text_embeddings: Tensor, target: SimilarityTarget) -> tuple[Tensor, Tensor]:
    """Return scores ``[B, T]`` and the derivative of each with respect to its own text's embedding, ``[T, B, D]``."""
    with torch.enable_grad():
        leaf = text_embeddings.detach().requires_grad_()
        scores = target.score_of(read.detach(), leaf)
        images, texts = scores.shape
        each = torch.eye(images * texts, device=scores.device, dtype=scores.dtype).unflatten(-1, (images, texts))
        (jacobian,) = torch.autograd.grad(scores, leaf, each, is_grads_batched=True)
    own = torch.arange(texts, device=scores.device)
    return scores.detach(), jacobian.unflatten(0, (images, texts))[:, own, own].transpose(0, 1)


def own_cotangents(read: Tensor, embeddings: Tensor, target: SimilarityTarget, fixed: Tensor) -> Tensor:
    """Return the derivative of each score with respect to its own text's embedding at n places, ``[n, T, B, D]``.

    Args:
        read: Image embeddings ``[B, D]``.
        embeddings: Where each text is, ``[n, T, D]``.
        target: What is asked.
        fixed: What stands for the other texts while one is looked at, ``[T, D]``.
    """
    if type(target) is SimilarityTarget:  # every score knows its own text alone
        with torch.enable_grad():
            leaf = embeddings.detach().flatten(0, 1).requires_grad_()
            scores = target.score_of(read.detach(), leaf)
            rows = [torch.autograd.grad(row.sum(), leaf, retain_graph=True)[0] for row in scores]
        return torch.stack(rows, dim=1).unflatten(0, tuple(embeddings.shape[:2]))
    found = []
    for place in embeddings.detach():
        for row, embedding in enumerate(place):
            alone = fixed.detach().clone()
            alone[row] = embedding
            found.append(text_cotangents(read, alone, target)[1][row])
    return torch.stack(found).unflatten(0, tuple(embeddings.shape[:2]))


def caption_inputs(read: Tensor, target: CaptionTarget) -> tuple[Tensor, Tensor]:
    """Return what the language model is given: slots and prompt ``[B, P, E]``, and the caption's ``[B, M, E]``."""
    with evaluation_mode(target.captioner), torch.no_grad():
        return target.captioner.prefix(read), target.embeddings(len(read))


def caption_gradients(target: CaptionTarget, inputs: Sequence[Tensor], share: float) -> tuple[Tensor, list[Tensor]]:
    """Return the scores ``[B, T]`` at a share of the language model's inputs, and their gradients ``[B, T, *, E]``."""
    with evaluation_mode(target.captioner), torch.enable_grad():
        leaves = [(share * part.detach()).requires_grad_() for part in inputs]
        scores = target.score_of(*leaves)
        each = torch.eye(scores.shape[1], device=scores.device).expand(len(scores), -1, -1)
        return scores.detach(), batched_vjp(scores, leaves, each)


def caption_columns(target: CaptionTarget) -> list[tuple[str, list[int]]]:
    """Return each column's name and its positions among the language model's inputs: image, prompt, words."""
    captioner = target.captioner
    slots = captioner.mapper.prefix_length
    first = slots + captioner.prompt_ids.numel()  # type: ignore[operator]
    columns = [("image", list(range(slots)))]
    if first > slots:
        columns.append(("prompt", list(range(slots, first))))
    return columns + [(word.text, [first + token for token in word.tokens]) for word in target.caption_words()]


def by_column(tokens: Tensor, target: CaptionTarget) -> Tensor:
    """Sum ``[..., inputs of the language model]`` over each column of a caption: ``[..., columns]``."""
    return torch.stack([tokens[..., places].sum(dim=-1) for _, places in caption_columns(target)], dim=-1)


def by_word(tokens: Tensor, words: list[Word], first: int) -> Tensor:
    """Sum ``[..., M]`` over the tokens of each word, ``[..., words]``; a text's first token stands at ``first``."""
    return torch.stack([tokens[..., [first + token for token in word.tokens]].sum(dim=-1) for word in words], dim=-1)


def gauss_legendre(points: int) -> list[tuple[float, float]]:
    """Return places and weights of the Gauss-Legendre sum over [0, 1].

    Example:
        >>> gauss_legendre(1)
        [(0.5, 1.0)]
    """
    places, weights = np.polynomial.legendre.leggauss(points)
    return [(float((1 + place) / 2), float(weight / 2)) for place, weight in zip(places, weights, strict=True)]
