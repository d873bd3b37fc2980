"""Text tokenizers of the towers, with the place of each token in its text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import regex
import torch
from open_clip.tokenizer import SimpleTokenizer
from tokenizers import Regex, Tokenizer, normalizers
from torch import Tensor

from clip_xai.models.tokenizer import CaptionTokenizer


class TextTokenizer(Protocol):
    """Turns texts into fixed-length token ids and knows where each token stands in its text.

    Attributes:
        name: For people; a stand-in says that it is one.
        first: Position of a text's first token: 1 behind a start marker, 0 without one.
    """

    name: str
    first: int

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return ids ``[T, context]``."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the character span of each token of ``text``, markers left out."""

    def plain(self) -> dict[str, Any]:
        """Everything that ``tokenizer_from_plain`` needs, as values that JSON can hold."""


class ClipTokenizer:
    """CLIP's lower-cased byte-pair encoding of 49,408 tokens (open_clip's ``SimpleTokenizer``)."""

    name = "CLIP BPE"
    first = 1

    def __init__(self, context_length: int = 77) -> None:
        self._tokenizer = SimpleTokenizer(context_length=context_length)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return ids ``[T, context]``: start, tokens, end, zeros; longer texts keep their end marker."""
        return self._tokenizer(list(texts))

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the character span of each token that fits into the context, markers left out.

        Raises:
            ValueError: The text holds something that CLIP's cleaning rewrites (an HTML entity, say), so that its
                tokens have no place in it.
        """
        spans: list[tuple[int, int]] = []
        lowered, cursor = text.lower(), 0
        for word in regex.findall(self._tokenizer.pat, self._tokenizer.clean_fn(text)):
            start = lowered.find(word, cursor)
            if start < 0:
                raise ValueError(f"cannot place the token {word!r} in {text!r}: write the text in plain characters")
            cursor = start
            letters = "".join(self._tokenizer.byte_encoder[byte] for byte in word.encode())
            read = 0
            for piece in self._tokenizer.bpe(letters).split(" "):
                length = len(piece.removesuffix("</w>"))
                # A token holds bytes; its characters are those whose first byte lies in it.
                first = len(word.encode()[:read].decode(errors="ignore"))
                last = len(word.encode()[: read + length].decode(errors="ignore"))
                spans.append((cursor + first, cursor + last))
                read += length
            cursor += len(word)
        return spans[: self._tokenizer.context_length - 2]

    def plain(self) -> dict[str, Any]:
        """Its length; the vocabulary is open_clip's."""
        return {"kind": "clip", "context_length": self._tokenizer.context_length}


class ByteLevelClipTokenizer:
    """The embedded CLIP's tokenizer: the caption tokenizer's byte-level BPE between start and end markers.

    open_clip pools the text tower at the highest id of each row, so the end marker must be the vocabulary's last id.
    """

    name = "byte-level BPE"
    first = 1

    def __init__(self, tokenizer: CaptionTokenizer, context_length: int) -> None:
        if tokenizer.eos_id != tokenizer.vocabulary_size - 1:
            raise ValueError("the end marker must be the last id of the vocabulary")
        self._tokenizer = tokenizer
        self.context_length = context_length

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return ids ``[T, context]``: start, tokens, end, zeros; longer texts keep their end marker."""
        rows = torch.zeros(len(texts), self.context_length, dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            tokens = self._tokenizer.encode(text)[: self.context_length - 2]
            ids = [self._tokenizer.bos_id, *tokens, self._tokenizer.eos_id]
            row[: len(ids)] = torch.tensor(ids)
        return rows

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the character span of each token that fits into the context, markers left out."""
        return self._tokenizer.spans(text)[: self.context_length - 2]

    def plain(self) -> dict[str, Any]:
        """Its length and its whole vocabulary."""
        return {"kind": "byte_level", "context_length": self.context_length, "json": self._tokenizer.json()}


class PublishedTokenizer:
    """A tokenizer of the ``tokenizers`` library, as BERT and SigLIP have one.

    Attributes:
        context_length: Tokens of a row, markers and padding included.
    """

    def __init__(self, tokenizer: Tokenizer, context_length: int, pad_id: int, first: int, name: str) -> None:
        """Take a tokenizer that adds its own markers.

        Args:
            tokenizer: The tokenizer.
            context_length: Tokens of a row.
            pad_id: Fills rows up.
            first: 1 if it puts a marker in front of each text, 0 if not.
            name: For people.
        """
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer, self._pad_id = tokenizer, pad_id
        self.context_length, self.first, self.name = context_length, first, name

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return ids ``[T, context]``: markers and tokens, padded; longer texts keep their end marker."""
        rows = torch.full((len(texts), self.context_length), self._pad_id)
        for row, encoding in zip(rows, self._tokenizer.encode_batch(list(texts)), strict=True):
            ids = encoding.ids
            if len(ids) > self.context_length:
                ids = [*ids[: self.context_length - 1], ids[-1]]
            row[: len(ids)] = torch.tensor(ids)
        return rows

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the character span of each token that fits into the context, markers left out."""
        spans = self._tokenizer.encode(text, add_special_tokens=False).offsets[: self.context_length - 1 - self.first]
        return [_without_space(text, start, end) for start, end in spans]

    def plain(self) -> dict[str, Any]:
        """Its settings and its whole vocabulary."""
        return {
            "kind": "published",
            "context_length": self.context_length,
            "pad_id": self._pad_id,
            "first": self.first,
            "name": Path(self.name).name,  # where it lay is nobody's business elsewhere
            "json": self._tokenizer.to_str(),
        }


def tokenizer_from_plain(values: dict[str, Any]) -> TextTokenizer:
    """Return the tokenizer whose ``plain`` gave these values."""
    length = int(values["context_length"])
    if values["kind"] == "clip":
        return ClipTokenizer(length)
    tokenizer = Tokenizer.from_str(values["json"])
    if values["kind"] == "byte_level":
        return ByteLevelClipTokenizer(CaptionTokenizer(tokenizer), length)
    return PublishedTokenizer(tokenizer, length, int(values["pad_id"]), int(values["first"]), values["name"])


def canonical(normalizer: Any) -> Any:
    """Return a normalizer that first brings a text to the form that SigLIP was trained on.

    Lower case, no ASCII punctuation, single spaces. Tokens keep their places in the text as written.
    """
    steps = [
        normalizers.Lowercase(),
        normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
    ]
    return normalizers.Sequence([*steps, normalizer] if normalizer is not None else steps)


def _without_space(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    return start, end
