"""Text tokenizers of the towers, with the place of each token in its text."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
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

    @property
    def room(self) -> int:
        """How many tokens of a text are read, markers left out."""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return ids ``[T, context]``."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the character span of each token of ``text`` that is read, markers left out."""

    def all_spans(self, text: str) -> list[tuple[int, int]]:
        """Return the same of all tokens, also of those beyond the context."""

    def plain(self) -> dict[str, Any]:
        """Everything that ``tokenizer_from_plain`` needs, as values that JSON can hold."""


class _Reading:
    """What every tokenizer says of the part of a text that is read."""

    room: int

    def all_spans(self, text: str) -> list[tuple[int, int]]:
        raise NotImplementedError

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the character span of each token that fits into the context, markers left out."""
        return self.all_spans(text)[: self.room]


class ClipTokenizer(_Reading):
    """CLIP's lower-cased byte-pair encoding of 49,408 tokens (open_clip's ``SimpleTokenizer``)."""

    name = "CLIP BPE"
    first = 1

    def __init__(self, context_length: int = 77) -> None:
        self._tokenizer = SimpleTokenizer(context_length=context_length)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return ids ``[T, context]``: start, tokens, end, zeros; longer texts keep their end marker."""
        return self._tokenizer(list(texts))

    @property
    def room(self) -> int:  # type: ignore[override]
        """All but the start and end markers."""
        return self._tokenizer.context_length - 2

    def all_spans(self, text: str) -> list[tuple[int, int]]:
        """Return the character span of each token in the text as it was written.

        CLIP's cleaning rewrites it first: quotes, ligatures, accents, HTML entities. What of the text became a token
        is found by comparing the two.
        """
        cleaned = self._tokenizer.clean_fn(text)
        places = aligned(text, cleaned)
        spans: list[tuple[int, int]] = []
        for match in regex.finditer(self._tokenizer.pat, cleaned):
            word, start = match.group(), match.start()
            letters = "".join(self._tokenizer.byte_encoder[byte] for byte in word.encode())
            read = 0
            for piece in self._tokenizer.bpe(letters).split(" "):
                length = len(piece.removesuffix("</w>"))
                # A token holds bytes; its characters are those whose first byte lies in it.
                first = len(word.encode()[:read].decode(errors="ignore"))
                last = len(word.encode()[: read + length].decode(errors="ignore"))
                held = places[start + first : start + last]
                edge = places[min(start + first, len(places) - 1)][0]
                spans.append((held[0][0], held[-1][1]) if held else (edge, edge))
                read += length
        return spans

    def plain(self) -> dict[str, Any]:
        """Its length; the vocabulary is open_clip's."""
        return {"kind": "clip", "context_length": self._tokenizer.context_length}


class ByteLevelClipTokenizer(_Reading):
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

    @property
    def room(self) -> int:  # type: ignore[override]
        """All but the start and end markers."""
        return self.context_length - 2

    def all_spans(self, text: str) -> list[tuple[int, int]]:
        """Return the character span of each token."""
        return self._tokenizer.spans(text)

    def plain(self) -> dict[str, Any]:
        """Its length and its whole vocabulary."""
        return {"kind": "byte_level", "context_length": self.context_length, "json": self._tokenizer.json()}


class PublishedTokenizer(_Reading):
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

    @property
    def room(self) -> int:  # type: ignore[override]
        """All but the markers."""
        return self.context_length - 1 - self.first

    def all_spans(self, text: str) -> list[tuple[int, int]]:
        """Return the character span of each token."""
        spans = self._tokenizer.encode(text, add_special_tokens=False).offsets
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


def aligned(text: str, cleaned: str) -> list[tuple[int, int]]:
    """Return for each character of a cleaned text which characters of the text as written it stands for.

    Example:
        >>> aligned("a \u201cb\u201d &amp;", 'a "b" &')[2:]
        [(2, 3), (3, 4), (4, 5), (5, 6), (6, 11)]
    """
    lowered = [character.lower()[:1] for character in text]
    places: list[tuple[int, int]] = []
    for _, start, end, first, last in SequenceMatcher(None, lowered, list(cleaned), autojunk=False).get_opcodes():
        if end - start == last - first:
            places += [(start + step, start + step + 1) for step in range(last - first)]
        elif last > first:
            places += [(start, end)] * (last - first)
        elif places and not text[start:end].isspace():
            places[-1] = (places[-1][0], end)  # what was taken out belongs to what stands before it
    return places


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
