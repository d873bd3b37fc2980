"""Explainers against what one would do without them: ``python -m benchmarks.explainers [--texts 8] [--rounds 3]``.

Both sides explain one image for T texts with the same tower (a ViT-B/16 at random weights) and must find the same maps,
to 1e-3 of the largest value; the table says how far they are apart. The other side is the library that has the method
(pytorch-grad-cam, captum: one text at a time, for that is what they take), or a straightforward loop as its authors
published it: an image copy or a backward pass for each text, eager attention, matrices rolled out. Not one other side
is slowed down on purpose: texts are embedded beforehand for both, and gradients of weights are never asked for, except
where a library asks for them itself.

``per image`` is one image and one text, ``per further text`` what each text more costs, measured at T texts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients as LibraryIntegratedGradients
from pytorch_grad_cam import GradCAM as LibraryGradCam
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from benchmarks.common import alternately, machine, markdown, peak_mib
from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.captioner import Captioner
from clip_xai.models.language_model import build_language_model
from clip_xai.models.mappers import build_mapper
from clip_xai.xai.explainer import Explainer
from clip_xai.xai.methods import AttentionGradient, EmbeddingSpace, GradCam, GradEclip, IntegratedGradients, LeGrad
from clip_xai.xai.target import CaptionTarget, EmbeddingDimensionTarget, SimilarityTarget, Target

Maps = Callable[[int], Tensor]  # of the first T texts, [T, ...]
STEPS = 4


@dataclass(frozen=True)
class Pair:
    """A method of ours, what it is compared with, and the name of that.

    Attributes:
        name: The method.
        other: What it is compared with.
        ours: Maps of the first T texts.
        theirs: The same.
        counted: How much of the other side's work is done; the rest is counted as often.
        compared: Whether the maps of both sides are the same numbers.
    """

    name: str
    other: str
    ours: Maps
    theirs: Maps
    counted: float = 1.0
    compared: bool = True


class Scores(nn.Module):
    """A model that gives scores, as libraries want one."""

    def __init__(self, backbone: VisionBackbone, target: Target) -> None:
        super().__init__()
        self.backbone, self.target = backbone, target

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the scores ``[B, T]``."""
        return self.target.score(self.backbone.encode_image(pixels))


