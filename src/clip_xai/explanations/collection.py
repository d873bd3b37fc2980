"""From the stored results of a run to its page, its index and its numbers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from clip_xai.data.images import read_image, read_mask
from clip_xai.data.vocabulary import Vocabulary, load_vocabulary
from clip_xai.errors import UserError
from clip_xai.explanations.curves import RunCurves
from clip_xai.explanations.finding_maps import FindingMaps
from clip_xai.explanations.lesion_maps import LesionMaps, of_classes
from clip_xai.explanations.page_evidence import PageEvidence
from clip_xai.explanations.photographs import Photograph
from clip_xai.explanations.run_ledger import RunLedger
from clip_xai.explanations.store import Result, ResultStore, index_rows
from clip_xai.files import replacing, write_text
from clip_xai.metrics.verdicts import listed
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.report.assemble import assemble
from clip_xai.report.curves import svg_uri
from clip_xai.report.evidence import Evidence
from clip_xai.report.explained import ExplainedImage, slug
from clip_xai.report.html import write_explanations
from clip_xai.report.ledger import Ledger
from clip_xai.report.pages import Section, Table
from clip_xai.report.wandb_tables import explanation_rows
from clip_xai.text import counted, plural

log = logging.getLogger(__name__)
ON_THE_PAGE = 200  # photographs; of a longer run, the page shows the first ones
MOST_NAMED = 3  # findings that the key of an outline names
IN_THE_TABLE = 16  # photographs in the logger's table


def collect(
    store: ResultStore,
    backbone: VisionBackbone,
    subtitle: str,
    seed: int = 0,
    evidence: Evidence | None = None,
    measure_with: str = "python -m clip_xai.studies.localise",
    vocabulary: Vocabulary | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the index of the raw attributions and the page from the results; return the numbers of the run.

    Args:
        store: The results.
        backbone: The tower.
        subtitle: What the page says of the run.
        seed: Seed of the intervals.
        evidence: What is known of the methods' maps for this tower.
        measure_with: The command that measures it where nothing is known.
        vocabulary: Says what masks mark; that of skin if None.
        notes: Sentences on the run that a reader must see, the details of each behind a colon.
    """
    rows: list[dict[str, Any]] = []
    known = vocabulary or load_vocabulary()
    lesions, findings, curves = LesionMaps(vocabulary=known), FindingMaps(vocabulary=known), RunCurves(vocabulary=known)
    ledgers: dict[int, Ledger] = {}
    groups, names = dict[int, str](), dict[int, str]()
    count = 0
    page = PageEvidence.of(store.results(), known.groups[1])
    for place, result in ((place, page.on(place, result)) for place, result in store.results()):
        rows.extend(index_rows(place, store.run_dir, result))
        shown(result, backbone, lesions, known, findings)
        group = result.photograph.group or result.photograph.name
        curves.add(list(result.answers.values()), group)
        if result.ledger is not None:
            ledgers[count], groups[count], names[count] = result.ledger, group, result.photograph.name
        count += 1
    with replacing(store.run_dir / "attributions.parquet") as unfinished:
        pd.DataFrame(rows).to_parquet(unfinished, index=False)
    localised = lesions.measure(seed)
    areas = curves.measure(seed)
    in_boxes = findings.measure(seed)
    table = findings.table(in_boxes)
    sections = [] if table is None else [Section(table)]
    of_maps = page.measure(seed)
    evident = page.table(of_maps)
    if evident is not None:
        sections.append(Section(evident))
        log.info("%s", page.words)
    run_ledger = RunLedger(ledgers, groups, known.groups)
    if ledgers:
        sections.append(Section(run_ledger.page_table))
        with replacing(store.run_dir / "ledger.parquet") as unfinished:
            run_ledger.table(names).to_parquet(unfinished, index=False)
    sections += _drawn(curves, curves.table(areas), store, seed)
    problems = store.problems()
    all_of_them = counted(count, "photograph")
    first = all_of_them if count <= ON_THE_PAGE else f"the first {ON_THE_PAGE} of {all_of_them}"
    write_explanations(
        (
            shown(page.on(place, result), backbone, vocabulary=known)
            for place, result in islice(store.results(), ON_THE_PAGE)
        ),
        store.run_dir / "index.html",
        title="Explanations",
        subtitle=f"{first} · {subtitle}",
        notes=notes,
        problems=problems,
        table=lesions.table(localised),
        evidence=evidence,
        measure_with=measure_with,
        sections=sections,
    )
    found = {"explained": count, "problems": problems, "localisation": localised}
    found |= {"findings": in_boxes} if in_boxes else {}
    found |= {"evidence": of_maps} if of_maps else {}
    found |= {"ledger": run_ledger.measured} if ledgers else {}
    return found | ({"curves": areas} if areas else {})


