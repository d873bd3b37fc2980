"""Masks as tools store them: the same lesion is read from all of them, or the file is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_xai.data import mask_rule
from clip_xai.data.images import UnreadableImageError, inspect_mask, read_mask
from clip_xai.data.manifest import load_manifest
from clip_xai.data.manifest_builder import build_manifest
from clip_xai.data.record import EMPTY_MASK, FULL_MASK
from clip_xai.data.settings import BuildSettings
from clip_xai.errors import UserError
from tests.data.publishers import photograph, table

LESION = np.zeros((40, 60), np.uint8)
LESION[10:30, 20:40] = 1
WHITE = Image.fromarray(LESION * 255)
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 759


def palette(numbers: np.ndarray, colours: list[int], **info: object) -> Image.Image:
    image = Image.fromarray(numbers, "P")
    image.putpalette(colours)
    image.info.update(info)
    return image


def coloured(colour: tuple[int, int, int], background: tuple[int, int, int] = (0, 0, 0)) -> Image.Image:
    return Image.fromarray(np.where(LESION[..., None] == 1, colour, background).astype(np.uint8))


def on_clear_ground(inside: object, outside: object) -> Image.Image:
    image = Image.fromarray(np.where(LESION[..., None] == 1, inside, outside).astype(np.uint8)).convert("RGBA")
    image.putalpha(WHITE)
    return image


def two_labels() -> np.ndarray:
    return LESION + LESION * (np.arange(60) > 29)


MASKS = {
    "0 and 255": WHITE,
    "0 and 1": Image.fromarray(LESION),
    "0 and 3": Image.fromarray(LESION * 3),
    "0 and 200": Image.fromarray(LESION * 200),
    "bilevel": WHITE.convert("1"),
    "16 bits, 0 and 1": Image.fromarray(LESION.astype(np.uint16)),
    "16 bits, 0 and 255": Image.fromarray(LESION.astype(np.uint16) * 255),
    "16 bits, 0 and 65535": Image.fromarray(LESION.astype(np.uint16) * 65535),
    "three labels": Image.fromarray(two_labels()),
    "palette of labels": palette(two_labels(), VOC),
    "palette of one label": palette(LESION, VOC),
    "palette without black": palette(LESION, [68, 1, 84, 253, 231, 36] + [0] * 762),
    "palette with clear ground": palette(LESION, [255, 255, 255, 9, 9, 9] + [0] * 762, transparency=0),
    "palette, white first": WHITE.convert("RGB").quantize(2),
    "palette of greys": WHITE.convert("P"),
    "grey in RGB": WHITE.convert("RGB"),
    "RGB, 0 and 1": Image.fromarray(LESION).convert("RGB"),
    "one colour": coloured((255, 0, 0)),
    "one dark colour": coloured((0, 0, 90)),
    "labels in colour": Image.fromarray(
        np.array([[0, 0, 0], [128, 0, 0], [0, 0, 64]], np.uint8)[two_labels()]
    ),
    "white on clear": on_clear_ground((255, 255, 255), (0, 0, 0)),
    "white on clear white": on_clear_ground((255, 255, 255), (255, 255, 255)),
    "black on clear": on_clear_ground((0, 0, 0), (255, 255, 255)),
    "opaque": WHITE.convert("RGBA"),
    "grey with alpha": WHITE.convert("LA"),
    "all clear": Image.merge("LA", (WHITE, Image.new("L", (60, 40), 0))),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_a_lesion_is_the_same_however_it_is_stored(tmp_path: Path, name: str) -> None:
    MASKS[name].save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png"), LESION == 1)


@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 0, 0), (0, 200, 255)])
def test_soft_edges_are_cut_at_half(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    shade = np.zeros((40, 60))
    shade[10:30, 20:40] = 1
    shade[10:30, 19], shade[10:30, 40] = 0.45, 0.55
    soft = (shade[..., None] * np.array(colour)).round().astype(np.uint8)
    Image.fromarray(soft).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png"), shade > 0.5)


def test_a_jpeg_and_sixteen_bits_of_shades(tmp_path: Path) -> None:
    WHITE.save(tmp_path / "m.jpg", quality=60)
    assert len(np.unique(np.asarray(Image.open(tmp_path / "m.jpg")))) > 2
    assert np.array_equal(read_mask(tmp_path / "m.jpg"), LESION == 1)
    ramp = np.arange(0, 65536, 257, dtype=np.uint16)[None].repeat(4, 0)
    Image.fromarray(ramp).save(tmp_path / "r.png")
    assert read_mask(tmp_path / "r.png")[0].sum() == 128 and not read_mask(tmp_path / "r.png")[0, 127]


def test_a_share_of_exactly_half_is_not_above_half() -> None:
    shares = np.array([[0.0, 0.25, 0.5, 0.75, 1.0]], np.float32)
    inside, how = mask_rule.lesion_of(Image.fromarray(shares))
    assert (inside.tolist(), how) == ([[False, False, False, True, True]], mask_rule.HALF)


def test_small_numbers_are_labels_up_to_the_last_and_shades_from_there_on() -> None:
    labels = np.array([[0, 7, mask_rule.MAX_LABEL]], np.uint8)
    inside, how = mask_rule.lesion_of(Image.fromarray(labels))
    assert (inside.tolist(), how) == ([[False, True, True]], mask_rule.LABELS)
    labels[0, 2] += 1
    with pytest.raises(ValueError, match="0, 7, 32"):
        mask_rule.lesion_of(Image.fromarray(labels))


def test_one_value_marks_nothing_or_everything(tmp_path: Path) -> None:
    for name, image, share in (
        ("black", Image.new("L", (9, 9)), 0), ("white", Image.new("L", (9, 9), 255), 1),
        ("one", Image.new("L", (9, 9), 1), 1),
        ("label", palette(np.ones((9, 9), np.uint8), VOC), 1), ("clear", Image.new("RGBA", (9, 9)), 0),
        ("red", Image.new("RGB", (9, 9), "red"), 1), ("bit", Image.new("1", (9, 9), 1), 1),
    ):  # fmt: skip
        image.save(tmp_path / f"{name}.png")
        facts = inspect_mask(tmp_path / f"{name}.png")
        assert (facts.share, facts.how) == (share, mask_rule.FULL if share else mask_rule.EMPTY), name


REFUSED = {
    "1 and 2": Image.fromarray(LESION + 1),
    "128 and 255": Image.fromarray(LESION * 127 + 128),
    "shades up to 90": Image.fromarray(np.arange(90, dtype=np.uint8)[None].repeat(9, 0)),
    "12 bits": Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)),
    "black is not the first": palette(1 - LESION, [128, 0, 0, 0, 0, 0] + [0] * 762),
    "two colours without black": coloured((255, 0, 0), (255, 255, 255)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_open_is_refused_and_asked_for(tmp_path: Path, name: str) -> None:
    REFUSED[name].save(tmp_path / "m.png")
    with pytest.raises(UnreadableImageError, match=r"m\.png: a mask of .*data\.mask_values=") as refused:
        read_mask(tmp_path / "m.png")
    assert len(str(refused.value)) < 200 + len(str(tmp_path)) and "\n" not in str(refused.value)


def test_a_photograph_is_no_mask(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    noise[0, 0] = 0
    Image.fromarray(noise).save(tmp_path / "m.png")
    with pytest.raises(UnreadableImageError, match=r"1,?200 colours|11\d\d colours"):
        read_mask(tmp_path / "m.png")


def test_named_values_decide(tmp_path: Path) -> None:
    Image.fromarray(two_labels()).save(tmp_path / "labels.png")
    assert np.array_equal(read_mask(tmp_path / "labels.png", [2]), two_labels() == 2)
    Image.fromarray(LESION + 1).save(tmp_path / "from_one.png")
    assert np.array_equal(read_mask(tmp_path / "from_one.png", [2]), LESION == 1)
    palette(two_labels(), VOC).save(tmp_path / "palette.png")
    assert np.array_equal(read_mask(tmp_path / "palette.png", (1,)), two_labels() == 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five photographs of a person's own, each with another mask."""
    root = tmp_path / "data" / "own"
    masks = {"a": WHITE, "b": REFUSED["1 and 2"], "c": Image.new("L", (60, 40)), "d": Image.new("L", (60, 40), 9)}
    rows = []
    for number, (name, mask) in enumerate([*masks.items(), ("e", Image.new("L", (9, 9)))]):
        photograph(root / f"{name}.png", number)
        Image.open(root / f"{name}.png").resize((60, 40)).save(root / f"{name}.png")
        (root / "masks").mkdir(exist_ok=True)
        mask.save(root / "masks" / f"{name}.png")
        rows.append({"image": f"{name}.png", "caption": "A spot.", "mask": f"masks/{name}.png"})
    table(root / "captions.csv", ["image", "caption", "mask"], *rows)
    return root.parent


