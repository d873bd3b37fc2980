"""Writers of the six publishers' layouts: `LAYOUTS` names them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clip_xai.data.synthetic.layouts import ddi, ddi2, ham10000, mra_midas, pad_ufes_20, skincap
from clip_xai.data.synthetic.layouts.shared import PlannedPhotograph, Shares


@dataclass(frozen=True)
class Layout:
    """How one publisher ships a data set.

    Attributes:
        folder: Its folder below the data root.
        rows: Rows of the real data set.
        plan: Draws a seed's photographs with their rows of the table; given the number of rows.
        tables: Names of the publisher's table(s) in that folder.
        write_tables: Writes the publisher's table(s) for photographs that were planned.
    """

    folder: str
    rows: int
    plan: Callable[[int, int, Shares], list[PlannedPhotograph]]
    tables: tuple[str, ...]
    write_tables: Callable[[Path, list[PlannedPhotograph]], None]


LAYOUTS: dict[str, Layout] = {
    module.NAME: Layout(module.FOLDER, module.ROWS, module.plan, module.TABLES, module.write_tables)
    for module in (ham10000, pad_ufes_20, mra_midas, ddi, ddi2, skincap)
}
