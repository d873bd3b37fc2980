"""Whether a heat map lies on the lesion: pointing game, average precision and energy inside the mask.

All is measured in the model's pixels: maps are laid over its square (bilinear, `align_corners=False`), masks come from
`Geometry.locate`. What the model could not see counts neither for nor against a map. A lesion of which the model saw
nothing has no answer: such rows are left out and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.metrics.intervals import SAMPLES, Interval, mean_interval

MEASURES = ("pointing", "auprc", "energy")


def lay_over(values: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Scale maps [B, h, w] to the model's pixels [B, H, W], bilinear between cell centres."""
    pixels = (size, size) if isinstance(size, int) else size
    # In double precision, so that rounding does not make hills on what is flat.
    return F.interpolate(values[:, None].double(), size=pixels, mode="bilinear", align_corners=False)[:, 0].float()


def pointing_hits(maps: Tensor, masks: Tensor) -> Tensor:
    """Pointing game (Zhang et al. 2018), without tolerance: does the highest pixel lie inside the mask?

    Several highest pixels count with the share of them that lies inside, which is what drawing one of them at random
    gives on average. A flat map therefore scores the share of the picture that is mask: chance.

    Args:
        maps: [B, H, W].
        masks: Bool [B, H, W].

    Returns:
        Hits [B] in 0 to 1; NaN where the mask is empty.
    """
    flat, inside = checked(maps, masks)
    highest = flat == flat.amax(dim=1, keepdim=True)
    hits = (highest & inside).sum(dim=1) / highest.sum(dim=1)
    return hits.masked_fill(~inside.any(dim=1), float("nan"))


def average_precision(maps: Tensor, masks: Tensor) -> Tensor:
    """Area under the precision-recall curve of each map's pixels against its mask (scikit-learn's average precision).

    Args:
        maps: [B, H, W].
        masks: Bool [B, H, W].

    Returns:
        [B] in 0 to 1, chance being the mask's share of the picture; NaN where the mask is empty.
    """
    from sklearn.metrics import average_precision_score  # slow to import: only who measures waits for it

    flat, inside = checked(maps, masks)
    values = [
        average_precision_score(truth, scores) if truth.any() else float("nan")
        for truth, scores in zip(inside.cpu().numpy(), flat.cpu().numpy(), strict=True)
    ]
    return torch.tensor(values, dtype=torch.float32)


def energy_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of a map's positive mass that lies inside the mask (Wang et al. 2020), `sum_in S+ / sum S+`.

    Args:
        maps: [B, H, W]; negative values count as nothing.
        masks: Bool [B, H, W].

    Returns:
        [B] in 0 to 1; NaN where the mask is empty or the map has no positive value.
    """
    flat, inside = checked(maps, masks)
    mass = flat.double().clamp(min=0)
    share = (mass * inside).sum(dim=1) / mass.sum(dim=1)
    return share.masked_fill(~inside.any(dim=1), float("nan")).float()


@dataclass(frozen=True)
class Localisation:
    """How well the maps of one method lie on the lesions.

    Attributes:
        intervals: ``pointing``, ``auprc`` and ``energy`` with bounds; n is the number of rows that count.
        chance: Mean share of the picture that is lesion, over the rows with a lesion.
        empty_masks: Rows left out because the model saw nothing of the lesion.
        undefined_energy: Rows without any positive value, left out of ``energy`` alone.
    """

    intervals: dict[str, Interval]
    chance: float
    empty_masks: int
    undefined_energy: int


def localisation(
    values: Tensor, masks: Tensor, groups: Sequence[str], samples: int = SAMPLES, seed: int = 0
) -> Localisation:
    """Measure maps against lesions, with intervals clustered by group.

    Args:
        values: Maps on any grid [B, h, w].
        masks: Lesions in the model's pixels, bool [B, H, W] (`geometry.locate(mask, size) >= 0.5`).
        groups: Group of each row.
        samples: Number of resamples.
        seed: Seed of the draws.

    Raises:
        ValueError: If no mask has a pixel, or a map holds NaN or infinity.
    """
    rows = localisation_rows(values, masks)
    lesion = masks.flatten(1).any(dim=1).cpu().numpy()
    if not lesion.any():
        raise ValueError("No mask has a pixel inside the model's square.")
    intervals = {}
    for name in MEASURES:
        scores = rows[name].numpy()
        counted = np.flatnonzero(~np.isnan(scores))
        if len(counted):
            members = [groups[int(row)] for row in counted]
            # A tie of highest pixels hits in part, which varies less than hits and misses: the interval still holds.
            share = name == "pointing"
            intervals[name] = mean_interval(scores[counted], members, samples, seed, span=(0.0, 1.0), share=share)
    return Localisation(
        intervals=intervals,
        chance=float(rows["chance"].numpy()[lesion].mean()),
        empty_masks=int((~lesion).sum()),
        undefined_energy=int((lesion & torch.isnan(rows["energy"]).numpy()).sum()),
    )


def localisation_rows(values: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Return ``pointing``, ``auprc``, ``energy`` and ``chance`` of each row, [B] on the CPU, NaN where undefined."""
    maps = lay_over(values, (masks.shape[-2], masks.shape[-1]))
    return {
        "pointing": pointing_hits(maps, masks).cpu(),
        "auprc": average_precision(maps, masks),
        "energy": energy_inside(maps, masks).cpu(),
        "chance": masks.flatten(1).float().mean(dim=1).cpu(),
    }