def test_the_build_checks_every_mask_and_says_how_it_read_them(root: Path, tmp_path: Path) -> None:
    records = {record.name: record for record in load_manifest(build_manifest(root, tmp_path / "out"))}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [name for name, record in records.items() if record.mask] == ["a.png", "c.png", "d.png"]
    assert EMPTY_MASK in records["c.png"].flags and FULL_MASK in records["d.png"].flags
    assert not {EMPTY_MASK, FULL_MASK} & set(records["a.png"].flags)
    told = {problem["file"]: problem["reason"] for problem in report["problems"]}
    assert set(told) == {"b.png", "e.png"} and "9 x 9" in told["e.png"] and "data.mask_values" in told["b.png"]
    source = report["sources"]["own"]
    assert source["masks_read_as"] == {mask_rule.TWO: 1, mask_rule.EMPTY: 1, mask_rule.FULL: 1}
    assert (source["masks_that_mark_nothing"], source["masks_that_mark_everything"]) == (1, 1)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "1 marks nothing" in page and mask_rule.TWO in page


def test_the_setting_reaches_the_manifest_and_is_read_anew(root: Path, tmp_path: Path) -> None:
    build_manifest(root, tmp_path / "out")
    records = load_manifest(build_manifest(root, tmp_path / "out", BuildSettings(mask_values=[2, 255])))
    shares = {}
    for record in records:
        if record.mask:
            shares[record.name] = int(read_mask(record.mask, record.mask_values).sum())
    assert shares == {"a.png": 400, "b.png": 400, "c.png": 0, "d.png": 0}
    with pytest.raises(UserError, match="mask_values="):
        BuildSettings(mask_values=[])


