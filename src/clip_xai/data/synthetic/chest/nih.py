"""Rendered radiographs as ChestX-ray14 is shipped: tables, official lists, boxes and images under their own names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from clip_xai.data.rendered_mark import marked
from clip_xai.data.synthetic.chest.captions import write_captions
from clip_xai.data.synthetic.chest.drawing import draw_once
from clip_xai.data.synthetic.chest.parts import FOLDER, Part, box_of, packed, write_parts
from clip_xai.data.synthetic.chest.plan import Film, Shortcuts, films_of_patient, in_test_list
from clip_xai.data.synthetic.chest.render import ARTEFACTS, MINIMUM_SIDE, Rendering, render
from clip_xai.data.synthetic.pool import rendering_pool
from clip_xai.errors import UserError
from clip_xai.progress import track
from clip_xai.ranges import SEEDS, Checked, setting

ENTRIES, BOXES = "Data_Entry_2017.csv", "BBox_List_2017.csv"
TRAIN_LIST, TEST_LIST = "train_val_list.txt", "test_list.txt"
FILMS = f"{FOLDER}/films.parquet"

#: Width and height of the pictures that the published boxes are measured on, whatever the size of the files.
BOX_SIDE = 1024

# As published: commas within brackets split headers, and rows end with empty cells.
_ENTRY_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
_BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
_BOX_NAMES = {"Infiltration": "Infiltrate"}
_ORIGINALS = {"PA": (2992, 2991, 0.143), "AP": (2500, 2048, 0.168)}


@dataclass
class ChestSettings(Checked):
    """What a set of rendered radiographs consists of.

    Attributes:
        patients: Number of patients; they have 2.05 films on average.
        seed: Seed of patients and films.
        size: Side of a picture in pixels.
        tube: How strongly a chest tube goes with Pneumothorax: 0 is independent, 1 is always and only together.
        hospital: How strongly Effusion goes with the southern hospital's marker: 0 is independent, 1 is only there.
        test_share: Share of the patients in the test list.
        workers: Processes that render.
    """

    prefix: ClassVar[str] = "chest"

    patients: int = setting(400, least=2)
    seed: int = setting(0, least=0, most=SEEDS)
    size: int = setting(256, least=MINIMUM_SIDE, most=2048)
    tube: float = setting(0.0, least=0, most=1)
    hospital: float = setting(0.0, least=0, most=1)
    test_share: float = setting(0.23, least=0, most=1)
    workers: int = setting(2, least=1)


def plan_films(settings: ChestSettings) -> list[Film]:
    """Draw which films a set consists of, without rendering any."""
    shortcuts = Shortcuts(settings.tube, settings.hospital)
    return [
        film
        for patient in range(1, settings.patients + 1)
        for film in films_of_patient(settings.seed, patient, shortcuts)
    ]


def tested(film: Film, settings: ChestSettings) -> bool:
    """Tell whether a film is in the test list: with all films of its patient."""
    return in_test_list(settings.seed, film.patient, settings.test_share)


def write_chest(root: Path | str, settings: ChestSettings | None = None) -> dict[str, int]:
    """Write a set of radiographs, or return at once if the same set is there already.

    Boxes are listed for the test list alone, as published. Captions, which are not, stand in ``descriptions.parquet``,
    where anybody's own captions of a published data set are read from. ``synthetic/`` holds what no publisher ships: a
    mask and a box of every finding and artefact (``parts.parquet``), hospital, view and artefacts of every film
    (``films.parquet``) and the settings, with the strength of the shortcuts.

    Args:
        root: A new or empty folder, or one with the same set.
        settings: What to draw.

    Returns:
        Number of ``train_val`` films, ``test`` films and ``boxes``.

    Raises:
        UserError: The folder holds something else, or a list would be empty.
    """
    settings = settings or ChestSettings()
    films = plan_films(settings)
    tests = [film for film in films if tested(film, settings)]
    if not tests or len(tests) == len(films):
        raise UserError(
            f"chest.test_share={settings.test_share:g} of chest.patients={settings.patients} leaves a list empty;"
            " give more patients or another share."
        )
    decisive = {name: value for name, value in asdict(settings).items() if name != "workers"}
    draw_once(Path(root), {"kind": "chest radiographs", **decisive}, partial(_draw, films=films, settings=settings))
    boxes = (Path(root) / BOXES).read_text(encoding="utf-8").count("\n") - 1
    return {"train_val": len(films) - len(tests), "test": len(tests), "boxes": boxes}


def _draw(root: Path, films: list[Film], settings: ChestSettings) -> None:
    (root / "images").mkdir()
    parts: dict[str, list[Part]] = {}
    for film, found in zip(films, track(_written(root, films, settings), "Rendering", total=len(films)), strict=True):
        parts[film.name] = found
    write_parts(root, [part for found in parts.values() for part in found])
    entries = [_entry(film) for film in films]
    _write_lines(root / ENTRIES, [_ENTRY_HEADER, *entries])
    for name, wanted in ((TRAIN_LIST, False), (TEST_LIST, True)):
        _write_lines(root / name, [film.name for film in films if tested(film, settings) == wanted])
    rows = [
        _box_row(film, part, settings.size)
        for film in films
        if tested(film, settings)
        for part in parts[film.name]
        if part.kind == "finding"
    ]
    _write_lines(root / BOXES, [_BOX_HEADER, *rows])
    write_captions(root, "nih_chestxray14", films)
    pq.write_table(pa.Table.from_pylist([_film_row(film) for film in films]), root / FILMS)


def _written(root: Path, films: Sequence[Film], settings: ChestSettings) -> Iterator[list[Part]]:
    write = partial(write_film, root=root, size=settings.size)
    if settings.workers <= 1:
        yield from map(write, films)
        return
    with rendering_pool(settings.workers) as pool:
        yield from pool.map(write, films, chunksize=16)


def write_film(film: Film, root: Path, size: int) -> list[Part]:
    """Render one film into ``images/`` and return its findings and artefacts."""
    drawn = render(film, size)
    Image.fromarray(drawn.image).save(root / "images" / film.name, format="PNG", compress_level=3, **marked("PNG"))
    return parts_of(film, drawn)


def parts_of(film: Film, drawn: Rendering) -> list[Part]:
    """Return findings and artefacts of a rendered film; those that another part hides are left out."""
    image = f"images/{film.name}"
    found = [
        Part(
            image, finding.label, "finding", finding.side, finding.zone, finding.size,
            box_of(drawn.masks[finding.label]), packed(drawn.masks[finding.label]),
        )
        for finding in film.findings
    ]  # fmt: skip
    found += [
        Part(
            image, name, "artefact", film.tube_side if name == "chest tube" else "", "", "",
            box_of(drawn.masks[name]), packed(drawn.masks[name]),
        )
        for name in ARTEFACTS
        if name in film.artefacts
    ]  # fmt: skip
    return [part for part in found if part.box[2]]


def _entry(film: Film) -> str:
    width, height, spacing = _ORIGINALS[film.view]
    labels = "|".join(film.labels) or "No Finding"
    sex = "F" if film.anatomy.female else "M"
    return (
        f"{film.name},{labels},{film.image},{film.patient},{film.age},{sex},{film.view},"
        f"{width},{height},{spacing},{spacing},"
    )


def _box_row(film: Film, part: Part, size: int) -> str:
    numbers = ",".join(f"{value * BOX_SIDE / size:.10g}" for value in part.box)
    return f"{film.name},{_BOX_NAMES.get(part.part, part.part)},{numbers},,,"


def _film_row(film: Film) -> dict[str, object]:
    return {
        "image": f"images/{film.name}",
        "patient": film.patient,
        "view": film.view,
        "hospital": film.hospital,
        "artefacts": list(film.artefacts),
        "findings": list(film.labels),
    }


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
