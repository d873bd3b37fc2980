"""The terms that bind a captioner that is handed on: those of its tower, its data and its index of captions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from clip_xai.errors import UserError
from clip_xai.models.backbones.catalogue import CATALOGUE
from clip_xai.models.backbones.source import BackboneSource
from clip_xai.models.retrieval import INDEX, CaptionIndex
from clip_xai.models.weights import CaptionerSettings
from clip_xai.text import plural

_CHANGES_THE_TOWER = re.compile(r"(?:stage )?(?:0|contrastive)\b")


def merged_terms(
    settings: CaptionerSettings, data: Mapping[str, str], index: CaptionIndex | None = None
) -> dict[str, str]:
    """Return what binds a captioner: part -> terms.

    Args:
        settings: What the captioner was built from.
        data: Data set that it has learned from -> its licence and terms.
        index: What its prompts are retrieved from, if that goes with it.
    """
    source = settings.backbone
    origin = "" if source.pretrained is None else f" ({source.pretrained})"
    licence = "random weights, trained by nobody" if source.pretrained is None else _licence_of(source)
    terms = {f"tower {source.name}{origin}": licence}
    start = settings.language_model_pretrained
    if start is not None and not start.startswith("embedded:"):
        terms[f"language model {settings.language_model} ({start})"] = "as its publisher says"
    terms |= {f"data {name}": said for name, said in data.items()}
    if index is not None:
        count = len(index.captions)
        terms[INDEX] = f"holds {count:,} {plural(count, 'training caption')}: the terms of all data above bind it"
    return terms


def require_pushable(source: BackboneSource, provenance: Mapping[str, str]) -> None:
    """Refuse to publish a tower that was trained further although its licence forbids derivatives.

    Args:
        source: What the tower was built from.
        provenance: What the header of the captioner's weights says of their training.

    Raises:
        UserError: The tower must not be published.

    Example:
        >>> changed = {"lineage": '{"steps": ["stage 0 on mine, split stratified"]}'}
        >>> require_pushable(BackboneSource("tiny", "tiny", "mine.safetensors"), changed)
        >>> tower = BackboneSource("dermlip_panderm", "PanDerm-base-w-PubMed-256", "it.safetensors")
        >>> require_pushable(tower, {})
        >>> require_pushable(tower, changed)
        Traceback (most recent call last):
        clip_xai.errors.UserError: ...
    """
    licence = _licence_of(source)
    if forbids_derivatives(licence) and _trained_further(provenance):
        raise UserError(
            f"backbone {source.name} is under {licence}, which forbids sharing changed weights, and stage 0 changed "
            "them: leave --push out, or push a captioner on the published tower"
        )


def forbids_derivatives(licence: str) -> bool:
    """Tell whether a Creative Commons licence has the element ND.

    Example:
        >>> [forbids_derivatives(one) for one in ("CC BY-NC-ND 4.0", "cc-by-nd-4.0", "CC BY-NC 4.0", "MIT")]
        [True, True, False, False]
    """
    return re.search(r"\bnd\b", licence, re.IGNORECASE) is not None


def _licence_of(source: BackboneSource) -> str:
    """Return the licence of a tower's weights: by its name, or by an architecture that one publisher alone has."""
    named = CATALOGUE.get(source.name)
    same = [entry for entry in CATALOGUE.values() if entry.architecture == source.architecture]
    if named in same and named is not None:
        return named.licence
    if len(same) == 1:
        return same[0].licence
    return named.licence if named is not None else "as its publisher says"


def _trained_further(provenance: Mapping[str, str]) -> bool:
    try:
        steps = json.loads(provenance["lineage"])["steps"]
    except (KeyError, TypeError, ValueError):
        return False
    return any(_CHANGES_THE_TOWER.match(step) is not None for step in steps)