@pytest.mark.parametrize("values", [[300], [7], [1, 2]])
def test_values_that_no_mask_holds_are_refused(values: list[int], tmp_path: Path) -> None:
    folder = tmp_path / "data" / "own"
    rows = []
    for number in range(3):
        photograph(folder / f"{number}.png", number)
        Image.open(folder / f"{number}.png").resize((60, 40)).save(folder / f"{number}.png")
        WHITE.save(folder / f"m{number}.png")
        rows.append({"image": f"{number}.png", "caption": "A spot.", "mask": f"m{number}.png"})
    table(folder / "captions.csv", ["image", "caption", "mask"], *rows)
    with pytest.raises(UserError, match=r"data\.mask_values=.*: none of 3 masks of own holds any of them"):
        build_manifest(folder.parent, tmp_path / "out", BuildSettings(mask_values=values))
    records = load_manifest(build_manifest(folder.parent, tmp_path / "out", BuildSettings(mask_values=[255])))
    assert all(read_mask(record.mask, record.mask_values).sum() == 400 for record in records)


@pytest.mark.parametrize("name", ["m.tif", "m.gif", "m.png", "m.webp"])
def test_one_of_several_pictures_in_a_file_is_no_mask(name: str, tmp_path: Path) -> None:
    empty = Image.new("L", WHITE.size)
    empty.save(tmp_path / name, save_all=True, append_images=[WHITE.convert("L")])
    with pytest.raises(UnreadableImageError, match=r"2 pictures in one file, .*: save that one alone"):
        read_mask(tmp_path / name)
