"""All six data sets at their real size, with tiny drawn pictures, invented rows and faults whose places are known."""

from __future__ import annotations

import io
import json
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.data.publishers import (
    DDI2_COLUMNS,
    DDI_COLUMNS,
    HAM_COLUMNS,
    MIDAS_COLUMNS,
    PAD_COLUMNS,
    spreadsheet,
    table,
)

VOCABULARY: dict[str, Any] = json.loads((Path(__file__).parent / "vocabulary.json").read_text(encoding="utf-8"))
ROWS = {"ham10000": 11720, "pad_ufes_20": 2298, "mra_midas": 3416, "ddi": 656, "ddi2": 665, "skincap": 4000}
CLASSES = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
SKINCAP = [
    "id", "skincap_file_path", "ori_file_path", "source", "disease", "caption_zh", "caption_zh_polish",
    "caption_zh_polish_en", "fitzpatrick_scale", "skin_tone", "malignant", "nine_partition_label",
    "three_partition_label", "Do not consider this image", *VOCABULARY["skincon"],
]  # fmt: skip


@dataclass
class Planted:
    """What was hidden where, by ``source/file name``.

    Attributes:
        missing: Rows whose photographs were not written.
        unreadable: Photographs that cannot be shown.
        refused: Rows that a table cannot mean, by source.
        same: Pairs that show one photograph (identical bytes, or the publisher's key).
        alike: Pairs that show one photograph saved anew, which only their looks tell.
        conflicts: Pairs of one photograph under two diagnoses.
        together: Lists of rows that must share a group.
        odd: Photographs of unusual kinds that can be shown all the same.
        wrong_extension: Photographs whose name lies about their format.
    """

    missing: set[str] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)
    refused: dict[str, int] = field(default_factory=dict)
    same: list[tuple[str, str]] = field(default_factory=list)
    alike: list[tuple[str, str]] = field(default_factory=list)
    conflicts: list[tuple[str, str]] = field(default_factory=list)
    together: list[list[str]] = field(default_factory=list)
    odd: set[str] = field(default_factory=set)
    wrong_extension: set[str] = field(default_factory=set)


def write(root: Path) -> Planted:
    """Write the six data sets below a folder."""
    planted = Planted()
    painter = _Painter(root)
    _ham(root / "HAM", painter, planted)
    _pad(root / "zr7vgbcyr2-1", painter, planted)
    numbers = _midas(root / "midasmultimodalimagedatasetforaibasedskincancer", painter, planted)
    _ddi(root / "ddidiversedermatologyimages", painter, planted)
    _ddi2(root / "ddi2diversedermatologyimages2", painter, planted, numbers)
    _skincap(root / "SkinCAP", painter, planted)
    for folder in (root / "HAM", root / "SkinCAP" / "skincap"):
        (folder / ".DS_Store").write_bytes(b"\0")
        (folder / "__MACOSX").mkdir()
        (folder / "__MACOSX" / "._ISIC_0024306.jpg").write_bytes(b"\0")
    return planted


def picture(number: int) -> Image.Image:
    """Return picture number `number`: soft spots unlike those of every other number."""
    draw = np.random.default_rng(number)
    spots = (draw.integers(40, 200, (5, 6, 1)) + draw.integers(0, 40, (5, 6, 3))).astype(np.uint8)
    return Image.fromarray(spots).resize((32, 24), Image.Resampling.BICUBIC)


