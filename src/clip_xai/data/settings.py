"""Every choice that a manifest depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from clip_xai.data.captions import POLICIES
from clip_xai.errors import UserError

SPLITS = ("train", "val", "test")
SCHEMES = ("stratified", "official", "skincap_holdout", "leave_one_source_out", "kfold")
DEFAULT_FRACTIONS: Mapping[str, float] = {"train": 0.75, "val": 0.10, "test": 0.15}


@dataclass
class Columns:
    """Headers of ``captions.csv``; null where a column is called by what it says.

    Attributes:
        image: Path of the photograph below the table's folder.
        caption: Its caption.
        group: Patient or lesion.
        split: ``train``, ``val`` or ``test``.
        mask: Path of the lesion mask.
        diagnosis: Its diagnosis.
        fitzpatrick: Skin type.
    """

    image: str | None = None
    caption: str | None = None
    group: str | None = None
    split: str | None = None
    mask: str | None = None
    diagnosis: str | None = None
    fitzpatrick: str | None = None

    def named(self) -> dict[str, str]:
        """Return what a column says -> its header, of those that were given."""
        return {role: header for role, header in asdict(self).items() if header is not None}


@dataclass(frozen=True)
class BuildSettings:
    """Settings of a manifest; each is ``data.NAME`` on the command line.

    Attributes:
        captions: Caption policy: ``visible``, ``clinical`` or ``fields``.
        split: Scheme: ``stratified``, ``official``, ``skincap_holdout``, ``leave_one_source_out`` or ``kfold``.
        seed: Seed of the splits.
        fractions: Share of each split.
        held_out: The source that ``leave_one_source_out`` tests on.
        folds: Number of folds of ``kfold``.
        fold: Which of them is tested on (0 to folds - 1); the one after it validates.
        near_bits: Two photographs may look alike when their 64-bit perceptual hashes differ in at most this many bits;
            null disables near-duplicate detection.
        near_difference: ... and when their thumbnails differ by at most this (root mean square, of 255 levels).
        columns: Headers of ``captions.csv`` (``image``, ``caption``, ``group``, ``split``, ``mask``, ``diagnosis``,
            ``fitzpatrick``) where they are other than these names.
        mask_values: The values that are lesion in masks (grey values, labels or a palette's numbers); null to tell from
            the values that a mask holds.
        workers: Files looked at side by side; null for the number of cores.
    """

    captions: str = "clinical"
    split: str = "stratified"
    seed: int = 0
    fractions: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_FRACTIONS))
    held_out: str | None = None
    folds: int = 5
    fold: int = 0
    near_bits: int | None = 6
    near_difference: float = 6.0
    columns: Columns = field(default_factory=Columns)
    mask_values: list[int] | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.captions not in POLICIES:
            raise UserError(
                f"data.captions={self.captions} is not a caption policy; choose one of {', '.join(POLICIES)}."
            )
        if self.split not in SCHEMES:
            raise UserError(f"data.split={self.split} is not a scheme of splits; choose one of {', '.join(SCHEMES)}.")
        shares = self.fractions
        if set(shares) - set(SPLITS) or any(share < 0 for share in shares.values()):
            raise UserError(f"data.fractions is {dict(shares)}; give {', '.join(SPLITS)} shares that add up to 1.")
        if abs(sum(shares.values()) - 1) > 1e-6:
            raise UserError(f"data.fractions is {dict(shares)}; the shares add up to {sum(shares.values()):g}, not 1.")
        if self.split == "leave_one_source_out" and not self.held_out:
            raise UserError("data.split=leave_one_source_out needs data.held_out=SOURCE.")
        if self.split == "kfold" and not (self.folds >= 3 and 0 <= self.fold < self.folds):
            raise UserError(
                f"data.folds={self.folds} data.fold={self.fold}: give 3 or more folds and one of 0 to folds - 1."
            )
        if self.near_bits is not None and not 0 <= self.near_bits <= 16:
            raise UserError(
                f"data.near_bits={self.near_bits}; give 0 to 16, or null to disable near-duplicate detection."
            )
        if self.mask_values is not None and not self.mask_values:
            raise UserError("data.mask_values=[] names no value; give the values that are lesion, or null.")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"data.workers={self.workers}; give 1 or more, or null for the number of cores.")
