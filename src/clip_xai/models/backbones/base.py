"""The contract of every vision backbone, whatever family its tower is of and whether there is a text side to it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from clip_xai.data.preprocess import Preprocess
from clip_xai.models.backbones.recording import Point, Record, VisualTrace
from clip_xai.models.backbones.tower import Features, ImageTower

__all__ = ["BuildPlan", "Features", "VisionBackbone"]


class BuildPlan(Protocol):
    """How a backbone was built: with it, it can be built again; see ``blueprint.py``."""

    def build(self, name: str, source: str | None = None) -> VisionBackbone:
        """Build the same architecture at random weights."""

    def plain(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""


class VisionBackbone(nn.Module):
    """An image tower: images ``[B, 3, S, S]`` to embeddings of D dimensions and to patch tokens.

    Attributes:
        model: The library's module that holds all weights.
        name: The name it was built under, as in ``backbone=NAME``.
        source: Where the weights came from (a hub name, a path, ``"embedded:tiny"``), or None for random weights.
        preprocess: How a photograph becomes the tower's input, with its geometry.
        image_tower: The adapter of the image tower.
        variant: What, besides the weights, decides the numbers that the tower gives; enters the fingerprint.
        blueprint: How it was built, where that is known: with it, it can be built again at other weights.
    """

    blueprint: BuildPlan | None = None

    def __init__(
        self,
        model: Any,
        image_tower: ImageTower,
        preprocess: Preprocess,
        name: str,
        source: str | None = None,
        variant: str = "",
    ) -> None:
        """Wrap a model.

        Raises:
            ValueError: The preprocessing and the tower disagree on the image size.
        """
        super().__init__()
        if image_tower.image_size != preprocess.image_size:
            raise ValueError(
                f"the tower takes {image_tower.image_size} pixels, the preprocessing gives {preprocess.image_size}"
            )
        self.model: Any = model
        self.image_tower = image_tower
        self.preprocess, self.name, self.source, self.variant = preprocess, name, source, variant

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patch grid."""
        return self.image_tower.grid

    @property
    def embed_dim(self) -> int:
        """D, the dimension of the embedding space."""
        return self.image_tower.embed_dim

    @property
    def width(self) -> int:
        """W, the width of the patch tokens."""
        return self.image_tower.width

    @property
    def supports(self) -> frozenset[str]:
        """What explainers may ask of it: ``attention``, ``class_token``, ``output_gradients``."""
        return self.image_tower.supports

    def features(self, pixels: Tensor) -> Features:
        """Encode images in one pass into pooled embeddings and patch tokens.

        Args:
            pixels: Preprocessed images ``[B, 3, S, S]``.
        """
        return self.image_tower.features(pixels)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Return image embeddings ``[B, D]``, projected and not normalised."""
        return self.features(pixels).pooled

    def project_tokens(self, tokens: Tensor) -> Tensor:
        """Return what single tokens of the last block would be in the embedding space, ``[..., W]`` to ``[..., D]``.

        The final norm and the projection alone: for a tower that reads its class token, this of the class token is the
        image's embedding.
        """
        return self.image_tower.project(tokens)

    def trace(
        self, pixels: Tensor, *, reads: str = "pooled", record: Record = (), watch: Iterable[Point] = ()
    ) -> VisualTrace:
        """Run the image tower once, opened up for explanation; see ``VisualTrace``.

        Args:
            pixels: ``[B, 3, S, S]``.
            reads: ``"pooled"``, ``"patches"`` or ``"tokens"``.
            record: Blocks whose activations are kept, -1 for the last; None keeps all.
            watch: Points ``(block, "normed" | "context" | "output")`` that gradients can be taken at.

        Raises:
            UserError: This tower cannot be traced, or not at these points.
        """
        return self.image_tower.trace(pixels, reads=reads, record=record, watch=watch)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names, shapes and bytes of all weights: equal exactly when the towers are."""
        digest = hashlib.sha256(self.variant.encode())
        for key, value in sorted(self.state_dict().items()):
            tensor = value.detach().cpu().contiguous()
            digest.update(f"{key}:{tuple(tensor.shape)}:{tensor.dtype}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
        return digest.hexdigest()