class _Painter:
    """Writes pictures, each of its own number; the same number again where a photograph is to come twice."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.numbers: dict[str, int] = {}

    def paint(self, name: str, path: Path, number: int | None = None, mode: str = "RGB", quality: int = 90) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.numbers[name] = len(self.numbers) if number is None else number
        image = picture(self.numbers[name])
        content = io.BytesIO()
        if path.suffix.lower() == ".png":
            image.convert(mode).save(content, "PNG", compress_level=1)
        else:
            image.convert(mode).save(content, "JPEG", quality=quality)
        path.write_bytes(content.getvalue())


def values(counts: dict[str, int] | list[str], rows: int, seed: int) -> list[str]:
    """Return `rows` values in the proportions of the counts, shuffled; ``nan`` becomes an empty cell."""
    if isinstance(counts, list):
        counts = dict.fromkeys(counts, 1)
    names, weights = list(counts), np.array(list(counts.values()), dtype=float)
    # Largest remainders, so that real row numbers give the real counts.
    exact = weights / weights.sum() * rows
    whole = np.floor(exact).astype(int)
    whole[np.argsort(whole - exact)[: rows - whole.sum()]] += 1
    listed = [("" if name == "nan" else name) for name, count in zip(names, whole, strict=True) for _ in range(count)]
    return [listed[place] for place in np.random.default_rng(seed).permutation(rows)]


def families(counts: dict[str, int]) -> list[int]:
    """Return for each row the number of its lesion, with as many rows a lesion as the counts say."""
    sizes = [int(size) for size, count in counts.items() for _ in range(count)]
    return [lesion for lesion, size in enumerate(sizes) for _ in range(size)]


def _ham(folder: Path, painter: _Painter, planted: Planted) -> None:
    """The Dataverse's tables for training and test, the challenge's for validation; nested and in lower case."""
    kind_of: dict[str, str] = {}
    for split, prefix, ids, name in (
        ("train", "HAM", range(24306, 34321), "HAM10000_metadata.csv"),
        ("test", "HAMTEST", range(34524, 36036), "ISIC2018_Task3_Test_GroundTruth.csv"),
    ):
        counts = VOCABULARY[f"ham10000_{split}"]
        lesions = families(counts["images_per_lesion"])
        columns = {key: values(counts[key], len(ids), seed) for seed, key in enumerate(HAM_COLUMNS[3:])}
        kinds = values(counts["dx"], len(ids), 9)
        rows = [
            {"lesion_id": f"{prefix}_{lesions[n]:07d}", "image_id": f"ISIC_{ids[n]:07d}", "dx": kinds[lesions[n]],
             **{key: column[n] for key, column in columns.items()}}
            for n in range(len(ids))
        ]  # fmt: skip
        table(folder / name, HAM_COLUMNS, *rows)
        by_lesion: dict[str, list[str]] = {}
        kind_of.update({row["image_id"]: row["dx"] for row in rows})
        for n, row in enumerate(rows):
            file = f"{row['image_id']}.jpg"
            place = "ISIC2018_Task3_Test_Images" if split == "test" else f"ham10000_images_part_{1 + n % 2}/nested"
            painter.paint(f"ham10000/{file}", folder / place / file)
            by_lesion.setdefault(row["lesion_id"], []).append(f"ham10000/{file}")
        planted.together += [members for members in by_lesion.values() if len(members) > 1]
    validation = [f"ISIC_{number:07d}" for number in range(34321, 34321 + 193)]
    hot = [
        {"image": image, **dict.fromkeys(CLASSES, "0.0"), CLASSES[n % 7]: "1.0"} for n, image in enumerate(validation)
    ]
    kind_of.update({image: CLASSES[n % 7].lower() for n, image in enumerate(validation)})
    answers = "ISIC2018_Task3_Validation_GroundTruth"
    table(folder / answers / f"{answers}.csv", ["image", *CLASSES], *hot)
    for image in validation:
        painter.paint(f"ham10000/{image}.jpg", folder / "ISIC2018_Task3_Validation_Input" / f"{image}.jpg")
    mask = io.BytesIO()
    Image.new("L", (32, 24), 255).save(mask, "PNG")
    masks = folder / "HAM10000_segmentations_lesion_tschandl"
    masks.mkdir()
    for number in range(24306, 34321):
        (masks / f"ISIC_{number:07d}_segmentation.png").write_bytes(mask.getvalue())

    def path(number: int) -> Path:
        (found,) = folder.rglob(f"ISIC_{number:07d}.jpg")
        return found

    def name(number: int) -> str:
        return f"ham10000/ISIC_{number:07d}.jpg"

    for number in (24400, 24401, 24402):
        content = path(number).read_bytes()
        path(number).write_bytes(content[: len(content) // 2])
        planted.unreadable.add(name(number))
    path(24403).write_bytes(b"<html>not found</html>")
    planted.unreadable.add(name(24403))
    for number in (24404, 34530):
        path(number).unlink()
        planted.missing.add(name(number))
    # Photographs that came under two lesion ids: byte for byte, and saved anew; one of them across the official splits.
    pairs = ((24410, 24411), (24412, 34600)), ((24420, 24421), (24422, 34601), (24424, 34330))
    for one, two in [pair for some in pairs for pair in some]:
        if kind_of[f"ISIC_{one:07d}"] != kind_of[f"ISIC_{two:07d}"]:
            planted.conflicts.append((name(one), name(two)))
    for one, two in pairs[0]:
        path(two).write_bytes(path(one).read_bytes())
        planted.same.append((name(one), name(two)))
    for one, two in pairs[1]:
        painter.paint(name(two), path(two), painter.numbers[name(one)], quality=85)
        planted.alike.append((name(one), name(two)))


def _pad(folder: Path, painter: _Painter, planted: Planted) -> None:
    """1,373 patients; unpacked as the Kaggle copy is; 15 identical pairs, 12 of them under two diagnoses."""
    rows, counts = ROWS["pad_ufes_20"], VOCABULARY["pad_ufes_20"]
    patients = [n % 1373 for n in range(rows)]
    kinds, regions = values(counts["diagnostic"], rows, 1), values(counts["region"], rows, 2)
    origins = values(counts["background_father"], rows, 3)
    listed, by_patient = [], {}
    for n in range(rows):
        file = f"PAT_{patients[n]}_{n}_{n % 997}.png"
        asked = n % 20 < 13
        listed.append(
            {"patient_id": f"PAT_{patients[n]}", "lesion_id": n, "diagnostic": kinds[n], "region": regions[n],
             "img_id": file, "age": 20 + n % 70, "itch": "UNK" if n % 9 == 0 else "True", "elevation": "False",
             "biopsed": str(kinds[n] in ("BCC", "MEL", "SCC")),
             **({"smoke": "True", "background_father": origins[n], "has_piped_water": "True", "gender": "FEMALE",
                 "fitspatrick": f"{1 + n % 6}.0", "diameter_1": "5.0", "diameter_2": "8.0"} if asked else {})}
        )  # fmt: skip
        part = 1 + n % 3
        place = folder / "images" / f"imgs_part_{part}" / f"imgs_part_{part}" / file
        painter.paint(f"pad_ufes_20/{file}", place, mode="RGBA" if n % 7 < 5 else "RGB")
        by_patient.setdefault(patients[n], []).append((f"pad_ufes_20/{file}", place, n))
    for pair in range(15):
        (one, first, n), (two, second, m) = by_patient[pair * 40][:2]
        second.write_bytes(first.read_bytes())
        planted.same.append((one, two))
        listed[n]["diagnostic"], listed[m]["diagnostic"] = "ACK", "BCC" if pair < 12 else "ACK"
        if pair < 12:
            planted.conflicts.append((one, two))
    planted.together += [[name for name, _, _ in members] for members in by_patient.values() if len(members) > 1]
    table(folder / "metadata.csv", PAD_COLUMNS, *listed)


def _midas(folder: Path, painter: _Painter, planted: Planted) -> list[int]:
    """733 patients; 12 photographs missing, 47 renamed, other endings; 60 lesions of 0 x 0 mm; odd kinds of files."""
    rows, counts = ROWS["mra_midas"], VOCABULARY["mra_midas"]
    columns = {key: values(counts[key], rows, seed) for seed, key in enumerate(counts)}
    numbers = [398_000_000 + 37 * n for n in range(rows)]
    listed, by_patient = [], {}
    for n in range(rows):
        ending = "jpeg" if n % 17 == 0 else "jpg"
        file, stem = f"s-prd-{numbers[n]}.{ending}", f"s-prd-{numbers[n]}"
        cells: dict[str, Any] = {key: column[n] or None for key, column in columns.items()}
        cells["midas_path"] = 0 if cells["midas_path"] == "0" else cells["midas_path"]
        cells["midas_location"] = f"l {cells['midas_location']}\u00a0" if n % 10 == 0 else cells["midas_location"]
        size = 0.0 if n % 57 == 0 else 4.0 + n % 9
        listed.append({"": n, "midas_record_id": 1 + n % 733, "midas_file_name": file, "midas_age": 21 + n % 78,
                       "midas_pathreport": "margins free",
                       "length_(mm)": size, "width_(mm)": size, **cells})  # fmt: skip
        disk = f"{stem}_cropped.{ending}" if n % 72 == 5 and n < 72 * 47 else f"{stem}.JPG" if n % 50 == 7 else file
        if n % 284 == 3 and len(planted.missing) < 14:
            planted.missing.add(f"mra_midas/{file}")
            continue
        painter.paint(f"mra_midas/{disk}", folder / disk)
        by_patient.setdefault(n % 733, []).append(f"mra_midas/{disk}")
    planted.together += [members for members in by_patient.values() if len(members) > 1]
    spreadsheet(folder / "release_midas.xlsx", ["Unnamed: 0", *MIDAS_COLUMNS[1:]], *listed)
    painter_files = {name.split("/")[1]: folder / name.split("/")[1] for name in painter.numbers if name[:4] == "mra_"}
    odd = iter(sorted(painter_files)[100:110])
    kinds = {"CMYK": ("JPEG", "CMYK"), "16 bit": ("PNG", "I;16"), "palette": ("PNG", "P"), "grey": ("JPEG", "L")}
    for kind, (container, mode) in kinds.items():
        file = next(odd)
        drawn = picture(900_000 + len(planted.odd))
        if kind == "16 bit":
            drawn = Image.fromarray(np.asarray(drawn.convert("L")).astype(np.uint16) * 257)
        else:
            drawn = drawn.quantize(16) if mode == "P" else drawn.convert(mode)
        drawn.save(painter_files[file], container)
        planted.odd.add(f"mra_midas/{file}")
        if container == "PNG":
            planted.wrong_extension.add(f"mra_midas/{file}")
    rotated = next(odd)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a patient's name"
    picture(900_010).save(painter_files[rotated], "JPEG", exif=exif)
    planted.odd.add(f"mra_midas/{rotated}")
    bomb = next(odd)
    painter_files[bomb].write_bytes(_bomb())
    planted.unreadable.add(f"mra_midas/{bomb}")
    return numbers


def _bomb() -> bytes:
    """Return a PNG of a few hundred bytes that says it has ten thousand million pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def _ddi(folder: Path, painter: _Painter, planted: Planted) -> None:
    """Flat; four photographs saved a second time, which makes 652 groups of 656."""
    counts, rows = VOCABULARY["ddi"], ROWS["ddi"]
    tones, kinds = values(counts["skin_tone"], rows, 1), values(counts["disease"], rows, 2)
    listed = []
    for n in range(rows):
        file = f"{n + 1:06d}.png"
        twin = n - 1 if n in (51, 151, 251, 351) else None
        if twin is not None:
            kinds[n] = kinds[twin]
            planted.alike.append((f"ddi/{twin + 1:06d}.png", f"ddi/{file}"))
        painter.paint(f"ddi/{file}", folder / file)
        if twin is not None:
            again = picture(painter.numbers[f"ddi/{twin + 1:06d}.png"]).resize((64, 48), Image.Resampling.BICUBIC)
            again.save(folder / file)
        listed.append({"": n, "DDI_ID": n + 1, "DDI_file": file, "skin_tone": tones[n], "disease": kinds[n],
                       "malignant": "TRUE" if "carcinoma" in kinds[n] else "FALSE"})  # fmt: skip
    table(folder / "ddi_metadata.csv", DDI_COLUMNS, *listed)


