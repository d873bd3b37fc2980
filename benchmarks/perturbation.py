"""Perturbation methods against captum, pytorch-grad-cam and RISE as published, on a ViT-B/16 at random weights.

    python -m benchmarks.perturbation                # about two minutes on one core: few masks and channels
    python -m benchmarks.perturbation --texts 16 --full

Both sides do the same work: the same masks (or as many coalitions, or all channels), the same chunks, float32, one
image. A peer explains its texts one after the other, as its interface asks; here they share one bank. "A further text"
is what a text costs once another was explained: the difference of T texts and one, divided by T - 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import open_clip
import torch
from captum.attr import KernelShap as CaptumKernelShap
from captum.attr import Occlusion as CaptumOcclusion
from pytorch_grad_cam import AblationCAM, ScoreCAM
from pytorch_grad_cam.ablation_layer import AblationLayerVit
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from benchmarks.common import Timing, alternately, machine, markdown, peak_mib, speedup
from clip_xai.data.preprocess import Preprocess
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.backbones.text_tokenizers import ClipTokenizer
from clip_xai.xai.explainer import Explainer
from clip_xai.xai.masks import smooth_masks
from clip_xai.xai.methods import AblationCam, KernelShap, Occlusion, Rise, ScoreCam, perturbed_cam
from clip_xai.xai.methods.perturbed_cam import channels_of
from clip_xai.xai.players import grid_players
from clip_xai.xai.target import SimilarityTarget

CHUNK = 16


class Scores(nn.Module):
    """What captum and pytorch-grad-cam ask of a model: scores ``[B, T]`` of images."""

    def __init__(self, backbone: OpenClipBackbone, target: SimilarityTarget) -> None:
        super().__init__()
        self.backbone, self.target = backbone, target

    def forward(self, pixels: Tensor) -> Tensor:
        """Score images."""
        return self.target.score(self.backbone.encode_image(pixels))


class FewChannels(AblationLayerVit):
    """The library's layer, asked for the first few channels only, so that the benchmark ends."""

    channels = 0

    def activations_to_be_ablated(self, activations: Tensor, ratio_channels_to_ablate: float = 1.0) -> np.ndarray:
        """Choose the first channels."""
        del activations, ratio_channels_to_ablate
        self.indices = np.arange(self.channels)
        return self.indices


def as_image(tokens: Tensor) -> Tensor:
    """Return the patch tokens channels first."""
    return tokens[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)