def _drawn(curves: RunCurves, table: Table | None, store: ResultStore, seed: int) -> list[Section]:
    """The section of the page, its pictures also as files beside it."""
    if table is None:
        return []
    pictures = []
    for what, svg in curves.pictures(seed).items():
        place = store.run_dir / "curves" / f"{slug(what)}.svg"
        place.parent.mkdir(exist_ok=True)
        write_text(place, svg)
        pictures.append((f"Mean over photographs: {what}", svg_uri(svg)))
    return [Section(table, tuple(pictures))]


def table_rows(
    store: ResultStore, backbone: VisionBackbone, vocabulary: Vocabulary | None = None
) -> Iterator[list[Any]]:
    """Rows of the logger's table: the first photographs of the run."""
    for place, result in islice(store.results(), IN_THE_TABLE):
        yield from explanation_rows(
            shown(result, backbone, vocabulary=vocabulary), store.run_dir / "cards" / f"{place.stem}.png"
        )


def shown(
    result: Result,
    backbone: VisionBackbone,
    lesions: LesionMaps | None = None,
    vocabulary: Vocabulary | None = None,
    findings: FindingMaps | None = None,
) -> ExplainedImage:
    """What a report shows of a result; with ``lesions`` and ``findings``, its maps are added to those of the run."""
    known = vocabulary or load_vocabulary()
    photograph = result.photograph
    picture = read_image(photograph.path)
    places = photograph.findings(picture.height, picture.width)
    mask = _mask_of(photograph, picture)
    geometry = backbone.preprocess.geometry(picture.width, picture.height)
    answers = list(result.answers.values())
    measured: dict[str, str] = {}
    group = photograph.group or photograph.name
    if mask is not None:
        beside = [answer for answer in answers if not places or not of_classes(answer)]
        if beside:
            maps = lesions or LesionMaps(vocabulary=known)
            measured = maps.add(backbone, picture, geometry, mask, beside, group)
        measured |= (findings or FindingMaps()).add(backbone, geometry, places, answers, group)
    return assemble(
        picture,
        geometry,
        answers,
        name=photograph.name,
        caption=result.caption,
        references=photograph.references,
        mask=mask,
        facts=photograph.facts,
        measurements=measured,
        warning=photograph.warning,
        ledger=result.ledger,
        truth=(known.truth, known.truth_form) if photograph.mask is not None else _marked(photograph, list(places)),
    )


def _marked(photograph: Photograph, findings: Sequence[str]) -> tuple[str, str]:
    """Which findings the outline is of, and how they are marked: a map may be of another one."""
    forms = [plural(len(photograph.boxes), "box", "boxes")] if photograph.boxes else []
    forms += [plural(len(photograph.label_masks), "mask", "masks")] if photograph.label_masks else []
    shown = [*findings[:MOST_NAMED], *([f"{len(findings) - MOST_NAMED} more"] if len(findings) > MOST_NAMED else [])]
    return listed(shown) if shown else "finding", " and ".join(forms) or "box"


def _mask_of(photograph: Photograph, picture: Image.Image) -> NDArray[np.bool_] | None:
    if photograph.mask is None:
        return photograph.outline(picture.height, picture.width)
    mask = read_mask(photograph.mask, photograph.mask_values)
    if mask.shape != (picture.height, picture.width):
        raise UserError(f"the mask {photograph.mask.name} is {mask.shape}, the photograph {picture.size[::-1]}")
    return mask