class Loops:
    """The published loops on open_clip's ViT: eager attention, one image copy or one backward pass for each text."""

    def __init__(self, backbone: VisionBackbone, pixels: Tensor, texts: Tensor) -> None:
        self.visual: Any = backbone.image_tower.module
        self.pixels, self.texts = pixels, F.normalize(texts, dim=-1)
        self.heads = self.visual.transformer.resblocks[0].attn.num_heads

    def gradeclip(self, count: int) -> Tensor:
        """One forward pass, then one backward pass from the score to the last context for each text."""
        with torch.no_grad():
            tokens = self._embedded(1)
            for block in self.visual.transformer.resblocks[:-1]:
                tokens = block(tokens)
        block = self.visual.transformer.resblocks[-1]
        query, key, value = self._parts(block, tokens)
        context = (self._attention(query, key) @ value).detach().requires_grad_()
        image = self._read(self._finished(block, tokens, context))
        maps = []
        for text in self.texts[:count]:
            (gradient,) = torch.autograd.grad((image @ text).sum(), context, retain_graph=True)
            similar = F.normalize(query[:, :, :1], dim=-1) @ F.normalize(key[:, :, 1:], dim=-1).transpose(-2, -1)
            low, high = similar.amin(-1, keepdim=True), similar.amax(-1, keepdim=True)
            loosened = ((similar - low) / (high - low)).transpose(-2, -1)
            maps.append((gradient[:, :, :1] * loosened * value[:, :, 1:]).sum(dim=(1, 3)).relu()[0])
        return torch.stack(maps).detach()

    def legrad(self, count: int, layers: int = 2) -> Tensor:
        """One image copy for each text; the gradient of each layer's own score at its attention."""
        tokens, texts = self._embedded(count), self.texts[:count]
        blocks = self.visual.transformer.resblocks
        total: Tensor | float = 0.0
        for index, block in enumerate(blocks):
            query, key, value = self._parts(block, tokens)
            attention = self._attention(query, key).requires_grad_()
            tokens = self._finished(block, tokens, attention @ value)
            if index >= len(blocks) - layers:
                image = F.normalize(self.visual.ln_post(tokens.mean(dim=1)) @ self.visual.proj, dim=-1)
                (gradient,) = torch.autograd.grad((image * texts).sum(), attention, retain_graph=True)
                total = total + gradient.relu().mean(dim=(1, 2))[:, 1:]
        return torch.as_tensor(total).detach()

    def chefer(self, count: int) -> Tensor:
        """One image copy for each text; gradients at the attention of all layers, matrices rolled out."""
        tokens, kept = self._embedded(count), []
        for block in self.visual.transformer.resblocks:
            query, key, value = self._parts(block, tokens)
            kept.append(self._attention(query, key).requires_grad_())
            tokens = self._finished(block, tokens, kept[-1] @ value)
        score = (self._read(tokens) * self.texts[:count]).sum()
        relevance = torch.eye(tokens.shape[1]).expand(count, -1, -1)
        for attention in kept:
            (gradient,) = torch.autograd.grad(score, attention, retain_graph=True)
            relevance = relevance + (gradient * attention).relu().mean(dim=1) @ relevance
        return relevance[:, 0, 1:].detach()

    def _embedded(self, copies: int) -> Tensor:
        return self.visual._embeds(self.pixels.expand(copies, -1, -1, -1)).detach()

    def _parts(self, block: Any, tokens: Tensor) -> list[Tensor]:
        parts = F.linear(block.ln_1(tokens), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
        return [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts]

    def _attention(self, query: Tensor, key: Tensor) -> Tensor:
        return (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(dim=-1)

    def _finished(self, block: Any, tokens: Tensor, context: Tensor) -> Tensor:
        tokens = tokens + block.attn.out_proj(context.transpose(1, 2).flatten(2))
        return tokens + block.mlp(block.ln_2(tokens))

    def _read(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.visual.ln_post(tokens[:, 0]) @ self.visual.proj, dim=-1)


def pairs(backbone: VisionBackbone, pixels: Tensor, texts: Tensor, dimensions: int) -> list[Pair]:
    """Return every comparison on one tower, one image and some embedded texts."""
    loops, side = Loops(backbone, pixels, texts), backbone.grid

    def target(count: int) -> SimilarityTarget:
        return SimilarityTarget(texts[:count], [str(index) for index in range(count)])

    def own(explainer: Explainer) -> Maps:
        return lambda count: explainer.explain(backbone, pixels, target(count)).values[0].flatten(1)

    def library_gradcam(count: int) -> Tensor:
        model = Scores(backbone, target(count))
        layer = loops.visual.transformer.resblocks[-1].ln_1
        maps = []
        with LibraryGradCam(model, [layer], lambda x: x[:, 1:].unflatten(1, side).permute(0, 3, 1, 2)) as cam:
            for text in range(count):
                cam(pixels.clone().requires_grad_(), [ClassifierOutputTarget(text)])
                kept = cam.activations_and_grads
                weights = kept.gradients[0].mean(dim=(2, 3), keepdim=True)
                maps.append((weights * kept.activations[0]).sum(dim=1).relu()[0])
        return torch.stack(maps).detach().flatten(1)

    def library_integrated(count: int) -> Tensor:
        method = LibraryIntegratedGradients(Scores(backbone, target(count)))
        options: dict[str, Any] = {"n_steps": STEPS, "method": "gausslegendre", "internal_batch_size": STEPS}
        options["return_convergence_delta"] = True  # ours always checks what it promises
        maps = [method.attribute(pixels, target=text, **options)[0].sum(dim=1)[0] for text in range(count)]
        return torch.stack(maps).detach().float().flatten(1)

    def each_dimension(count: int) -> Tensor:
        """As many of the D attributions as are measured, weighted by the texts."""
        units = F.normalize(texts[:count], dim=-1)
        total = torch.zeros(count, side[0] * side[1])
        for dimension in range(dimensions):
            score = Scores(backbone, EmbeddingDimensionTarget([dimension]))
            leaf = pixels.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(score(leaf).sum(), leaf)
            cells = F.avg_pool2d((leaf * gradient).sum(dim=1).detach(), pixels.shape[-1] // side[0])
            total += units[:, dimension, None] * cells.flatten()
        return total

    return [
        Pair("Grad-CAM", "pytorch-grad-cam", own(GradCam()), library_gradcam),
        Pair(
            f"integrated gradients, {STEPS} steps",
            "captum, with its convergence delta",
            own(IntegratedGradients(STEPS, resolution="pixels")),
            library_integrated,
        ),
        Pair("Grad-ECLIP", "one backward a text", own(GradEclip()), loops.gradeclip),
        Pair("LeGrad", "one image copy a text", own(LeGrad()), loops.legrad),
        Pair("attention gradient", "one image copy a text", own(AttentionGradient()), loops.chefer),
        Pair(
            "embedding space, collapsed",
            f"{backbone.embed_dim} attributions ({dimensions} measured)",
            own(EmbeddingSpace()),
            each_dimension,
            counted=backbone.embed_dim / dimensions,
            compared=dimensions == backbone.embed_dim,
        ),
    ]


def caption_pair(backbone: VisionBackbone, pixels: Tensor, size: str) -> Pair:
    """Return the cotangents of caption words, batched, against one backward pass for each word."""
    model, tokenizer = build_language_model(size, None)
    mapper = build_mapper(
        "resampler", embed_dim=backbone.embed_dim, width=backbone.width, embedding_dim=model.config.n_embd
    )
    captioner = Captioner(backbone, mapper, model, tokenizer).eval()
    caption = (
        "a dermoscopic photo of light skin shows a large, asymmetric, dark brown lesion in the upper left "
        "with an irregular border, showing a blue-white veil, most likely a melanoma."
    )
    target = CaptionTarget.words(captioner, tokenizer.encode(caption))
    with torch.no_grad():
        read = captioner.read(pixels)

    def chosen(count: int) -> CaptionTarget:
        return CaptionTarget(captioner, target.token_ids.tolist(), target.parts[:count], target.labels[:count])

    def by_word(count: int) -> Tensor:
        asked, leaf = chosen(count), read.clone().requires_grad_()
        logits = captioner.caption_logits(captioner.prefix(leaf), asked.embeddings(1))
        tokens = logits.log_softmax(dim=-1)[0].gather(1, asked.token_ids[:, None])[:, 0]
        words = [torch.autograd.grad(tokens[list(part)].sum(), leaf, retain_graph=True)[0] for part in asked.parts]
        return torch.cat(words).flatten(1)

    return Pair(
        f"caption words, {size}", "one backward a word", lambda n: chosen(n).cotangent(read)[0].flatten(1), by_word
    )


def measure(pair: Pair, count: int, rounds: int, warmup: int) -> dict[str, object]:
    """Time both sides for one text and for several, by turns."""

    def side(maps: Maps, texts: int) -> Callable[[], int]:
        return lambda: len(maps(texts))

    sides = {
        "ours 1": side(pair.ours, 1),
        "theirs 1": side(pair.theirs, 1),
        "ours T": side(pair.ours, count),
        "theirs T": side(pair.theirs, count),
    }
    timings = {name: timing.median for name, timing in alternately(sides, rounds, warmup).items()}
    ours, theirs = pair.ours(count), pair.theirs(count)
    apart = float((ours - theirs).abs().max() / theirs.abs().max()) if pair.compared else None
    if apart is not None and apart > 1e-3:
        raise ValueError(f"{pair.name}: the two sides differ by {apart}: they do not do the same work")
    further = {who: (timings[f"{who} T"] - timings[f"{who} 1"]) / (count - 1) for who in ("ours", "theirs")}
    return {
        "method": pair.name,
        "against": pair.other,
        "seconds per image": timings["ours 1"],
        "theirs": timings["theirs 1"] * pair.counted,
        "per further text": further["ours"],
        "their further text": further["theirs"] * pair.counted,
        "times faster at T": timings["theirs T"] * pair.counted / timings["ours T"],
        "peak MiB at T": peak_mib(lambda: pair.ours(count)),
        "their MiB": peak_mib(lambda: pair.theirs(count)),
        "apart": apart,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--architecture", default="ViT-B-16")
    parser.add_argument("--language-model", default="gpt2")
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1, help="rounds that do not count")
    parser.add_argument("--dimensions", type=int, default=4, help="of the 512 separate attributions, how many are run")
    parser.add_argument("--only", nargs="*", default=(), help="beginnings of names")
    parser.add_argument("--output", type=Path, help="a JSON file for the numbers")
    options = parser.parse_args()
    torch.manual_seed(0)
    backbone = build_backbone("benchmark", options.architecture, None)
    size = backbone.preprocess.image_size
    pixels, texts = torch.randn(1, 3, size, size), torch.randn(options.texts, backbone.embed_dim)
    compared = [
        *pairs(backbone, pixels, texts, options.dimensions),
        caption_pair(backbone, pixels, options.language_model),
    ]
    rows = []
    for pair in compared:
        if options.only and not pair.name.lower().startswith(tuple(name.lower() for name in options.only)):
            continue
        rows.append(measure(pair, options.texts, options.rounds, options.warmup))
        print(json.dumps(rows[-1]), flush=True)
    title = f"Explainers: {options.architecture}, T = {options.texts}, {options.rounds} rounds ({machine()})"
    print(markdown(title, list(rows[0]), [list(row.values()) for row in rows]))
    if options.output:
        options.output.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
