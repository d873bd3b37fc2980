"""What was found, what was left out and why: ``report.json`` for programs, ``report.html`` for readers."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment

from clip_xai.data.images import MaskFacts, read_reduced
from clip_xai.data.ontology import DIAGNOSES
from clip_xai.data.record import Problem, Record, SourceTable
from clip_xai.data.settings import SPLITS, BuildSettings
from clip_xai.data.sources import SOURCES
from clip_xai.files import write_json, write_text

#: Problems of one kind that the page shows for a source; report.json has them all.
SHOWN = 20

#: Pairs that look alike whose pictures the page shows.
PICTURED = 24

_PICTURE = 112
_SAMPLES = 4


@dataclass
class Findings:
    """Everything that a build found out.

    Attributes:
        tables: What each source's tables say.
        records: Rows whose photographs can be shown.
        problems: Rows and files that were left out.
        near: Pairs of positions in `records` that look alike.
        conflicts: Pairs that show the same photograph, or look alike, and disagree on the diagnosis.
        masks: What was found of each mask.
        left_out: Folders below the root that our own commands wrote.
    """

    tables: list[SourceTable]
    records: list[Record]
    problems: list[Problem]
    near: list[tuple[int, int]] = field(default_factory=list)
    conflicts: list[tuple[Record, Record]] = field(default_factory=list)
    masks: dict[Path, MaskFacts] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def write_report(output_dir: Path, found: Findings, settings: BuildSettings, seconds: float) -> None:
    """Write ``report.json`` and ``report.html`` beside the manifest."""
    report = summarise(found, settings)
    report["seconds"] = round(seconds, 1)
    write_json(output_dir / "report.json", report, indent=1)
    template = files(__package__).joinpath("templates", "report.html.j2").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    pictured = [_pictured(one, two) for one, two in _worth_seeing(found)]
    content = page.render(report=report, shown=SHOWN, pictured=pictured, splits=[*SPLITS, "none"])
    write_text(output_dir / "report.html", content)


def summarise(found: Findings, settings: BuildSettings) -> dict[str, Any]:
    """Count rows, photographs, problems, duplicates and splits for each source and over all of them."""
    records = found.records
    sources = {table.source: _source(table, found) for table in found.tables}
    largest = Counter(record.group for record in records).most_common(5)
    return {
        "photographs": len(records),
        "groups": len({record.group for record in records}),
        "largest_groups": [{"group": group, "photographs": count} for group, count in largest],
        "splits": _counts(record.split or "none" for record in records),
        "settings": {name: value for name, value in asdict(settings).items() if name != "workers"},
        "sources": sources,
        "left_out": found.left_out,
        "absent": [name for name in SOURCES if name not in sources],
        "by_diagnosis": _crossed(records, lambda record: record.diagnosis or "not stated"),
        "by_malignancy": _crossed(records, lambda record: record.malignancy or "not stated"),
        "by_skin_tone": _crossed(records, lambda record: record.skin_tone or "not stated"),
        "flags": _counts(flag for record in records for flag in record.flags),
        "flagged": [{"row": record.identifier, "flags": list(record.flags)} for record in records if record.flags],
        "duplicates": [
            {"row": record.identifier, "of": record.duplicate_of} for record in records if record.duplicate_of
        ],
        "near_duplicates": [[records[i].identifier, records[j].identifier] for i, j in found.near],
        "conflicts": [
            {"rows": [one.identifier, two.identifier], "diagnoses": [one.diagnosis, two.diagnosis]}
            for one, two in found.conflicts
        ],
        "official_split_moved": [
            {"row": record.identifier, "official": record.official_split, "split": record.split}
            for record in records
            if settings.split == "official" and record.split and record.official_split not in (None, record.split)
        ],
        "problems": [asdict(problem) for problem in found.problems],
    }


def _source(table: SourceTable, found: Findings) -> dict[str, Any]:
    mine = [record for record in found.records if record.source == table.source]
    kinds = Counter(problem.kind for problem in found.problems if problem.source == table.source)
    known = SOURCES.get(table.source)
    masks = [found.masks[record.mask] for record in mine if record.mask is not None]
    return {
        "title": known.title if known else table.source,
        "licence": known.licence if known else "",
        "terms": known.terms if known else "",
        "expected": table.expected,
        "rows": table.rows,
        "photographs": len(mine),
        "missing": kinds["missing"],
        "unreadable": kinds["unreadable"],
        "refused": kinds["row"],
        "masks": len(masks),
        "masks_read_as": _counts(facts.how for facts in masks),
        "masks_that_mark_nothing": sum(facts.share == 0 for facts in masks),
        "masks_that_mark_everything": sum(facts.share == 1 for facts in masks),
        "duplicates": sum(record.duplicate_of is not None for record in mine),
        "groups": len({record.group for record in mine}),
        "splits": _counts(record.split or "none" for record in mine),
        "diagnoses": _counts(record.diagnosis or "not stated" for record in mine),
        "labels": [
            {"label": label, "name": name, "parent": DIAGNOSES[name].parent, "malignancy": DIAGNOSES[name].malignancy,
             "rows": rows}
            for label, names in table.labels.items() for name, rows in names.items()
        ],
        "unmapped": table.unmapped,
        "notes": table.notes,
        "captions": [{"row": record.name, "captions": list(record.references)} for record in _spread(mine, _SAMPLES)],
    }  # fmt: skip


def _spread(records: list[Record], count: int) -> list[Record]:
    return [records[place * len(records) // count] for place in range(count)] if len(records) > count else records


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _crossed(records: list[Record], kind: Any) -> dict[str, dict[str, int]]:
    """Count rows by kind and split, the largest kinds first."""
    counts: dict[str, Counter[str]] = {}
    for record in records:
        counts.setdefault(kind(record), Counter())[record.split or "none"] += 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1].total(), item[0]))
    return {name: dict(sorted(splits.items())) for name, splits in ordered}


def _worth_seeing(found: Findings) -> list[tuple[Record, Record]]:
    """Return pairs that only their looks connect: first those that disagree, then those of two data sets."""
    disagreeing = {(one.identifier, two.identifier) for one, two in found.conflicts}
    pairs = [
        (one, two)
        for one, two in ((found.records[i], found.records[j]) for i, j in found.near)
        if one.sha256 != two.sha256 and not set(one.keys) & set(two.keys)
    ]
    pairs.sort(key=lambda pair: ((pair[0].identifier, pair[1].identifier) not in disagreeing,
                                 pair[0].source == pair[1].source))  # fmt: skip
    return pairs[:PICTURED]


def _pictured(one: Record, two: Record) -> dict[str, Any]:
    return {
        "rows": [
            {"row": record.identifier, "diagnosis": record.diagnosis or "not stated", "picture": _picture(record.image)}
            for record in (one, two)
        ]
    }


def _picture(path: Path) -> str:
    """Return a small picture as a data address. It is drawn anew, so nothing of the file's metadata comes along."""
    image, _ = read_reduced(path, _PICTURE)
    image.thumbnail((_PICTURE, _PICTURE))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