def _ddi2(folder: Path, painter: _Painter, planted: Planted, midas: list[int]) -> None:
    """Three photograph numbers are MRA-MIDAS' own; one name lies about its format; a column nobody knows."""
    listed = []
    for n in range(ROWS["ddi2"]):
        number = midas[500 + n] if n < 3 else 502_948_000 + n
        stem, ending = (f"{number}_cropped", "jpg") if n % 2 else (str(number), "png")
        painter.paint(f"ddi2/{stem}.{ending}", folder / f"{stem}.{ending}")
        if n == 10:
            picture(910_000).save(folder / f"{stem}.{ending}", "JPEG")
            planted.wrong_extension.add(f"ddi2/{stem}.{ending}")
        if n < 3:
            (there,) = [name for name in painter.numbers if name.startswith(f"mra_midas/s-prd-{number}")]
            planted.together.append([there, f"ddi2/{stem}.{ending}"])
        listed.append(
            {"photo_id": stem if n % 2 else float(number), "fitzpatrick_skin_type": "3, 4" if n % 3 else "4",
             "diagnosis_detailed": "Melanocytic nevus" if n % 9 else "a name nobody maps", "diagnosis_general": "other",
             "benign/malignant": "malignant" if n < 71 else "benign", "language": "Cantonese"}
        )  # fmt: skip
    spreadsheet(folder / "final_DDI2_Asian_spreadsheet.xlsx", [*DDI2_COLUMNS, "language"], *listed)


