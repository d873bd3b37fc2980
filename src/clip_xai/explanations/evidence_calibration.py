"""What random fields gain on a model's validation photographs, kept beside its checkpoint; p-values read off it.

``map_evidence.safetensors`` holds, for each kind of thing that is explained and each of the two lengths, the gains of
the fields (``fields/whole caption/0.1``, ``[n, 20]``, one row a photograph, or a word of one), and the mean map of each
method (``mean/gradcam/diagnosis``, ``[h, w]``). The header says of which model.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.files import replacing
from clip_xai.text import counted
from clip_xai.xai.random_fields import LENGTHS
from clip_xai.xai.relevance_gain import DELETED_TO, SHARES

log = logging.getLogger(__name__)
FILE = "map_evidence.safetensors"
FIELDS = 20  # with their negatives forty maps
FEWEST_PHOTOGRAPHS = 200
#: What two calibrations must share to be of the same measure.
RULE = {"shares": list(SHARES), "fields": FIELDS, "lengths": list(LENGTHS), "deleted to": DELETED_TO.words}


@dataclass(frozen=True)
class Calibration:
    """What was measured on a model's validation photographs.

    Attributes:
        model: Fingerprints of the model, by part.
        photographs: How many there were.
        where: Of which data and split, for a reader.
        fields: Gains of fields by kind of item and length, ``[n, FIELDS]``.
        means: Mean map of each method by kind of item, ``[h, w]``, and the method's settings, as JSON.
    """

    model: Mapping[str, str]
    photographs: int
    where: str
    fields: Mapping[tuple[str, float], NDArray[np.floating]]
    means: Mapping[tuple[str, str], tuple[Tensor, str]]

    @cached_property
    def _pooled(self) -> dict[tuple[str, float], NDArray[np.floating]]:
        return {pair: np.sort(np.abs(standardised(gains)).ravel()) for pair, gains in self.fields.items()}

    @cached_property
    def digest(self) -> str:
        """Tells calibrations apart: p-values change with them."""
        digest = hashlib.sha256(json.dumps([self.photographs, self.where, dict(self.model)]).encode())
        for name, array in sorted((str(pair), gains) for pair, gains in self.fields.items()):
            digest.update(name.encode() + np.ascontiguousarray(array, dtype=np.float32).tobytes())
        for name, (mean, said) in sorted((str(pair), kept) for pair, kept in self.means.items()):
            digest.update(name.encode() + said.encode() + mean.float().numpy().tobytes())
        return digest.hexdigest()[:16]

    def null(self, what: str, length: float) -> NDArray[np.floating] | None:
        """Return the pooled sizes of standardised gains, rising; None behind fewer than 200 photographs."""
        return self._pooled.get((what, length)) if self.photographs >= FEWEST_PHOTOGRAPHS else None

    def mean_map(self, method: str, what: str, settings: Mapping[str, object]) -> Tensor | None:
        """Return a method's mean map over the photographs; None where it was not measured with these settings."""
        found = self.means.get((method, what))
        return None if found is None or found[1] != plain_settings(settings) else found[0]

    def beside(self, known: Calibration | None) -> Calibration:
        """Return what is to be written where another calibration of this model may lie.

        Mean maps that the other one has of the same photographs and this one does not stay.

        Raises:
            UserError: The other one is of more photographs.
        """
        if known is None:
            return self
        if known.photographs > self.photographs:
            raise UserError(
                f"a calibration of {counted(known.photographs, 'photograph')} lies beside the model and would be "
                f"replaced by one of {self.photographs}: give samples={known.photographs} or more, or move the file "
                "away"
            )
        if (known.photographs, known.where) != (self.photographs, self.where):
            lost = sorted({method for method, _ in known.means} - {method for method, _ in self.means})
            if lost:
                log.warning("mean maps of %s were of other photographs and are not kept", ", ".join(lost))
            return self
        return replace(self, means={**known.means, **self.means})

    def save(self, folder: Path) -> Path:
        """Write it into the folder of a checkpoint or an exported model."""
        tensors = {f"fields/{what}/{length}": torch.tensor(gains) for (what, length), gains in self.fields.items()}
        tensors |= {f"mean/{method}/{what}": mean.contiguous() for (method, what), (mean, _) in self.means.items()}
        header = {"model": dict(self.model), "photographs": self.photographs, "where": self.where, "rule": RULE}
        header["settings"] = {f"{method}/{what}": said for (method, what), (_, said) in self.means.items()}
        place = folder / FILE
        with replacing(place) as unfinished:
            save_file(tensors, unfinished, metadata={"map_evidence": json.dumps(header)})
        return place


