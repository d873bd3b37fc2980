"""The result of an explainer: raw numbers, what they are about, and where they lie on the photograph."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clip_xai.data.preprocess import Geometry
from clip_xai.errors import UserError
from clip_xai.files import replacing


@dataclass(frozen=True)
class Attribution:
    """Raw, signed evidence for T scores of B images.

    Attributes:
        values: ``[B, T, h, w]`` over the patch grid, ``[B, T, K]`` over K columns of words, or ``[B, T, K, h, w]`` over
            pairs of words and patches; float32.
        method: Name of the explainer.
        settings: Settings of the explainer and of the target, plain values.
        scores: The scores that are explained, ``[B, T]``.
        labels: What each of the T scores is about.
        text_dependent: False for methods whose map is the same whatever is asked.
        kind: ``"image"``, ``"text"`` or ``"pair"``.
        geometry: Where each image's square lies on its photograph.
        tokens: For ``"text"`` and ``"pair"``, the names of the columns of each of the T scores. Columns past a score's
            last name are NaN.
        delta: For methods whose values should add up to a difference of scores, what they miss of it, ``[B, T]``.
    """

    values: Tensor
    method: str
    settings: Mapping[str, Any]
    scores: Tensor
    labels: list[str]
    text_dependent: bool
    kind: str = "image"
    geometry: list[Geometry] | None = None
    tokens: list[list[str]] | None = None
    delta: Tensor | None = None

    def __post_init__(self) -> None:
        images, targets = self.scores.shape
        if self.values.shape[:2] != (images, targets) or len(self.labels) != targets:
            shapes = f"values {tuple(self.values.shape)}, scores {tuple(self.scores.shape)}"
            raise ValueError(f"{shapes} and {len(self.labels)} labels do not fit together")
        if self.values.ndim != {"image": 4, "text": 3, "pair": 5}[self.kind]:
            raise ValueError(f"values of kind {self.kind!r} cannot have the shape {tuple(self.values.shape)}")
        if self.geometry is not None and len(self.geometry) != images:
            raise ValueError(f"{len(self.geometry)} geometries for {images} images")
        if (self.tokens is None) != (self.kind == "image"):
            raise ValueError("attributions over words, and only they, name their tokens")
        if self.tokens is not None and len(self.tokens) != targets:
            raise ValueError(f"{len(self.tokens)} lists of tokens for {targets} scores")

    @property
    def empty(self) -> Tensor:
        """Tell for which images and scores nothing is left, bool ``[B, T]``: every value is 0, as a ReLU can leave."""
        return (self.values.nan_to_num() == 0).flatten(2).all(dim=2)

    def with_geometry(self, geometry: list[Geometry]) -> Attribution:
        """Return the same evidence with the place of each image's square on its photograph."""
        return replace(self, geometry=geometry)

    def on_photograph(self, image: int, target: int) -> Tensor:
        """Return one map laid onto the whole photograph, ``[H, W]``; NaN where the model did not look.

        Raises:
            ValueError: The attribution has no geometry.
        """
        if self.geometry is None:
            raise ValueError("this attribution does not know its photographs: add them with with_geometry")
        return self.geometry[image].place(self.values[image, target])

    def metadata(self) -> dict[str, Any]:
        """Return everything but the tensors, as plain values that JSON can hold."""
        return {
            "method": self.method,
            "settings": dict(self.settings),
            "labels": self.labels,
            "text_dependent": self.text_dependent,
            "kind": self.kind,
            "geometry": None if self.geometry is None else [asdict(place) for place in self.geometry],
            "tokens": self.tokens,
        }

    def save(self, path: Path) -> None:
        """Write one safetensors file: ``values``, ``scores``, any ``delta``, and the rest as JSON in its header."""
        held = {name: getattr(self, name) for name in ("values", "scores", "delta")}
        tensors = {
            name: tensor.detach().float().cpu().contiguous() for name, tensor in held.items() if tensor is not None
        }
        with replacing(path) as unfinished:
            save_file(tensors, unfinished, metadata={"attribution": json.dumps(self.metadata(), ensure_ascii=False)})

    @classmethod
    def load(cls, path: Path) -> Attribution:
        """Read what ``save`` wrote.

        Raises:
            UserError: The file holds something else.
        """
        try:
            file = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} does not hold a readable attribution ({error})") from error
        with file:
            header = file.metadata() or {}
            if "attribution" not in header:
                raise UserError(
                    f"{path} does not hold a single attribution: the results of a run of explain.py are read by "
                    "clip_xai.read_run(run_dir)"
                )
            metadata = json.loads(header["attribution"])
            return cls.from_metadata(file.get_tensor("values"), file.get_tensor("scores"), metadata)

    @classmethod
    def from_metadata(cls, values: Tensor, scores: Tensor, metadata: Mapping[str, Any]) -> Attribution:
        """Put tensors and what ``metadata`` returned together again."""
        known = dict(metadata)
        places = known.pop("geometry")
        geometry = None if places is None else [Geometry(**place) for place in places]
        return cls(values=values, scores=scores, geometry=geometry, **known)
