"""A data source: a table of files, patients and labels."""

from pathlib import Path

from clip_xai.data.captions import CaptionFacts
from clip_xai.data.record import SourceTable
from clip_xai.data.sources import SOURCES
from clip_xai.data.sources.common import SourceReader, stated_fields
from clip_xai.data.sources.photograph_files import PhotographIndex, find_table
from clip_xai.data.sources.tables import read_table


@SOURCES.register(
    "mine",
    title="My data set",
    order=100,  # of a photograph that stands in two data sets, the row of the smaller number is kept
    expected="mine_metadata.csv beside its photographs",
    place="https://example.org",
    licence="CC BY 4.0",
    terms="attribution",
)
def read(root: Path) -> SourceTable | None:
    """Read the data set below a folder; None where it is not there."""
    path = find_table(root, r"mine_metadata\.csv")
    if path is None:
        return None
    table = read_table(path)
    table.require("file", "patient", "label")
    reader = SourceReader("mine", PhotographIndex(path.parent), expected=None)
    reader.count_rows(table)
    for row in table.rows:
        photograph = reader.photograph(row["file"])  # a missing one is reported
        if photograph is not None:
            diagnosis = reader.diagnose(row["label"])  # a label without a name is listed
            facts = CaptionFacts(name=photograph.name, view="clinical photograph", diagnosis=diagnosis)
            keys = (f"mine-patient:{row['patient']}",)
            reader.add(photograph, facts, keys=keys, diagnosis=diagnosis, fields=stated_fields(row))
    return reader.table()