def _skincap(folder: Path, painter: _Painter, planted: Planted) -> None:
    """635 of DDI's photographs under other names, two of them under another disease; 346 pictures without rows."""
    labels = VOCABULARY["fitzpatrick17k"]
    kinds = values(labels["label"], ROWS["skincap"], 1)
    partitions = values(labels["three_partition_label"], ROWS["skincap"], 2)
    diseases = values(VOCABULARY["ddi"]["disease"], ROWS["ddi"], 2)
    for n in (51, 151, 251, 351):
        diseases[n] = diseases[n - 1]
    listed = []
    for n in range(ROWS["skincap"]):
        file = f"{n + 1}.png"
        row = {"id": n + 1, "skincap_file_path": file, "caption_zh": "红斑", "caption_zh_polish": "红斑，有鳞屑",
               "caption_zh_polish_en": f'A "red", scaly plaque of {n % 40} mm. A biopsy is recommended.',
               "fitzpatrick_scale": n % 7 or -1, "Do not consider this image": int(n % 30 == 0),
               **dict.fromkeys(VOCABULARY["skincon"], 0), "Plaque": n % 2, "Erythema": 1}  # fmt: skip
        if n < 635:
            original = f"{n + 1:06d}.png"
            row.update(ori_file_path=original, source="ddi" if n % 2 else "DDI", disease=diseases[n], skin_tone="12")
            painter.paint(f"skincap/{file}", folder / "skincap" / file, painter.numbers[f"ddi/{original}"])
            planted.same.append((f"ddi/{original}", f"skincap/{file}"))
            if n in (600, 601):
                row["disease"] = "vitiligo"
                planted.conflicts.append((f"ddi/{original}", f"skincap/{file}"))
        else:
            row.update(ori_file_path=f"{zlib.crc32(file.encode()):032x}.jpg", source="fitzpatrick17k",
                       disease=kinds[n], three_partition_label=partitions[n])  # fmt: skip
            painter.paint(f"skincap/{file}", folder / "skincap" / file)
        listed.append(row)
    listed[3998]["caption_zh_polish_en"] = ""
    listed[3999]["skincap_file_path"] = "../../HAM/HAM10000_metadata.csv"
    planted.refused["skincap"] = 2
    table(folder / "skincap_v240623.csv", SKINCAP, *listed, encoding="utf-8-sig")
    for n in range(346):
        extra = folder / "skincap" / "not_include" / f"{5000 + n}.png"
        extra.parent.mkdir(exist_ok=True)
        extra.write_bytes((folder / "skincap" / "700.png").read_bytes())