class Sides:
    """The two sides of each comparison, for T texts."""

    def __init__(self, full: bool, masks: int) -> None:
        torch.manual_seed(0)
        model = open_clip.create_model("ViT-B-16", pretrained=None)
        preprocess = Preprocess(image_size=224)
        self.backbone = OpenClipBackbone(model, ClipTokenizer(), preprocess, "ViT-B-16").eval().requires_grad_(False)
        self.pixels = torch.randn(1, 3, 224, 224)
        self.embeddings = torch.randn(64, self.backbone.embed_dim)
        self.masks = 1000 if full else masks
        self.channels = self.backbone.width if full else 32

    def target(self, texts: int) -> SimilarityTarget:
        """Return the similarity to T texts."""
        return SimilarityTarget(self.embeddings[:texts], [str(text) for text in range(texts)])

    def ours(self, explainer: Explainer, texts: int) -> Callable[[], int]:
        """Return a call that explains T texts."""

        def few(*arguments: Any) -> Tensor:
            return channels_of(*arguments)[:, : self.channels]

        def work() -> int:
            with mock.patch.object(perturbed_cam, "channels_of", few):  # as many channels as the peer is asked for
                explainer.explain(self.backbone, self.pixels, self.target(texts))
            return 1

        return work

    def peer(self, one: Callable[[Scores, int], object], texts: int) -> Callable[[], int]:
        """Return a call that explains T texts one after the other by a peer."""
        scores = Scores(self.backbone, self.target(texts))

        def work() -> int:
            with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():  # progress bars and advice
                warnings.simplefilter("ignore")
                for text in range(texts):
                    one(scores, text)
            return 1

        return work

    def occlusion(self, scores: Scores, text: int) -> None:
        """Captum, with windows of as many patches as this project's side."""
        captum = CaptumOcclusion(scores)
        captum.attribute(
            self.pixels, (3, 64, 64), strides=(3, 32, 32), baselines=0, target=text, perturbations_per_eval=CHUNK
        )

    def kernelshap(self, scores: Scores, text: int) -> None:
        """Captum, with the same players and as many coalitions."""
        captum = CaptumKernelShap(scores)
        owners = grid_players(224, 3, 3)[None, None]
        captum.attribute(
            self.pixels, baselines=0, target=text, feature_mask=owners, n_samples=self.masks + 8,
            perturbations_per_eval=CHUNK,
        )  # fmt: skip

    def rise(self, scores: Scores, text: int) -> None:
        """The loop as published: all masks at full size, scores in batches, one text at a time."""
        drawn = smooth_masks(self.masks, 7, 0.5, 224, seed=0)
        rows = torch.arange(self.masks)
        masks = drawn.pixels(torch.zeros_like(rows), rows, 224)
        stack = self.pixels * masks[:, None]
        with torch.no_grad():
            found = torch.cat([scores(batch)[:, text] for batch in stack.split(CHUNK)])
        (found @ masks.flatten(1)).reshape(224, 224) / self.masks / 0.5

    def scorecam(self, scores: Scores, text: int) -> None:
        """pytorch-grad-cam on the same tokens, for the first few channels (all with --full)."""
        self._cam(ScoreCAM, scores, text, self.channels)

    def ablationcam(self, scores: Scores, text: int) -> None:
        """pytorch-grad-cam on the same tokens, for the first few channels (all with --full)."""
        layer = FewChannels()
        layer.channels = self.channels
        self._cam(AblationCAM, scores, text, ablation_layer=layer, batch_size=CHUNK)

    def _cam(self, kind: type, scores: Scores, text: int, channels: int | None = None, **options: object) -> None:
        block = self.backbone.visual.transformer.resblocks[-1].ln_1
        with kind(scores, [block], lambda tokens: as_image(tokens)[:, :channels], **options) as cam:
            cam.batch_size = CHUNK
            cam(self.pixels.clone().requires_grad_(), [ClassifierOutputTarget(text)])


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=2, help="T of the second measurement, at least 2")
    parser.add_argument("--rounds", type=int, default=1, help="timed rounds")
    parser.add_argument("--full", action="store_true", help="1,000 masks and all channels, for a GPU")
    parser.add_argument("--masks", type=int, default=32, help="masks or coalitions without --full")
    parser.add_argument("--only", nargs="*", help="methods to measure; all without")
    arguments = parser.parse_args()
    sides = Sides(arguments.full, arguments.masks)
    methods: dict[str, tuple[Explainer, Callable[[Scores, int], object], str]] = {
        "occlusion": (Occlusion(window=4, stride=2, chunk_size=CHUNK), sides.occlusion, "captum"),
        "kernelshap": (KernelShap(cells=3, samples=sides.masks + 6, chunk_size=CHUNK), sides.kernelshap, "captum"),
        "rise": (Rise(masks=sides.masks, chunk_size=CHUNK), sides.rise, "as published"),
        "scorecam": (ScoreCam(chunk_size=CHUNK), sides.scorecam, "grad-cam"),
        "ablationcam": (AblationCam(chunk_size=CHUNK), sides.ablationcam, "grad-cam"),
    }
    rows = []
    for name, (explainer, peer, library) in methods.items():
        if arguments.only and name not in arguments.only:
            continue
        found: dict[int, dict[str, Timing]] = {}
        for texts in (1, arguments.texts):
            found[texts] = alternately(
                {"here": sides.ours(explainer, texts), "peer": sides.peer(peer, texts)}, arguments.rounds, warmup=0
            )
        more = {
            side: (found[arguments.texts][side].median - found[1][side].median) / (arguments.texts - 1)
            for side in ("here", "peer")
        }
        memory = {"here": peak_mib(sides.ours(explainer, 1)), "peer": peak_mib(sides.peer(peer, 1))}
        # The closed form of Ablation-CAM takes all channels at once, so its peer's few are counted as often.
        counted = sides.backbone.width / sides.channels if name == "ablationcam" else 1.0
        one = {side: timing.median * (counted if side == "peer" else 1) for side, timing in found[1].items()}
        more["peer"] *= counted
        times = [counted * speedup(found[texts]["here"], found[texts]["peer"]) for texts in found]
        rows.append([name, library, *one.values(), times[0], times[-1], *more.values(), *memory.values()])
        print(f"{name}: {one['here']:.2f} s, {library} {one['peer']:.2f} s", flush=True)
    several = f"times, {arguments.texts} texts"
    headers = ["method", "peer", "s an image", "peer", "times", several, "s a further text", "peer", "peak MiB", "peer"]
    amount = f"{sides.masks} masks or coalitions, {sides.channels} channels (Ablation-CAM: all {sides.backbone.width})"
    print(f"\n{machine()}; ViT-B/16 at random weights, one image, {amount}\n")
    print(markdown("Perturbation", headers, rows))


if __name__ == "__main__":
    main()
