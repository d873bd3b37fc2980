"""Heat beside lesions: each measure over its own rows, and a lesion where most of a pixel is lesion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from clip_xai.data.record import Record
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.explanations.lesion_maps import LesionMaps
from clip_xai.models.settings import Decoding
from clip_xai.report.assemble import Answer
from clip_xai.studies.localise import measure
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.methods.attention import GradEclip
from tests.jobs.test_evaluate import write_by_frequency
from tests.support.small_captioner import small_captioner

HEAD = ("method", "explained", "pointing game", "n", "AUPRC", "n", "energy inside", "n", "lesion's share")


def answer(values: torch.Tensor) -> Answer:
    attribution = Attribution(values[None, None], "gradeclip", {}, torch.zeros(1, 1), ["a text"], True)
    return Answer("cosine", [None], [attribution], [{}])


def test_each_measure_counts_its_own_rows() -> None:
    """Two maps of twelve have positive heat: energy has n 2, and not the 12 of the pointing game."""
    backbone = small_captioner().backbone
    picture = Image.new("RGB", (48, 48), (200, 160, 140))
    mask = np.zeros((48, 48), dtype=bool)
    mask[:12, :12] = True
    geometry = backbone.preprocess.geometry(48, 48)
    lesions = LesionMaps()
    for number in range(12):
        values = torch.full(backbone.grid, -1.0)
        values[0, 0] = 1.0 if number < 2 else -0.5
        lesions.add(backbone, picture, geometry, mask, [answer(values)], f"patient {number}")
    [row, *_] = lesions.measure()
    assert (row["pointing"]["n"], row["auprc"]["n"], row["energy"]["n"], row["undefined_energy"]) == (12, 12, 2, 10)
    # All point at the lesion: Clopper and Pearson's bound for 12 patients, and none of the two with energy but theirs.
    assert (row["pointing"]["low"], row["pointing"]["high"]) == pytest.approx((0.025 ** (1 / 12), 1))
    table = lesions.table([row])
    assert table is not None and table.head == HEAD
    cells = dict(zip(HEAD[2::2], table.rows[0][2::2], strict=False))
    assert table.rows[0][3::2] == ("12", "12", "2") and cells["pointing game"] == "1.000 [0.735, 1.000]"


def test_a_pixel_is_lesion_where_most_of_it_is() -> None:
    """Half a photograph's pixel more on each side touches a frame of the model's pixels without filling it."""
    backbone = small_captioner().backbone
    size = backbone.preprocess.image_size
    side = 8 * size  # eight pixels of the photograph to one of the model
    mask = np.zeros((side, side), dtype=bool)
    mask[8 * 4 - 3 : 8 * 10 + 3, 8 * 4 - 3 : 8 * 10 + 3] = True  # 6 x 6 of the model's pixels, 3/8 of the next ones
    lesions = LesionMaps()
    picture = Image.new("RGB", (side, side), (200, 160, 140))
    geometry = backbone.preprocess.geometry(side, side)
    shown = lesions.add(backbone, picture, geometry, mask, [], "patient")
    [lesion] = lesions.masks["control: centre", "any"]
    expected = torch.zeros(size, size, dtype=torch.bool)
    expected[4:10, 4:10] = True
    assert torch.equal(lesion, expected)
    assert shown["Lesion's share of what the model saw"] == f"{36 / size**2:.2f}"


def test_empty_captions_are_counted_where_heat_is_measured(tmp_path, caplog) -> None:
    captioner = small_captioner()
    write_by_frequency(captioner, {captioner.tokenizer.eos_id: 50.0})
    Image.new("RGB", (40, 40), (200, 160, 140)).save(tmp_path / "a.png")
    mask = Image.new("L", (40, 40), 0)
    mask.paste(255, (10, 10, 20, 20))
    mask.save(tmp_path / "mask.png")
    record = Record(
        tmp_path / "a.png", "drawn", "a.png", "a", "melanoma", None, "melanoma", ("melanoma",),
        mask=tmp_path / "mask.png",
    )  # fmt: skip
    maps = measure([captioner.backbone], captioner, [record], [GradEclip()], Decoding(max_new_tokens=8))
    assert "1 of 1 caption has no map, being empty" in caplog.text
    assert ("gradeclip", "similarity") in maps.maps and ("gradeclip", "whole caption") not in maps.maps


def test_the_note_does_not_deny_the_intervals_that_the_table_prints() -> None:
    maps, mask = LesionMaps(), torch.zeros(8, 8, dtype=torch.bool)
    mask[2:6, 2:6] = True
    for number in range(4):
        maps.maps.setdefault(("random", "any"), []).append(torch.rand(8, 8))
        maps.masks.setdefault(("random", "any"), []).append(mask)
        maps.groups.setdefault(("random", "any"), []).append(str(number))
    table = maps.table(maps.measure())
    [row] = table.rows
    assert "[" in row[2] and "[" not in row[4]
    assert "over patients or lesions]" in table.note
    _require_chest_words(maps)
    assert "only shares of hits have an interval" in table.note and "no interval is given" not in table.note


def _require_chest_words(maps: LesionMaps) -> None:
    table = replace(maps, vocabulary=load_vocabulary("chest")).table(maps.measure())
    assert table is not None and "over patients]" in table.note
    assert not [word for word in ("skin", "lesion") if word in f"{table.title} {table.head} {table.note}"]
