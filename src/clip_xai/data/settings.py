"""Every choice that a manifest depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import ClassVar

from clip_xai.data.captions import POLICIES
from clip_xai.data.vocabulary import DEFAULT, require_known
from clip_xai.errors import UserError
from clip_xai.ranges import SEEDS, Checked, setting

SPLITS = ("train", "val", "test")
SCHEMES = ("stratified", "official", "skincap_holdout", "leave_one_source_out", "kfold")
DEFAULT_FRACTIONS: Mapping[str, float] = {"train": 0.75, "val": 0.10, "test": 0.15}


@dataclass
class Columns:
    """Headers of ``captions.csv`` and ``labels.csv``; null where a column is called by what it says.

    Attributes:
        image: Path of the photograph below the table's folder.
        caption: Its caption.
        group: Patient or lesion.
        split: ``train``, ``val`` or ``test``.
        mask: Path of the lesion mask.
        diagnosis: Its diagnosis.
        fitzpatrick: Skin type.
        label: Its label or labels, of ``labels.csv``.
    """

    image: str | None = None
    caption: str | None = None
    group: str | None = None
    split: str | None = None
    mask: str | None = None
    diagnosis: str | None = None
    fitzpatrick: str | None = None
    label: str | None = None

    def named(self) -> dict[str, str]:
        """Return what a column says -> its header, of those that were given."""
        return {role: header for role, header in asdict(self).items() if header is not None}


@dataclass
class BuildSettings(Checked):
    """Settings of a manifest; each is ``data.NAME`` on the command line.

    Attributes:
        vocabulary: The field's words, ``skin`` or ``chest``, or the path of a YAML file of one's own: what diagnoses
            are called, how captions are read, and what questions are made of where nothing else is given.
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
        columns: Headers of ``captions.csv`` and ``labels.csv`` (``image``, ``caption``, ``group``, ``split``, ``mask``,
            ``diagnosis``, ``fitzpatrick``, ``label``) where they are other than these names.
        mask_values: The values that are lesion in masks (grey values, labels or a palette's numbers); null to tell from
            the values that a mask holds.
        workers: Files looked at side by side; null for the number of cores.
    """

    prefix: ClassVar[str] = "data"

    vocabulary: str = setting(DEFAULT, path=True)
    captions: str = "clinical"
    split: str = "stratified"
    seed: int = setting(0, least=0, most=SEEDS)
    fractions: dict[str, float] = setting(factory=lambda: dict(DEFAULT_FRACTIONS), least=0, most=1)
    held_out: str | None = setting(None, free_text=True)
    folds: int = setting(5, least=3)
    fold: int = setting(0, least=0)
    near_bits: int | None = setting(6, least=0, most=16)
    near_difference: float = setting(6.0, least=0, most=255)
    columns: Columns = field(default_factory=Columns)
    mask_values: list[int] | None = setting(None, least=0, most=65535)
    workers: int | None = setting(None, least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_known(self.vocabulary)
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
        if self.split == "kfold" and self.fold >= self.folds:
            raise UserError(
                f"data.folds={self.folds} data.fold={self.fold}: give 3 or more folds and one of 0 to folds - 1."
            )
        if self.mask_values is not None and not self.mask_values:
            raise UserError("data.mask_values=[] names no value; give the values that are lesion, or null.")