def random_maps(count: int, grid: tuple[int, int], seed: int = 0) -> Tensor:
    """Uniform noise [count, h, w]: what a map scores that knows nothing."""
    return torch.rand(count, *grid, generator=torch.Generator().manual_seed(seed))


def centre_maps(count: int, grid: tuple[int, int], sigma: float = 0.25) -> Tensor:
    """A Gaussian round the centre [count, h, w]: what a photographer's habit scores.

    Args:
        count: Number of equal maps.
        grid: Rows and columns.
        sigma: Standard deviation as a share of the side.
    """
    height, width = grid
    rows = (torch.arange(height) + 0.5) / height - 0.5
    columns = (torch.arange(width) + 0.5) / width - 0.5
    squared = rows[:, None] ** 2 + columns[None, :] ** 2
    return torch.exp(-squared / (2 * sigma**2)).expand(count, -1, -1)


def colour_contrast_maps(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Distance of each pixel's CIELAB colour to the picture's median colour, averaged over each patch.

    What looking for whatever stands out from the skin scores, without any model.

    Args:
        images: sRGB in 0 to 1, [B, 3, S, S] (undo the model's normalisation first).
        grid: Rows and columns of the patch grid.

    Returns:
        Mean colour distance (CIE 1976) per patch, [B, h, w].
    """
    colours = lab(images)
    median = colours.flatten(2).median(dim=2).values
    distance = (colours - median[:, :, None, None]).norm(dim=1)
    return F.adaptive_avg_pool2d(distance[:, None], grid)[:, 0]


def lab(images: Tensor) -> Tensor:
    """Turn sRGB [B, 3, H, W] in 0 to 1 into CIELAB under D65 (IEC 61966-2-1, CIE 15)."""
    if images.min() < -1e-3 or images.max() > 1 + 1e-3:
        raise ValueError("Colours must lie in 0 to 1; undo the model's normalisation first.")
    linear = torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055).clamp(min=0) ** 2.4)
    to_xyz = torch.tensor(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    ).to(images)
    white = to_xyz.sum(dim=1)
    ratio = torch.einsum("ij,bjhw->bihw", to_xyz / white[:, None], linear)
    delta = 6 / 29
    f = torch.where(ratio > delta**3, ratio.clamp(min=1e-9) ** (1 / 3), ratio / (3 * delta**2) + 4 / 29)
    x, y, z = f.unbind(dim=1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def checked(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return flat maps [B, P] and masks [B, P], or say what is wrong with them."""
    if maps.shape != masks.shape or maps.ndim != 3:
        raise ValueError(f"Maps and masks must be equal [B, H, W], not {[*maps.shape]} and {[*masks.shape]}.")
    if masks.dtype != torch.bool:
        raise ValueError(f"Masks must be bool, not {masks.dtype}; compare the coverage with 0.5 first.")
    if not torch.isfinite(maps).all():
        raise ValueError("A map holds NaN or infinity and cannot be judged.")
    return maps.flatten(1), masks.flatten(1)
