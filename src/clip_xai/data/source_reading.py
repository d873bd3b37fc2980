"""All data sets below a folder: who reads them, and what is said where there are none."""

from __future__ import annotations

from pathlib import Path

from clip_xai.data.record import SourceTable
from clip_xai.data.settings import BuildSettings
from clip_xai.data.sources import SOURCES, captions_csv, image_folder, labels_csv
from clip_xai.data.sources.captions_csv import FILE
from clip_xai.data.sources.common import require_of_field
from clip_xai.data.sources.photograph_files import find_tables, one_listing
from clip_xai.data.vocabulary import Vocabulary
from clip_xai.errors import UserError


def read_sources(root: Path, settings: BuildSettings, vocabulary: Vocabulary) -> list[SourceTable]:
    """Read every data set below a folder: publishers' first, then tables of a person's own, else folders of classes.

    Raises:
        UserError: There is none, one of the tables cannot be used, or none of the photographs is there.
    """
    with one_listing():
        tables = [table for source in SOURCES.values() if (table := source.read(root)) is not None]
        named = settings.columns.named()
        captioned = captions_csv.read_all(root, tuple(SOURCES), named, vocabulary)
        tables += captioned
        tables += labels_csv.read_all(root, tuple(SOURCES), named, captioned)
        if not tables and not _others(root) and (table := image_folder.read(root)) is not None:
            tables.append(table)
    require_of_field(tables, settings.vocabulary, vocabulary)
    if not tables:
        raise UserError(
            f"data.root={root} holds none of the known data sets and no {FILE}{_others(root)}; {what_is_expected()}"
        )
    if not any(table.records for table in tables):
        there = ", ".join(table.source for table in tables)
        first = next(((problem.file, problem.reason) for table in tables for problem in table.problems), None)
        why = f" (first: {first[0]}: {first[1]})" if first else ""
        known = [name for name in (table.source for table in tables) if name in SOURCES]
        hint = "; ".join(f"{name}: {SOURCES[name].expected}" for name in known) or "correct the table"
        raise UserError(f"data.root={root} holds the tables of {there}, but none of their photographs{why}; {hint}")
    return tables


def _others(root: Path) -> str:
    """Say which tables are there that no source reads: one of them may be the person's own."""
    found = find_tables(root, r".*\.(csv|tsv|tab|xlsx|xls)", other_formats=False)
    if not found:
        return ""
    listed = ", ".join(str(path.relative_to(root)) for path in found[:3])
    return (
        f" (but {listed}: a table of your own is called {FILE} and has the columns image and caption, or "
        "labels.csv; folders of classes are read where no table is)"
    )


def what_is_expected() -> str:
    """Say what is looked for below the root."""
    return "expected below it: " + "; ".join(f"{name}: {source.expected}" for name, source in SOURCES.items())
