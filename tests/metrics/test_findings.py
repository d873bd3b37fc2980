"""Findings in boxes: against brute force, and the place where a finding usually is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clip_xai.metrics.findings import (
    MEASURES,
    THRESHOLDS,
    best_point_hits,
    dilated,
    finding_rows,
    intersection_over_union,
    otsu_iou,
    otsu_threshold,
    tuned_iou,
    usual_places,
)


def boxes(count: int, side: int = 12, seed: int = 0) -> torch.Tensor:
    generator = np.random.default_rng(seed)
    masks = torch.zeros(count, side, side, dtype=torch.bool)
    for mask in masks:
        top, left = generator.integers(0, side - 4, 2)
        mask[top : top + 4, left : left + 3] = True
    return masks


def test_a_mask_grows_by_every_pixel_within_the_distance() -> None:
    masks = torch.cat([boxes(2), torch.zeros(1, 12, 12, dtype=torch.bool)])
    for distance in (0.0, 1.0, 1.5, 3.2):
        found = dilated(masks, [distance] * 3)
        for mask, grown in zip(masks, found, strict=True):
            inside = mask.nonzero().float()
            for row in range(12):
                for column in range(12):
                    gaps = (inside - torch.tensor([row, column])).norm(dim=1)
                    assert bool(grown[row, column]) == bool(len(gaps) and gaps.min() <= distance)


def test_otsu_parts_values_where_the_variance_between_is_largest() -> None:
    generator = np.random.default_rng(1)
    values = np.concatenate([generator.normal(0, 1, 300), generator.normal(6, 1, 80)])
    found = otsu_threshold(values)

    def between(threshold: float) -> float:
        low, high = values[values <= threshold], values[values > threshold]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    best = max(between(one) for one in np.sort(values)[:-1])
    assert between(found) == pytest.approx(best, rel=0.01)  # the histogram's bins are coarser than the values
    assert otsu_threshold(np.full(5, 2.0)) == 2
    flat, mask = torch.full((1, 12, 12), 3.0), boxes(1)
    assert otsu_iou(flat, mask).tolist() == [0]
    assert otsu_iou(mask.float(), mask).tolist() == [1]
    assert intersection_over_union(mask, torch.zeros_like(mask)).isnan().all()


def test_the_tuned_threshold_comes_from_the_other_half_of_the_patients() -> None:
    """Maps that are right above .5 in half of the patients and above .8 in the others: each gets the other's."""
    masks = boxes(4)
    halo = dilated(masks, [1.0] * 4)
    maps = torch.stack([
        torch.where(mask, 1.0, torch.where(ring, level, 0.0))
        for mask, ring, level in zip(masks, halo, (0.42, 0.78, 0.42, 0.78), strict=True)
    ])  # fmt: skip
    groups = ["a", "b", "c", "d"]
    found = tuned_iou(maps, masks, groups)
    for row in range(4):
        others = [other for other in range(4) if other % 2 != row % 2]
        scores = [intersection_over_union(maps[others] >= one, masks[others]).mean() for one in THRESHOLDS]
        threshold = THRESHOLDS[int(np.argmax(scores))]
        assert found[row] == intersection_over_union(maps[[row]] >= threshold, masks[[row]])[0]
    assert found[[0, 2]].tolist() == [1, 1] and found[1] < 1
    assert tuned_iou(maps, masks, ["a"] * 4).isnan().all()


def test_the_usual_place_never_sees_the_patient_itself() -> None:
    masks = boxes(6)
    groups = ["a", "a", "b", "c", "d", "e"]
    found = usual_places(masks, groups)
    for row, group in enumerate(groups):
        others = [other for other, name in enumerate(groups) if name != group]
        assert torch.allclose(found[row], masks[others].float().mean(dim=0))
    assert usual_places(masks[:2], ["a", "a"]).isnan().all()
    places = finding_rows(found, masks, groups, [1.0] * 6)
    assert set(places) == set(MEASURES)
    # Chosen on the very boxes it hits at least as many.
    assert best_point_hits(masks).mean() >= places["pointing"].mean()
    same = masks[:1].expand(6, -1, -1)
    assert best_point_hits(same).tolist() == [1] * 6
    assert finding_rows(usual_places(same, groups), same, groups, [0.0] * 6)["pointing"].tolist() == [1] * 6


def test_a_near_miss_is_a_hit_within_the_tolerance_alone_and_an_empty_mask_has_no_measure() -> None:
    mask = torch.zeros(2, 12, 12, dtype=torch.bool)
    mask[0, 2:5, 2:5] = True
    heat = torch.zeros(2, 12, 12)
    heat[:, 3, 6] = 1  # two columns beside the box
    for tolerance, hit in ((1.9, 0), (2.0, 1)):
        found = finding_rows(heat, mask, ["a", "b"], [tolerance] * 2)
        assert (float(found["pointing"][0]), float(found["pointing_tolerant"][0])) == (0, hit)
        assert all(bool(found[name][1].isnan()) for name in MEASURES)
