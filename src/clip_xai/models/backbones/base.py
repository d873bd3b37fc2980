"""The contract that every CLIP backbone keeps, whatever family its tower is of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from clip_xai.data.preprocess import Preprocess
from clip_xai.errors import UserError
from clip_xai.models.backbones.recording import Point, Record, VisualTrace
from clip_xai.models.backbones.text_tokenizers import TextTokenizer
from clip_xai.models.backbones.tower import Features, ImageTower
from clip_xai.models.backbones.transformer import TextTower, TextTrace, openable

if TYPE_CHECKING:
    from clip_xai.models.backbones.blueprint import Blueprint

__all__ = ["Backbone", "Features"]


class Backbone(nn.Module):
    """A CLIP dual encoder: images ``[B, 3, S, S]`` and texts into one embedding space of D dimensions.

    Attributes:
        model: The library's module that holds all weights.
        name: The name it was built under, as in ``backbone=NAME``.
        source: Where the weights came from (a hub name, a path, ``"embedded:tiny"``), or None for random weights.
        preprocess: How a photograph becomes the tower's input, with its geometry.
        image_tower: The adapter of the image tower.
        text_tower: The adapter of the text tower, None where it was not built.
        tokenizer: The text tower's tokenizer, None where it was not built.
        variant: What, besides the weights, decides the numbers that the tower gives; enters the fingerprint.
        blueprint: How it was built, where that is known: with it, it can be built again at other weights.
    """

    blueprint: Blueprint | None = None

    def __init__(
        self,
        model: Any,
        image_tower: ImageTower,
        text_tower: TextTower | None,
        tokenizer: TextTokenizer | None,
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
        self.image_tower, self.text_tower, self.tokenizer = image_tower, text_tower, tokenizer
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
        """What explainers may ask of it: ``attention``, ``class_token``, ``output_gradients``, ``text_trace``."""
        text = self.text_tower is not None and openable(self.text_tower)
        return self.image_tower.supports | ({"text_trace"} if text else set())

    @property
    def logit_scale(self) -> Tensor:
        """The learned temperature tau (a scalar, already exponentiated) that multiplies the cosine."""
        return self.model.logit_scale.exp().reshape(())

    @property
    def first_token(self) -> int:
        """Position of a text's first token in its row of ids: 1 behind a start marker, 0 where there is none."""
        return self._tokenizer().first

    def features(self, pixels: Tensor) -> Features:
        """Encode images in one pass into pooled embeddings and patch tokens.

        Args:
            pixels: Preprocessed images ``[B, 3, S, S]``.
        """
        return self.image_tower.features(pixels)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Return image embeddings ``[B, D]``, projected and not normalised."""
        return self.features(pixels).pooled

    def patch_tokens(self, pixels: Tensor) -> Tensor:
        """Return the patch tokens ``[B, N, W]`` after the final norm."""
        return self.features(pixels).patches

    def project_tokens(self, tokens: Tensor) -> Tensor:
        """Return what single tokens of the last block would be in the embedding space, ``[..., W]`` to ``[..., D]``.

        The final norm and the projection alone: for a tower that reads its class token, this of the class token is the
        image's embedding.
        """
        return self.image_tower.project(tokens)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return token ids ``[T, context]`` with start and end markers, padded."""
        return self._tokenizer()(list(texts))

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """Return the character span ``(start, end)`` in ``text`` of each token that is read, markers left out."""
        return self._tokenizer().spans(text)

    def unread(self, text: str) -> str:
        """Return the end of a text that is longer than the text tower's context; empty where all of it is read."""
        tokenizer = self._tokenizer()
        spans = tokenizer.all_spans(text)
        return text[spans[tokenizer.room - 1][1] :] if len(spans) > tokenizer.room else ""

    def encode_tokens(self, token_ids: Tensor) -> Tensor:
        """Return text embeddings ``[T, D]`` of token ids ``[T, context]``, projected and not normalised."""
        return self._text_tower().encode(token_ids)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Return text embeddings ``[T, D]``, projected and not normalised."""
        device = next(self.parameters()).device
        return self.encode_tokens(self.tokenize(texts).to(device))

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

    def trace_text(self, token_ids: Tensor, *, record: Record = (), watch: Iterable[Point] = ()) -> TextTrace:
        """Run the text tower once on ids ``[T, M]``, differentiable from its token embeddings on; see ``TextTrace``.

        Args:
            token_ids: ``[T, M]``.
            record: Blocks whose activations are kept, -1 for the last; None keeps all.
            watch: Points ``(block, "normed" | "context" | "output")`` that gradients can be taken at.

        Raises:
            UserError: There is no text tower, or it cannot be traced.
        """
        return TextTrace(self._text_tower(), token_ids, record=record, watch=watch)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names, shapes and bytes of all weights: equal exactly when the towers are."""
        digest = hashlib.sha256(self.variant.encode())
        for key, value in sorted(self.state_dict().items()):
            tensor = value.detach().cpu().contiguous()
            digest.update(f"{key}:{tuple(tensor.shape)}:{tensor.dtype}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
        return digest.hexdigest()

    def _text_tower(self) -> TextTower:
        if self.text_tower is None:
            raise UserError(f"backbone {self.name} was built without its text tower: set backbone.text=true")
        return self.text_tower

    def _tokenizer(self) -> TextTokenizer:
        if self.tokenizer is None:
            raise UserError(f"backbone {self.name} was built without its text tower: set backbone.text=true")
        return self.tokenizer
