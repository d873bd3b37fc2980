"""Backbones whose image tower is open_clip's own ``VisionTransformer``, such as DermLIP ViT-B/16."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import open_clip
from open_clip.transformer import VisionTransformer
from torch import Tensor

from clip_xai.data.preprocess import Preprocess
from clip_xai.models.backbones.base import Backbone, Features
from clip_xai.models.backbones.trace import OpenClipTextTrace, OpenClipVisualTrace, Point


class TextTokenizer(Protocol):
    """Turns texts into fixed-length token ids and knows where each token stands in its text."""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return ids ``[T, context]``."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the character span of each token of ``text``, markers left out."""


class OpenClipBackbone(Backbone):
    """An ``open_clip.CLIP`` model whose image tower is open_clip's own ViT with a class token."""

    def __init__(
        self,
        model: open_clip.CLIP,
        tokenizer: TextTokenizer,
        preprocess: Preprocess,
        name: str,
        source: str | None = None,
    ) -> None:
        """Wrap a model.

        Args:
            model: The dual encoder; its image tower must be an ``open_clip`` ``VisionTransformer``.
            tokenizer: Gives ids of the model's context length, and token spans.
            preprocess: The tower's evaluation preprocessing; its image size must be the tower's.
            name: As in ``backbone=NAME``.
            source: Where the weights came from, None for random ones.

        Raises:
            TypeError: The image tower is of another family.
            ValueError: The preprocessing and the tower disagree on the image size.
        """
        super().__init__()
        if not isinstance(model.visual, VisionTransformer):
            raise TypeError(f"expected open_clip's VisionTransformer, got {type(model.visual).__name__}")
        size = model.visual.image_size
        if tuple(size) != (preprocess.image_size, preprocess.image_size):
            raise ValueError(f"the tower takes {tuple(size)} pixels, the preprocessing gives {preprocess.image_size}")
        self.model = model
        self.tokenizer = tokenizer
        self.preprocess = preprocess
        self.name = name
        self.source = source
        rows, columns = model.visual.grid_size
        self.grid = (int(rows), int(columns))
        self.embed_dim = int(model.visual.output_dim)
        self.width = int(model.visual.conv1.out_channels)

    @property
    def visual(self) -> VisionTransformer:
        """The image tower."""
        return self.model.visual

    @property
    def logit_scale(self) -> Tensor:
        """The learned temperature tau, exponentiated."""
        return self.model.logit_scale.exp()

    def features(self, pixels: Tensor) -> Features:
        """Encode ``[B, 3, S, S]`` images in one pass; see the base class."""
        # The last block's tokens after ln_post, through open_clip's public call: switching ``output_tokens`` on the
        # tower instead would be visible to everyone who shares it.
        output = self.visual.forward_intermediates(pixels, indices=1, normalize_intermediates=True, output_fmt="NLC")
        return Features(pooled=output["image_features"], patches=output["image_intermediates"][0])

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return token ids ``[T, context]``."""
        return self.tokenizer(list(texts))

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """Return the character span of each token, markers left out."""
        return self.tokenizer.spans(text)

    def encode_tokens(self, token_ids: Tensor) -> Tensor:
        """Return text embeddings ``[T, D]``."""
        return self.model.encode_text(token_ids)

    def trace(
        self, pixels: Tensor, *, reads: str = "pooled", record: Iterable[int] | None = (), watch: Iterable[Point] = ()
    ) -> OpenClipVisualTrace:
        """Run the image tower once, opened up for explanation; see the base class."""
        return OpenClipVisualTrace(self.visual, pixels, reads=reads, record=record, watch=watch)

    def trace_text(self, token_ids: Tensor) -> OpenClipTextTrace:
        """Run the text tower once, differentiable from its token embeddings on."""
        return OpenClipTextTrace(self.model, token_ids)
