"""What was found, what was left out and why: ``report.json`` for programs, ``report.html`` for readers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import Environment

from clip_xai.data.record import Problem, Record, SourceTable
from clip_xai.data.sources import SOURCES

#: Problems of one kind that the page shows for a source; report.json has them all.
SHOWN = 20


def write_report(
    output_dir: Path,
    tables: list[SourceTable],
    records: list[Record],
    problems: list[Problem],
    conflicts: list[tuple[Record, Record]],
) -> None:
    """Write ``report.json`` and ``report.html`` beside the manifest."""
    report = summarise(tables, records, problems, conflicts)
    (output_dir / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_PAGE)
    (output_dir / "report.html").write_text(page.render(report=report, shown=SHOWN), encoding="utf-8")


def summarise(
    tables: list[SourceTable],
    records: list[Record],
    problems: list[Problem],
    conflicts: list[tuple[Record, Record]],
) -> dict[str, Any]:
    """Count rows, photographs, problems, duplicates and splits for each source."""
    sources = {}
    for table in tables:
        mine = [record for record in records if record.source == table.source]
        kinds = Counter(problem.kind for problem in problems if problem.source == table.source)
        sources[table.source] = {
            "rows": table.rows,
            "photographs": len(mine),
            "missing": kinds["missing"],
            "unreadable": kinds["unreadable"],
            "refused": kinds["row"],
            "masks": sum(record.mask is not None for record in mine),
            "duplicates": sum(record.duplicate_of is not None for record in mine),
            "groups": len({record.group for record in mine}),
            "splits": _counts(record.split or "none" for record in mine),
            "diagnoses": _counts(record.diagnosis or "none" for record in mine),
            "unmapped": table.unmapped,
        }
    return {
        "photographs": len(records),
        "groups": len({record.group for record in records}),
        "splits": _counts(record.split or "none" for record in records),
        "sources": sources,
        "absent": [name for name in SOURCES if name not in sources],
        "duplicates": [
            {"row": record.identifier, "of": record.duplicate_of} for record in records if record.duplicate_of
        ],
        "conflicts": [
            {"rows": [one.identifier, two.identifier], "diagnoses": [one.diagnosis, two.diagnosis]}
            for one, two in conflicts
        ],
        "problems": [
            {"source": item.source, "file": item.file, "kind": item.kind, "reason": item.reason} for item in problems
        ],
    }


def _counts(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Data report</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #1c2430 }
table { border-collapse: collapse; margin: .5rem 0 1.5rem } th, td { padding: .25rem .7rem; text-align: left;
border-bottom: 1px solid #d8dde5; vertical-align: top } td.n, th.n { text-align: right } .quiet { color: #667 }
</style></head><body>
<h1>Data report</h1>
<p>{{ report.photographs }} photographs in {{ report.groups }} groups that stay on one side of every split
({% for split, n in report.splits.items() %}{{ split }} {{ n }}{{ ", " if not loop.last }}{% endfor %}).
{% if report.absent %}Not found: {{ report.absent | join(", ") }}.{% endif %}</p>
<table><tr><th>source</th>{% for name in ["rows", "photographs", "missing", "unreadable", "refused", "masks",
"duplicates", "groups"] %}<th class="n">{{ name }}</th>{% endfor %}<th>splits</th></tr>
{% for name, source in report.sources.items() %}
<tr><td>{{ name }}</td>{% for key in ["rows", "photographs", "missing", "unreadable", "refused", "masks", "duplicates",
"groups"] %}<td class="n">{{ source[key] }}</td>{% endfor %}
<td>{% for split, n in source.splits.items() %}{{ split }} {{ n }}{{ ", " if not loop.last }}{% endfor %}</td></tr>
{% endfor %}</table>
{% for name, source in report.sources.items() %}
<h2>{{ name }}</h2>
<p>{% for diagnosis, n in source.diagnoses.items() %}{{ diagnosis }} {{ n }}{{ ", " if not loop.last }}{% endfor %}</p>
{% if source.unmapped %}<p>No canonical name for: {% for label, n in source.unmapped.items() %}{{ label }} ({{ n }})
{{- ", " if not loop.last }}{% endfor %}.</p>{% endif %}
{% for kind, items in report.problems | selectattr("source", "equalto", name) | groupby("kind") %}
<h3>{{ kind }} <span class="quiet">{{ items | length }}</span></h3>
<table>{% for item in items[:shown] %}<tr><td>{{ item.file }}</td><td>{{ item.reason }}</td></tr>{% endfor %}</table>
{% if items | length > shown %}<p class="quiet">and {{ items | length - shown }} more in report.json</p>{% endif %}
{% endfor %}
{% endfor %}
{% if report.conflicts %}<h2>One photograph, two diagnoses</h2>
<p>Kept out of validation and test.</p>
<table>{% for item in report.conflicts %}<tr><td>{{ item.rows | join(" and ") }}</td>
<td>{{ item.diagnoses | join(" / ") }}</td></tr>{% endfor %}</table>{% endif %}
{% if report.duplicates %}<h2>Duplicates</h2>
<p>In training each row stays; in validation and test only the first row of a photograph does.</p>
<table>{% for item in report.duplicates[:shown] %}<tr><td>{{ item.row }}</td><td>shows {{ item.of }}</td></tr>
{% endfor %}</table>
{% if report.duplicates | length > shown %}<p class="quiet">and {{ report.duplicates | length - shown }} more in
report.json</p>{% endif %}{% endif %}
</body></html>
"""
