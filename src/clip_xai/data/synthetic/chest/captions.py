"""What a radiograph shows in sentences: each finding with its side, its zone where it has one, and its size.

All captions of a film state the same facts, in words from which the vocabulary ``chest`` reads exactly these.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clip_xai.data.descriptions import FILE, SCHEMA
from clip_xai.data.synthetic.chest.plan import Film, Finding

_NAMES = {
    "Effusion": ("pleural effusion", "effusion"),
    "Infiltration": ("infiltrate", "infiltration"),
    "Mass": ("mass", "lung mass"),
    "Nodule": ("nodule", "lung nodule"),
    "Pneumothorax": ("pneumothorax", "pneumothorax"),
}
_ZONED = ("Infiltration", "Mass", "Nodule")
_HEARTS = {
    "small": ("mild cardiomegaly", "a slightly enlarged heart"),
    "moderate": ("cardiomegaly", "an enlarged heart"),
    "large": ("severe cardiomegaly", "a markedly enlarged heart"),
}
_SHOWING = (
    "A chest X-ray showing {found}.",
    "A frontal chest radiograph with {found}.",
    "There is {found} on this chest X-ray.",
)
_NORMAL = (
    "A normal chest X-ray without findings.",
    "A normal frontal chest radiograph.",
    "The lungs are clear and the heart is normal on this chest X-ray.",
)


def describe(film: Film) -> tuple[str, ...]:
    """Return three captions of a film, in an order of its own: the first is the one to learn.

    >>> from clip_xai.data.synthetic.chest.plan import sample_film
    >>> sample_film(0, 1, 0).labels, len(describe(sample_film(0, 1, 0)))
    (('Infiltration',), 3)
    """
    rng = film.stream("captions")
    forms = _SHOWING if film.findings else _NORMAL
    texts = []
    for form in rng.permutation(len(forms)):
        found = _listed([_said(finding, int(rng.integers(2))) for finding in film.findings])
        texts.append(forms[form].format(found=found))
    return tuple(texts)


def write_captions(root: Path, source: str, films: Sequence[Film]) -> None:
    """Write the captions of films as a person's own descriptions of a source, which stand beside its labels."""
    rows = [{"source": source, "image": film.name, "captions": list(describe(film)), "mask": None} for film in films]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), root / FILE)


def _said(finding: Finding, wording: int) -> str:
    if finding.label == "Cardiomegaly":
        return _HEARTS[finding.size][wording]
    name = _NAMES[finding.label][wording]
    if finding.label in _ZONED:
        return f"a {finding.size} {name} in the {finding.side} {finding.zone} zone"
    return f"a {finding.size} {finding.side} {name}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""
