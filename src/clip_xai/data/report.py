"""What was found, what was left out and why: ``report.json`` for programs, ``report.html`` for readers."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clip_xai.data.images import MaskFacts, read_reduced
from clip_xai.data.record import NO_PATIENT, Problem, Record, SourceTable
from clip_xai.data.settings import SPLITS, BuildSettings
from clip_xai.data.sources import SOURCES
from clip_xai.data.vocabulary import MALIGNANT, Diagnosis, load_vocabulary
from clip_xai.files import write_json, write_text
from clip_xai.page import render_page
from clip_xai.text import counted, plural, printable

#: Problems of one kind that the page shows for a source; report.json has them all.
SHOWN = 20

#: Pairs that look alike whose pictures the page shows.
PICTURED = 24

TEMPLATES = Path(__file__).parent / "templates"
_PICTURE = 112
_SAMPLE = 320
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
    report, known = summarise(found, settings), load_vocabulary(settings.vocabulary).diagnoses
    report["seconds"] = round(seconds, 1)
    write_json(output_dir / "report.json", report, indent=1)
    content = render_page(
        TEMPLATES,
        "report.html.j2",
        title="Data report",
        subtitle=_in_brief(report),
        styles=("report.css",),
        report=report,
        shown=SHOWN,
        pictured=[_pictured(one, two) for one, two in _worth_seeing(found)],
        samples={table.source: _samples(table.source, found) for table in found.tables},
        splits=[*SPLITS, "none"],
        columns=["expected"] if any(source["expected"] is not None for source in report["sources"].values()) else [],
        malignant=sorted(
            name for name in report["by_diagnosis"] if name in known and known[name].malignancy == MALIGNANT
        ),
        counted=counted,
        plural=plural,
    )
    write_text(output_dir / "report.html", content)


def _in_brief(report: dict[str, Any]) -> str:
    count, sources = report["photographs"], len(report["sources"])
    return f"{counted(count, 'photograph')} in {counted(report['groups'], 'group')} from {counted(sources, 'source')}"


def _samples(source: str, found: Findings) -> list[dict[str, Any]]:
    """A few photographs of a source with their captions, at even steps."""
    mine = [record for record in found.records if record.source == source]
    return [
        {"row": record.name, "captions": list(record.references), "picture": _picture(record.image, _SAMPLE)}
        for record in _spread(mine, _SAMPLES)
    ]


def summarise(found: Findings, settings: BuildSettings) -> dict[str, Any]:
    """Count rows, photographs, problems, duplicates and splits for each source and over all of them."""
    records = found.records
    diagnoses = load_vocabulary(settings.vocabulary).diagnoses
    sources = {table.source: _source(table, found, diagnoses) for table in found.tables}
    largest = Counter(record.group for record in records).most_common(5)
    return {
        "photographs": len(records),
        "rendered": sum(record.rendered for record in records),
        "groups": len({record.group for record in records}),
        "largest_groups": [{"group": group, "photographs": count} for group, count in largest],
        "splits": _counts(record.split or "none" for record in records),
        "settings": {name: value for name, value in asdict(settings).items() if name != "workers"},
        "sources": sources,
        "left_out": [printable(folder) for folder in found.left_out],
        "absent": _absent(sources),
        "by_diagnosis": _crossed(records, lambda record: record.diagnosis or "not stated"),
        "by_malignancy": _crossed(records, lambda record: record.malignancy or "not stated"),
        "by_skin_tone": dict(sorted(_crossed(records, lambda record: record.skin_tone or "not stated").items())),
        "flags": _counts(flag for record in records for flag in record.flags),
        "flagged": [
            {"row": record.identifier, "flags": flags}
            for record in records
            if (flags := [flag for flag in record.flags if flag != NO_PATIENT])
        ],
        "duplicates": [
            {"row": record.identifier, "of": record.duplicate_of} for record in records if record.duplicate_of
        ],
        "near_duplicates": [[records[i].identifier, records[j].identifier] for i, j in found.near],
        "conflicts": [
            {"rows": [one.identifier, two.identifier], "diagnoses": [_stated(one, two), _stated(two, one)]}
            for one, two in found.conflicts
        ],
        "official_split_moved": [
            {"row": record.identifier, "official": record.official_split, "split": record.split}
            for record in records
            if settings.split == "official" and record.split and record.official_split not in (None, record.split)
        ],
        "problems": [asdict(problem) for problem in found.problems],
    }


def summary(manifest: Path) -> list[str]:
    """Say in five lines what a build kept, left out and why, how it split, what is to be known, and where it is.

    Args:
        manifest: What the build returned; ``report.json`` is beside it.
    """
    report = json.loads(manifest.with_name("report.json").read_text(encoding="utf-8"))
    sources, problems = report["sources"], report["problems"]
    kept = ", ".join(f"{name} {source['photographs']}" for name, source in sources.items())
    drawn = f", {report['rendered']} of them rendered," if report["rendered"] else ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(problem["kind"] for problem in problems).items())
    first = [f"{problem['source']}/{problem['file']}: {problem['reason']}" for problem in problems[:3]]
    notes = [f"{name}: {note}" for name, source in sources.items() for note in source["notes"]]
    notes += [f"{flag}: {count}" for flag, count in report["flags"].items() if flag != NO_PATIENT]
    splits = ", ".join(f"{split} {count}" for split, count in report["splits"].items())
    left_out = f"{kinds} ({'; '.join(first)}{'; ...' if len(problems) > 3 else ''})" if problems else "nothing"
    lines = [
        f"kept: {counted(report['photographs'], 'photograph')}{drawn} in {counted(report['groups'], 'group')} ({kept})",
        f"left out: {left_out}",
        f"splits: {splits} ({report['settings']['split']}, seed {report['settings']['seed']})",
        f"noted: {'; '.join(notes) or 'nothing'}",
        f"written: {manifest}, {manifest.with_name('report.html')}",
    ]
    return [printable(line) for line in lines]


def _source(table: SourceTable, found: Findings, diagnoses: Mapping[str, Diagnosis]) -> dict[str, Any]:
    mine = [record for record in found.records if record.source == table.source]
    kinds = Counter(problem.kind for problem in found.problems if problem.source == table.source)
    known = SOURCES.get(table.source)
    drawn = bool(mine) and all(record.rendered for record in mine)
    masks = [found.masks[record.mask] for record in mine if record.mask is not None]
    return {
        "title": f"{table.source} (rendered)" if drawn else known.title if known else table.source,
        "layout": known.title if known and drawn else "",
        "licence": known.licence if known and not drawn else "",
        "terms": known.terms if known and not drawn else "",
        "expected": None if drawn else table.expected,
        "rows": table.rows,
        "photographs": len(mine),
        "rendered": sum(record.rendered for record in mine),
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
            {"label": label, "name": name, "parent": diagnoses[name].parent, "malignancy": diagnoses[name].malignancy,
             "rows": rows}
            for label, names in table.labels.items() for name, rows in names.items()
        ],
        "unmapped": table.unmapped,
        "findings": _labels_stated(mine),
        "boxes": _counts(box.label for record in mine for box in record.boxes),
        "masks_of_findings": _counts(name for record in mine for name in record.label_masks),
        "notes": table.notes,
        "captions": [{"row": record.name, "captions": list(record.references)} for record in _spread(mine, _SAMPLES)],
    }  # fmt: skip


def _absent(present: Iterable[str]) -> list[str]:
    """Return the known data sets that are not there, of the subjects that are."""
    names = [name for name in present if name in SOURCES]
    subjects = {SOURCES[name].subject for name in names}
    return [name for name, source in SOURCES.items() if name not in names and source.subject in subjects]


def _stated(record: Record, other: Record) -> str | None:
    """Return what a row says that another says the opposite of: labels, or else its diagnosis."""
    opposite = [
        f"{name}: {'present' if said else 'absent'}"
        for name, said in record.labels.items()
        if said is not None and other.labels.get(name) == (not said)
    ]
    return ", ".join(opposite) or record.diagnosis


def _labels_stated(records: list[Record]) -> dict[str, dict[str, int]]:
    """Count what is stated of each label."""
    words = {True: "present", False: "absent", None: "uncertain"}
    counts: dict[str, Counter[str]] = {}
    for record in records:
        for name, said in record.labels.items():
            counts.setdefault(name, Counter())[words[said]] += 1
    return {name: {word: found[word] for word in words.values()} for name, found in counts.items()}


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
            {
                "row": record.identifier,
                "diagnosis": record.diagnosis or "not stated",
                "rendered": record.rendered,
                "picture": _picture(record.image),
            }
            for record in (one, two)
        ]
    }


def _picture(path: Path, side: int = _PICTURE) -> str:
    """Return a small picture as a data address. It is drawn anew, so nothing of the file's metadata comes along."""
    image, _ = read_reduced(path, side)
    image.thumbnail((side, side))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