def standardised(gains: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return each gain ``[n, F]`` over the root mean square of the others of its row.

    The mean is 0, as a field and its negative are equally likely. The others, because a gain that takes part in its own
    measure can never be far out.
    """
    squares = np.asarray(gains, dtype=np.float64) ** 2
    others = (squares.sum(axis=1, keepdims=True) - squares) / (squares.shape[1] - 1)
    return np.asarray(gains, dtype=np.float64) / np.sqrt(np.maximum(others, 1e-300))


def p_value(gain: float, fields: NDArray[np.floating], null: NDArray[np.floating] | None = None) -> float:
    """Return the chance that a random field gains as much, one-sided.

    By rank: the place of the gain among itself, the fields, and the negatives of them all, which is exactly uniform
    where the map is one more field. With a null, the gain over the fields' root mean square is ranked among the pooled
    standardised gains of other photographs and their negatives instead.

    Args:
        gain: Of the map.
        fields: Of the fields on this photograph, ``[F]``.
        null: Sizes of pooled standardised gains, rising.

    >>> p_value(3.0, np.array([1.0, -2.0, 0.5])), p_value(-3.0, np.array([1.0, -2.0, 0.5]))
    (0.125, 1.0)
    """
    if null is None:
        size, others = abs(gain), np.sort(np.abs(fields))
    else:
        size, others = abs(gain) / max(float(np.sqrt(np.mean(np.square(fields)))), 1e-300), null
    as_large = len(others) - int(np.searchsorted(others, size, side="left"))
    upper = (1 + as_large) / (2 * len(others) + 2)
    # Of a loss, what it would be of the gain as large: its own place from the other end.
    return upper if gain > 0 else 1.0 if gain == 0 else 1 - upper + 1 / (2 * len(others) + 2)


def plain_settings(settings: Mapping[str, object]) -> str:
    """Return a method's settings as text that can be compared."""
    return json.dumps(dict(settings), sort_keys=True, default=str)


def folder_of(place: Path) -> Path:
    """Return where what is known of a model lies: the exported model's directory, or the one of a ``.ckpt`` file."""
    return place if place.is_dir() else place.parent


def calibration_beside(place: Path | None, model: Mapping[str, str]) -> Calibration | None:
    """Return the calibration beside a checkpoint if it is of this very model, and say so in the log.

    Args:
        place: The exported model's directory, or a ``.ckpt`` file; None where a tower is explained by itself.
        model: Fingerprints of the model.
    """
    if place is None:
        return None
    file = folder_of(place) / FILE
    if not file.is_file():
        return None
    try:
        found, rule = read_calibration(file)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read and is skipped: %s", file, error)
        return None
    if dict(found.model) != dict(model) or rule != RULE:
        why = "another model" if rule == RULE else "another version of the measure"
        log.warning("%s is of %s and is skipped: measure again with python -m clip_xai.studies.evidence", file, why)
        return None
    said = "" if found.photographs >= FEWEST_PHOTOGRAPHS else f"; too few for p-values: {FEWEST_PHOTOGRAPHS} are needed"
    log.info("evidence is calibrated by %s: %s%s", file, counted(found.photographs, "photograph"), said)
    return found


def read_calibration(file: Path) -> tuple[Calibration, Any]:
    """Read what ``save`` wrote, and the rule that it was measured by."""
    with safe_open(file, framework="pt") as opened:
        header = json.loads(opened.metadata()["map_evidence"])
        fields, means = {}, {}
        for key in opened.keys():  # noqa: SIM118 - the file is not a mapping
            kind, first, second = key.split("/")
            if kind == "fields":
                fields[first, float(second)] = opened.get_tensor(key).numpy()
            else:
                means[first, second] = (opened.get_tensor(key), header["settings"][f"{first}/{second}"])
    return Calibration(header["model"], header["photographs"], header["where"], fields, means), header["rule"]
