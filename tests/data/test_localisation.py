"""Labels, boxes and masks of findings: kept by a manifest, and laid where a model sees them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clip_xai.data.box_placing import place_findings
from clip_xai.data.boxes import Box, mask_of_boxes
from clip_xai.data.labels import label_matrix, label_names, with_diagnoses_as_labels
from clip_xai.data.localisation import localisation_on_grid, localisation_truth, localised_labels
from clip_xai.data.manifest import load_manifest, write_manifest
from clip_xai.data.preprocess import Preprocess
from clip_xai.data.record import Record
from clip_xai.data.run_lengths import decode_run_lengths, encode_run_lengths, pack_counts
from clip_xai.errors import UserError

#: What pycocotools 2.0.11 packs: the plain counts beside it.
PACKED = {
    "51203": [5, 1, 2, 1, 5],  # the fifth, 5, less the third, 2
    "0d0": [0, 20],
    "1232OM0": [1, 2, 3, 4, 2, 1, 2],
    "`[T2\\9d600:VTj=": [70000, 300, 212, 300, 212, 310, 452954],
}


def record(**more: object) -> Record:
    plain = Record(Path("/d/a.png"), "nih", "a.png", "g", None, None, "", (), height=40, width=60)
    return replace(plain, **more)  # type: ignore[arg-type]


def slow_mask(boxes: list[Box], height: int, width: int) -> np.ndarray:
    """Oracle: each pixel asked by its centre."""
    return np.array(
        [
            [any(b.left <= x + 0.5 < b.right and b.top <= y + 0.5 < b.bottom for b in boxes) for x in range(width)]
            for y in range(height)
        ],
        dtype=bool,
    ).reshape(height, width)


edges = st.floats(-5, 20, width=32, allow_subnormal=False)
sides = st.floats(1, 12, width=32, allow_subnormal=False)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.builds(Box, st.just("a"), edges, edges, sides, sides), max_size=3))
def test_a_mask_of_boxes_is_their_union(boxes: list[Box]) -> None:
    assert (mask_of_boxes(boxes, 9, 13) == slow_mask(boxes, 9, 13)).all()


def test_a_box_between_two_centres_still_marks_a_pixel() -> None:
    assert np.argwhere(mask_of_boxes([Box("a", 2.6, 1.6, 0.2, 0.3)], 4, 5)).tolist() == [[1, 2]]


@pytest.mark.parametrize("values", [(0, 0, 0, 1), (0, 0, 1, -1), (float("nan"), 0, 1, 1), (0, float("inf"), 1, 1)])
def test_what_is_no_box_is_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="a box"):
        Box("a", *values)


def test_labels_boxes_and_masks_come_back_from_a_manifest(tmp_path: Path) -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[3:9, 10:20] = True
    kept = [
        record(
            image=tmp_path / "a.png",
            labels={"Mass": True, "Épanchement; ü": False, "Edema": None},
            boxes=(Box("Mass", 225.084745762712, 1, 79.5, 2), Box("Mass", 0, 0, 1, 1)),
            label_masks={"Mass": encode_run_lengths(mask)},
        ),
        record(image=tmp_path / "b.png", name="b.png"),
    ]
    write_manifest(tmp_path / "m.parquet", kept, tmp_path)
    loaded = load_manifest(tmp_path / "m.parquet")
    assert loaded == kept
    assert list(loaded[0].labels) == ["Mass", "Épanchement; ü", "Edema"]
    assert loaded[0].labels["Edema"] is None and loaded[1].labels == {} and loaded[1].references == ()


def test_an_older_manifest_is_to_be_written_again(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.parquet", [record(image=tmp_path / "a.png")], tmp_path)
    table = pq.read_table(tmp_path / "m.parquet")
    pq.write_table(table.drop_columns(["labels", "boxes", "label_masks"]), tmp_path / "m.parquet")
    with pytest.raises(UserError, match="labels, boxes, label_masks missing"):
        load_manifest(tmp_path / "m.parquet")


def test_boxes_are_scaled_clipped_or_left_out_by_name() -> None:
    drawn = (Box("Mass", 512, 512, 256, 256), Box("Mass", 900, 0, 200, 100), Box("Nodule", 1100, 0, 10, 10))
    row = record(height=512, width=1024, boxes=drawn, box_frame=(1024, 1024))
    problems = place_findings(row)
    assert row.boxes == (Box("Mass", 512, 256, 256, 128), Box("Mass", 900, 0, 124, 50))
    assert [problem.kind for problem in problems] == ["box", "box"]
    assert "Mass (900, 0) to (1100, 50) reaches beyond the photograph of 1024 x 512: clipped" in problems[0].reason
    assert "Nodule (1100, 0) to (1110, 5) lies outside" in problems[1].reason
    assert place_findings(row) == []


def test_a_mask_of_another_size_is_left_out_by_name() -> None:
    row = record(label_masks={"Mass": encode_run_lengths(np.ones((3, 3), dtype=bool)), "Edema": "~"})
    assert [problem.kind for problem in place_findings(row)] == ["mask", "mask"]
    assert row.label_masks == {}


def test_the_truth_of_a_label_is_its_boxes_and_masks(tmp_path: Path) -> None:
    marked = np.zeros((40, 60), dtype=bool)
    marked[30:, :5] = True
    file = tmp_path / "mask.png"
    Image.fromarray(marked.astype(np.uint8) * 255).save(file)
    boxes = (Box("Mass", 1, 2, 3, 4), Box("Mass", 10, 2, 3, 4), Box("Nodule", 50, 30, 2, 2))
    row = record(boxes=boxes, label_masks={"Edema": encode_run_lengths(marked)}, labels={"Nodule": False})
    assert localised_labels(row) == ("Mass", "Nodule", "Edema")
    assert (localisation_truth(row, "Mass") == slow_mask(list(boxes[:2]), 40, 60)).all()
    assert (localisation_truth(row, "Edema") == marked).all()
    assert (localisation_truth(row) == slow_mask(list(boxes), 40, 60) | marked).all()
    assert localisation_truth(row, "Nodule") is None, "stated to be absent"
    assert localisation_truth(row, "Hernia") is None
    # A mask file marks the subject of the photograph, whatever it is called; but not beside boxes that have names.
    assert (localisation_truth(record(mask=file), "melanoma") == marked).all()
    assert localisation_truth(record(mask=file, boxes=boxes), "Hernia") is None
    assert (localisation_truth(record(mask=file, boxes=boxes)) == slow_mask(list(boxes), 40, 60) | marked).all()
    assert localisation_truth(record()) is None


@pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
def test_boxes_lie_in_the_space_of_heat_maps(resize: str) -> None:
    """Oracle: the picture of the box itself goes through the model's preprocessing."""
    row = record(height=120, width=200, boxes=(Box("Mass", 70, 30, 45, 50),))
    preprocess = Preprocess(image_size=40, resize=resize, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))
    shares = localisation_on_grid(row, preprocess, 40, "Mass")
    picture = Image.fromarray(slow_mask(list(row.boxes), 120, 200).astype(np.uint8) * 255)
    seen = preprocess(picture)[0]
    assert shares is not None and shares.shape == seen.shape
    # Bilinear filters blur the edges by up to half a cell: the middle and the centre of mass must agree.
    assert (shares - seen).abs().max() < 0.5
    for axis in (0, 1):
        place = torch.arange(40) + 0.5
        centre, oracle = ((values.sum(axis) * place).sum() / values.sum() for values in (shares, seen))
        assert abs(float(centre - oracle)) < 0.05
    assert abs(float(shares.sum() - seen.sum())) / float(seen.sum()) < 0.02
    assert localisation_on_grid(row, preprocess, 40, "Hernia") is None


