"""What measuring maps costs: ``python -m benchmarks.measures [--rounds 3] [--photographs 1] [--methods 10]``.

Curves in both orders, sets of cells and the evidence beside random fields for several methods and texts on the tiny
tower, in one stream of masked pictures for each photograph, against the straightforward loop: photograph by photograph,
text by text, map by map, one masked picture after the other, each curve on its own, the random fields anew for each
map. Both sides must find the same numbers to 1e-5, or there is no table. The last row is all of them together. The
photographs and the maps are noise: what a measure costs does not depend on them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.common import Timing, alternately, machine, markdown, speedup
from benchmarks.evidence import straightforward
from clip_xai.explanations.evidence_calibration import FIELDS
from clip_xai.models.backbones.backbone_builder import EMBEDDED, build_backbone
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.token_drop import read_kept
from clip_xai.xai.curve_protocols import PROTOCOLS, CurveProtocol
from clip_xai.xai.insertion_deletion import insertion_deletion, ranked
from clip_xai.xai.masks import CellMasks
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.random_fields import LENGTHS, gaussian_fields
from clip_xai.xai.relevance_gain import relevance_gains, units_of
from clip_xai.xai.subset_game import sensitivity_n, subset_game
from clip_xai.xai.target import SimilarityTarget

TEXTS = 3
REMOVALS = ("token_drop", "mean")


class Work:
    """Maps of several methods for several texts on photographs of noise."""

    def __init__(self, backbone: VisionBackbone, photographs: int, methods: int) -> None:
        """Draw photographs, texts and maps."""
        side = backbone.preprocess.image_size
        generator = torch.Generator().manual_seed(0)
        self.backbone, self.grid = backbone, backbone.grid
        self.pixels = torch.randn(photographs, 3, side, side, generator=generator)
        embeddings = torch.randn(TEXTS, backbone.embed_dim, generator=generator)
        self.target = SimilarityTarget(embeddings, [str(number) for number in range(TEXTS)])
        self.maps = torch.randn(photographs, TEXTS, methods, *self.grid, generator=generator)
        units = units_of(PerturbationBank(backbone, self.pixels[:1]))
        self.fields = torch.cat([gaussian_fields(FIELDS, units, length) for length in LENGTHS])
        self.heat = torch.randn(photographs, TEXTS, methods, *units, generator=generator)

    def curves(self, removal: str) -> Tensor:
        """Areas of insertion, deletion and both reversed, in one stream for each photograph."""
        found = []
        for pixels, maps in zip(self.pixels[:, None], self.maps, strict=True):
            bank = PerturbationBank(self.backbone, pixels)
            curves = insertion_deletion(bank, self.target, maps.flatten(0, 1), PROTOCOLS[removal])
            parts = (curves.insertion, curves.deletion, curves.reversed_insertion, curves.reversed_deletion)
            areas = torch.stack([curves.area(part) for part in parts]).unflatten(1, maps.shape[:2])
            found.append(torch.stack([areas[:, text, :, text] for text in range(TEXTS)], dim=1))
        return torch.stack(found)

    def curves_by_loop(self, removal: str) -> Tensor:
        """The same, one masked picture after the other."""
        found = []
        for pixels, maps in zip(self.pixels[:, None], self.maps, strict=True):
            for text, of_text in enumerate(maps):
                for order in ranked(of_text).flatten(1):
                    found.append(torch.stack(self._areas(pixels, text, order, PROTOCOLS[removal])))
        return torch.stack(found).view(*self.maps.shape[:3], 4).permute(0, 3, 1, 2)

    def _areas(self, pixels: Tensor, text: int, order: Tensor, protocol: CurveProtocol) -> list[Tensor]:
        total = len(order)
        counts = torch.tensor(protocol.counts(total))
        kept_at = (
            lambda count: order < count, lambda count: order >= count,
            lambda count: order >= total - count, lambda count: order < total - count,
        )  # fmt: skip
        areas = []
        for kept in kept_at:
            scores = torch.stack([self._score(pixels, kept(count), text, protocol) for count in counts.tolist()])
            areas.append(protocol.areas(scores, counts / total))
        return areas

    def _score(self, pixels: Tensor, kept: Tensor, text: int, protocol: CurveProtocol) -> Tensor:
        tower, removal = self.backbone.image_tower, protocol.name
        with torch.no_grad():
            if removal == "token_drop":
                read = read_kept(tower, tower.embed(pixels), kept.nonzero()[None, :, 0], "pooled")  # type: ignore[arg-type,attr-defined]
            else:
                mask = CellMasks(kept.view(1, *self.grid)).pixels(
                    torch.tensor([0]), torch.tensor([0]), pixels.shape[-1]
                )
                filled = torch.lerp(pixels.mean(dim=(2, 3), keepdim=True).expand_as(pixels), pixels, mask[:, None])
                read = self.backbone.features(filled).pooled
            return self.target.score(read)[0, text]

    def sets(self) -> Tensor:
        """Sensitivity-n of all maps, the sets taken away once for each photograph."""
        found = []
        for pixels, maps in zip(self.pixels[:, None], self.maps, strict=True):
            game = subset_game(PerturbationBank(self.backbone, pixels), self.target, each=8)
            values = sensitivity_n(game, maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
            found.append(torch.stack([values[text, :, text] for text in range(TEXTS)]))
        return torch.stack(found)

    def sets_by_loop(self) -> Tensor:
        """The same, every set taken away again for every map."""
        found = []
        for pixels, maps in zip(self.pixels[:, None], self.maps, strict=True):
            sets = subset_game(PerturbationBank(self.backbone, pixels), self.target, each=8).removed
            for text, of_text in enumerate(maps):
                for one in of_text:
                    whole = self._score(pixels, torch.ones(one.numel(), dtype=torch.bool), text, PROTOCOLS["mean"])
                    correlations = []
                    for of_size in sets:
                        heat = torch.stack([one[taken].sum() for taken in of_size]).double()
                        left = [self._score(pixels, ~taken.flatten(), text, PROTOCOLS["mean"]) for taken in of_size]
                        drops = (whole - torch.stack(left)).double()
                        correlations.append(torch.corrcoef(torch.stack([heat, drops]))[0, 1])
                    found.append(torch.stack(correlations).mean())
        return torch.stack(found).view(self.maps.shape[:3])

    def evidence(self) -> Tensor:
        """How far the gain of each map lies above that of the mean random field, whose gains are found once."""
        found = []
        for pixels, maps in zip(self.pixels[:, None], self.heat, strict=True):
            bank = PerturbationBank(self.backbone, pixels)
            of_fields = relevance_gains(bank, self.target, self.fields, key="fields").mean(dim=0)
            gains = relevance_gains(bank, self.target, maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
            found.append(torch.stack([gains[text, :, text] - of_fields[text] for text in range(TEXTS)]))
        return torch.stack(found)

    def evidence_by_loop(self) -> Tensor:
        """The same, the fields deleted again for every map."""
        found = []
        for pixels, maps in zip(self.pixels[:, None], self.heat, strict=True):
            for text, of_text in enumerate(maps):
                for one in of_text:
                    own, *others = (
                        straightforward(self.backbone, pixels, self.target, each)[text] for each in (one, *self.fields)
                    )
                    found.append(own - torch.stack(others).mean())
        return torch.stack(found).view(self.heat.shape[:3])


def compared(
    name: str, stream: Callable[[], Tensor], loop: Callable[[], Tensor], rounds: int
) -> tuple[dict[str, Timing], float]:
    """Time both sides by turns.

    Returns:
        The times, and the largest difference of two numbers.

    Raises:
        AssertionError: Two numbers differ by more than 1e-5.
    """
    found: dict[str, Tensor] = {}

    def side(which: str, work: Callable[[], Tensor]) -> Callable[[], int]:
        def timed() -> int:
            found[which] = work()
            return found[which].numel()

        return timed

    times: dict[str, Timing] = alternately({"stream": side("stream", stream), "loop": side("loop", loop)}, rounds)
    apart = float((found["stream"] - found["loop"]).abs().max())
    if not apart <= 1e-5:
        raise AssertionError(f"{name}: the two sides differ by {apart:.1e}")
    return times, apart


def together(times: Sequence[Timing]) -> Timing:
    """Return how long the same side of all measures took, one after the other."""
    rounds = zip(*(timing.seconds for timing in times), strict=True)
    return Timing(tuple(map(sum, rounds)), sum(timing.items for timing in times))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds")
    parser.add_argument("--photographs", type=int, default=1, help="photographs in a round")
    parser.add_argument("--methods", type=int, default=10, help="maps for each text")
    options = parser.parse_args(arguments)
    work = Work(build_backbone("tiny", "tiny", EMBEDDED), options.photographs, options.methods)
    sides: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        f"curves, {name}": (partial(work.curves, name), partial(work.curves_by_loop, name)) for name in REMOVALS
    }
    sides |= {
        "sets of cells": (work.sets, work.sets_by_loop),
        f"evidence beside {len(work.fields)} random fields": (work.evidence, work.evidence_by_loop),
    }
    found = {name: compared(name, *both, options.rounds) for name, both in sides.items()}
    total = {which: together([times[which] for times, _ in found.values()]) for which in ("stream", "loop")}
    found["together"] = total, max(apart for _, apart in found.values())
    rows = [
        [name, times["stream"].median, times["loop"].median, speedup(times["stream"], times["loop"]), f"{apart:.0e}"]
        for name, (times, apart) in found.items()
    ]
    title = f"{options.methods} methods, {TEXTS} texts, {machine()}"
    print(markdown(title, ["measure", "stream, s", "loop, s", "times faster", "largest difference"], rows))


if __name__ == "__main__":
    main()
