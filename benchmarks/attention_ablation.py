"""Why does Grad-ECLIP miss lesions? Its parts, replaced one at a time: ``python -m benchmarks.attention_ablation``.

Fresh rendered photographs with exact lesion masks; the true diagnosis is explained as similarity, and as contrast with
all other diagnoses. Beside Grad-ECLIP as published stand its three factors alone and the map with the tower's own
attention in place of the loosened one; beside Grad-CAM every earlier block. All of it is measured on the embedded tower
and on the same tower at random weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.common import markdown
from clip_xai.data.synthetic.scene import PROFILES, render, sample_scene
from clip_xai.metrics.intervals import Interval
from clip_xai.metrics.localisation import colour_contrast_maps, localisation, random_maps
from clip_xai.models.backbones.backbone_builder import EMBEDDED, build_backbone
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.progress import track
from clip_xai.xai.methods import AttentionRollout, GradCam, GradEclip
from clip_xai.xai.target import ContrastTarget, SimilarityTarget
from clip_xai.xai.trace import Needs, Trace

FIRST_SCENE = 40_000_000  # far from every seed that trains or judges something
Reader = Callable[[Trace], Tensor]


def without_position_weight(trace: Trace) -> Tensor:
    """Grad-ECLIP with lambda = 1: every patch's value along the gradient, ``ReLU(sum_h w_h . v_hi)``."""
    return _weighted(trace, torch.ones(()))


def with_true_attention(trace: Trace) -> Tensor:
    """Grad-ECLIP with the softmax attention in place of lambda: what each patch really adds to the score."""
    return _weighted(trace, trace.block(-1).attention()[:, None, :, 0, 1:, None])


def without_relu(trace: Trace) -> Tensor:
    """The same without the ReLU: signed shares, which add up to the attention's part of the score's change."""
    return _weighted(trace, trace.block(-1).attention()[:, None, :, 0, 1:, None], signed=True)


def attention_alone(trace: Trace) -> Tensor:
    """The class token's attention in the last block, averaged over heads: no text at all."""
    attention = trace.block(-1).attention()[:, :, 0, 1:].mean(dim=1).unflatten(-1, trace.grid)
    return attention[:, None].expand(-1, trace.scores.shape[1], -1, -1)


def loosened_alone(trace: Trace) -> Tensor:
    """Min-max of cos(q, k) in the last block, averaged over heads: Grad-ECLIP's lambda without its gradient."""
    block = trace.block(-1)
    query, key = (torch.nn.functional.normalize(part, dim=-1) for part in (block.query[:, :, :1], block.key[:, :, 1:]))
    similarity = (query @ key.transpose(-2, -1))[:, :, 0]
    low, high = similarity.amin(-1, keepdim=True), similarity.amax(-1, keepdim=True)
    grid = ((similarity - low) / (high - low)).mean(dim=1).unflatten(-1, trace.grid)
    return grid[:, None].expand(-1, trace.scores.shape[1], -1, -1)


def _weighted(trace: Trace, weight: Tensor, signed: bool = False) -> Tensor:
    gradient = trace.gradient(-1, "context")[:, :, :, 0]
    value = trace.block(-1).value[:, :, 1:]
    along = torch.einsum("bthd,bhnd->bthn", gradient, value)[..., None]
    total = (along * weight).sum(dim=2)[..., 0]
    return (total if signed else total.relu()).unflatten(-1, trace.grid)


def readers(depth: int) -> dict[str, Reader]:
    """Every map that is compared, by name."""
    maps: dict[str, Reader] = {
        "Grad-ECLIP": GradEclip().maps,
        "- lambda = 1": without_position_weight,
        "- true attention for lambda": with_true_attention,
        "- true attention, no ReLU": without_relu,
        "lambda alone": loosened_alone,
        "last attention alone": attention_alone,
        "rollout": AttentionRollout().maps,
    }
    return maps | {f"Grad-CAM, block {layer + 1} of {depth}": GradCam(layer).maps for layer in reversed(range(depth))}


def measure(backbone: VisionBackbone, scenes: range) -> dict[tuple[str, str], tuple[str, str]]:
    """Return pointing game and AUPRC with intervals, by map and target."""
    names = sorted(PROFILES)
    depth = 4 if backbone.name == "tiny" else 12
    targets = {
        "similarity": SimilarityTarget.from_texts(backbone, [f"a photo of {name}" for name in names]),
        "contrast": ContrastTarget.from_texts(backbone, [f"a photo of {name}" for name in names]),
    }
    points = {(-1, "context")} | {(layer, "normed") for layer in range(depth)}
    needs = Needs(activations=None, gradients=frozenset(points))
    maps: dict[tuple[str, str], list[Tensor]] = {}
    masks = []
    for seed in track(scenes, "Explaining"):
        scene = sample_scene(seed)
        drawn = render(scene, 192, 192)
        photograph = Image.fromarray(drawn.image)
        pixels = backbone.preprocess(photograph)[None]
        geometry = backbone.preprocess.geometry(photograph.width, photograph.height)
        size = backbone.preprocess.image_size
        masks.append(geometry.locate(torch.from_numpy(drawn.lesion_mask), size) >= 0.5)
        row = names.index(scene.diagnosis)
        for name, target in targets.items():
            trace = Trace(backbone, pixels, target, needs)
            for title, reader in readers(depth).items():
                maps.setdefault((title, name), []).append(reader(trace)[0, row].detach())
        square = torch.from_numpy(np.array(backbone.preprocess.square(photograph))).permute(2, 0, 1)[None] / 255
        maps.setdefault(("control: colour contrast", "–"), []).append(colour_contrast_maps(square, backbone.grid)[0])
        maps.setdefault(("control: random", "–"), []).append(random_maps(1, backbone.grid, seed)[0])
    groups = [str(seed) for seed in scenes]
    found = {pair: localisation(torch.stack(rows), torch.stack(masks), groups) for pair, rows in maps.items()}
    return {pair: (_cell(row.intervals["pointing"]), _cell(row.intervals["auprc"])) for pair, row in found.items()}


def _cell(interval: Interval) -> str:
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def main() -> None:
    """Measure both towers and print one table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--scenes", type=int, default=100)
    scenes = range(FIRST_SCENE, FIRST_SCENE + parser.parse_args().scenes)
    trained = measure(build_backbone("tiny", "tiny", EMBEDDED), scenes)
    torch.manual_seed(0)
    random = measure(build_backbone("tiny", "tiny", None), scenes)
    rows = [[title, target, *trained[title, target], *random[title, target]] for title, target in trained]
    head = ["map", "target", "pointing", "AUPRC", "pointing, random weights", "AUPRC, random weights"]
    print(markdown(f"Parts of Grad-ECLIP and layers of Grad-CAM, {len(scenes)} rendered photographs", head, rows))


if __name__ == "__main__":
    main()