@pytest.mark.parametrize("packed", PACKED)
def test_run_lengths_are_packed_as_coco_packs_them(packed: str) -> None:
    counts = PACKED[packed]
    assert pack_counts(counts) == packed
    assert (decode_run_lengths(packed, sum(counts), 1) == decode_run_lengths(counts, sum(counts), 1)).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 90), st.integers(0, 2**32 - 1), st.floats(0, 1, allow_subnormal=False))
def test_run_lengths_give_the_mask_back(height: int, width: int, seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    assert (decode_run_lengths(encode_run_lengths(mask), height, width) == mask).all()


def test_plain_counts_go_down_the_columns() -> None:
    mask = decode_run_lengths([1, 2, 3], 2, 3)
    assert mask.tolist() == [[False, True, False], [True, False, False]]
    for damaged in ([1, 2], [-1, 7], "5`", " "):
        with pytest.raises(ValueError, match="run lengths"):
            decode_run_lengths(damaged, 2, 3)


def test_labels_as_numbers() -> None:
    rows = [record(labels={"b": True, "a": None}), record(), record(labels={"a": False})]
    assert label_names(rows) == ("b", "a")
    np.testing.assert_array_equal(
        label_matrix(rows, ("a", "b")), np.array([[np.nan, 1], [np.nan, np.nan], [0, np.nan]], dtype=np.float32)
    )
    assert label_matrix(rows, ("a",), uncertain="ones", not_stated="zeros").tolist() == [[1], [0], [0]]
    with pytest.raises(ValueError, match="'both' is not a policy; choose one of masked, ones, zeros"):
        label_matrix(rows, ("a",), uncertain="both")


def test_a_diagnosis_is_one_label_of_all() -> None:
    rows = [record(diagnosis="nevus"), record(), record(diagnosis="melanoma", labels={"x": True})]
    seen = with_diagnoses_as_labels(rows)
    assert [row.labels for row in seen] == [
        {"melanoma": False, "nevus": True}, {}, {"melanoma": True, "nevus": False},
    ]  # fmt: skip
    assert rows[2].labels == {"x": True}, "the rows themselves stay as they are"
