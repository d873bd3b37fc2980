"""The contract that every CLIP backbone keeps, whatever family its tower is of."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from clip_xai.data.preprocess import Preprocess
from clip_xai.errors import UserError
from clip_xai.models.backbones.trace import OpenClipTextTrace, OpenClipVisualTrace, Point


@dataclass(frozen=True)
class Features:
    """What a frozen image tower hands to a mapper.

    Attributes:
        pooled: Image embeddings after the projection, not normalised, ``[B, D]``.
        patches: Patch tokens of the last block after the final LayerNorm, before the projection, ``[B, N, W]``,
            row by row from the upper left.
    """

    pooled: Tensor
    patches: Tensor

    def read(self, reads: str) -> Tensor:
        """Return the tensor that a mapper reads: ``"pooled"`` or ``"patches"``."""
        if reads not in ("pooled", "patches"):
            raise ValueError(f"a mapper reads 'pooled' or 'patches', not {reads!r}")
        return self.pooled if reads == "pooled" else self.patches


class Backbone(nn.Module, ABC):
    """A CLIP dual encoder: images ``[B, 3, S, S]`` and texts into one embedding space of D dimensions.

    Attributes:
        name: The name it was built under, as in ``backbone=NAME``.
        source: Where the weights came from (a hub name, a path, ``"embedded:tiny"``), or None for random weights.
        preprocess: How a photograph becomes the tower's input, with its geometry.
        grid: Rows and columns of the patch grid.
        embed_dim: D.
        width: W, the width of the image tower's tokens.
    """

    name: str
    source: str | None
    preprocess: Preprocess
    grid: tuple[int, int]
    embed_dim: int
    width: int

    @property
    @abstractmethod
    def logit_scale(self) -> Tensor:
        """The learned temperature tau (a scalar, already exponentiated) that multiplies the cosine."""

    @abstractmethod
    def features(self, pixels: Tensor) -> Features:
        """Encode images in one pass into pooled embeddings and patch tokens.

        Args:
            pixels: Preprocessed images ``[B, 3, S, S]``.
        """

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Return image embeddings ``[B, D]``, projected and not normalised."""
        return self.features(pixels).pooled

    def patch_tokens(self, pixels: Tensor) -> Tensor:
        """Return the patch tokens ``[B, N, W]`` after the final LayerNorm."""
        return self.features(pixels).patches

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return token ids ``[T, context]`` with start and end markers, padded."""

    @abstractmethod
    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """Return the character span ``(start, end)`` in ``text`` of each token between the start and end markers."""

    @abstractmethod
    def encode_tokens(self, token_ids: Tensor) -> Tensor:
        """Return text embeddings ``[T, D]`` of token ids ``[T, context]``, projected and not normalised."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Return text embeddings ``[T, D]``, projected and not normalised."""
        device = next(self.parameters()).device
        return self.encode_tokens(self.tokenize(texts).to(device))

    def trace(
        self, pixels: Tensor, *, reads: str = "pooled", record: Iterable[int] | None = (), watch: Iterable[Point] = ()
    ) -> OpenClipVisualTrace:
        """Run the image tower once, opened up for explanation; see ``OpenClipVisualTrace``.

        Args:
            pixels: ``[B, 3, S, S]``.
            reads: ``"pooled"`` or ``"patches"``.
            record: Blocks whose activations are kept, -1 for the last; None keeps all.
            watch: Points ``(block, "normed" | "context")`` that gradients can be taken at.

        Raises:
            UserError: This family of towers cannot be traced.
        """
        raise UserError(f"the tower of {self.name!r} cannot be traced: choose occlusion, or a backbone with a CLIP ViT")

    def trace_text(self, token_ids: Tensor) -> OpenClipTextTrace:
        """Run the text tower once on ids ``[T, M]``, differentiable from its token embeddings on.

        Raises:
            UserError: This family of text towers cannot be traced.
        """
        raise UserError(f"the text tower of {self.name!r} cannot be traced: choose a backbone with open_clip's own")

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names, shapes and bytes of all weights: equal exactly when the towers are."""
        digest = hashlib.sha256()
        for key, value in sorted(self.state_dict().items()):
            tensor = value.detach().cpu().contiguous()
            digest.update(f"{key}:{tuple(tensor.shape)}:{tensor.dtype}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
        return digest.hexdigest()
