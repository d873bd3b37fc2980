"""CLIP dual encoders: a vision backbone with a text tower that shares its embedding space."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from clip_xai.data.preprocess import Preprocess
from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.recording import Point, Record
from clip_xai.models.backbones.text_tokenizers import TextTokenizer
from clip_xai.models.backbones.tower import ImageTower
from clip_xai.models.backbones.transformer import TextTower, TextTrace, openable


class CLIPBackbone(VisionBackbone):
    """A CLIP dual encoder: images ``[B, 3, S, S]`` and texts into one embedding space of D dimensions.

    Attributes:
        text_tower: The adapter of the text tower, None where it was not built.
        tokenizer: The text tower's tokenizer, None where it was not built.
    """

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
        super().__init__(model, image_tower, preprocess, name, source, variant)
        self.text_tower, self.tokenizer = text_tower, tokenizer

    @property
    def supports(self) -> frozenset[str]:
        """What explainers may ask of it: as of any vision backbone, and ``text_trace``."""
        text = self.text_tower is not None and openable(self.text_tower)
        return super().supports | ({"text_trace"} if text else set())

    @property
    def logit_scale(self) -> Tensor:
        """The learned temperature tau (a scalar, already exponentiated) that multiplies the cosine."""
        return self.model.logit_scale.exp().reshape(())

    @property
    def first_token(self) -> int:
        """Position of a text's first token in its row of ids: 1 behind a start marker, 0 where there is none."""
        return self._tokenizer().first

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

    def _text_tower(self) -> TextTower:
        if self.text_tower is None:
            raise UserError(f"backbone {self.name} was built without its text tower: set backbone.text=true")
        return self.text_tower

    def _tokenizer(self) -> TextTokenizer:
        if self.tokenizer is None:
            raise UserError(f"backbone {self.name} was built without its text tower: set backbone.text=true")
        return self.tokenizer


def with_texts(backbone: VisionBackbone) -> CLIPBackbone:
    """Return the backbone as one that texts can be compared with.

    Raises:
        UserError: It is a vision model alone.
    """
    if not isinstance(backbone, CLIPBackbone):
        raise UserError(
            f"backbone {backbone.name} is a vision model without a text tower, so that nothing can be compared with "
            "texts: choose a CLIP, or target=logit for a classifier"
        )
    return backbone
