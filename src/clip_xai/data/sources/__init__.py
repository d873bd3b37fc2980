"""One small adapter for each publisher; `SOURCES` names them in the order of the manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clip_xai.data.record import SourceTable
from clip_xai.data.sources import ddi, ddi2, ham10000, mra_midas, pad_ufes_20, skincap


@dataclass(frozen=True)
class Source:
    """An adapter.

    Attributes:
        expected: What the adapter looks for, for a message to the user.
        read: Reads the data set below a folder; None where it is not there.
    """

    expected: str
    read: Callable[[Path], SourceTable | None]


#: In this order: of a photograph that stands in two data sets, the row of the earlier one enters evaluation.
#: SkinCAP comes last because it contains most of DDI.
SOURCES: dict[str, Source] = {
    module.NAME: Source(module.EXPECTED, module.read)
    for module in (ham10000, pad_ufes_20, mra_midas, ddi, ddi2, skincap)
}
