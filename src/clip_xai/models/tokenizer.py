"""The language model's tokenizer: byte-level BPE with the place of each token in its text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from clip_xai.errors import UserError
from clip_xai.files import reading, replacing, write_json

START, END = "<|startoftext|>", "<|endoftext|>"
MARKERS = "tokenizer_config.json"  # beside a tokenizer whose markers have other names
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # how tokenizers made by SentencePiece spell a single byte
_SPACE = "\u2581"  # and how they spell a space


class CaptionTokenizer:
    """A language model's tokenizer, kept in ``tokenizer.json``: byte-level BPE as GPT-2's, or that of another family.

    Any text can be encoded, and a byte-level one gives it back exactly. The end marker doubles as the padding id;
    padding is never supervised, so the two do not mix.

    Example:
        >>> tokenizer = CaptionTokenizer.train(["a brown lesion", "a red lesion"], vocabulary_size=300)
        >>> tokenizer.decode(tokenizer.encode("a red lesion"))
        'a red lesion'
    """

    def __init__(self, tokenizer: Tokenizer, end_marker: str = END, start_marker: str = START) -> None:
        """Wrap a ``tokenizers.Tokenizer``.

        Args:
            tokenizer: The tokenizer.
            end_marker: The token that ends a text.
            start_marker: The token that starts one; the end marker where there is none.

        Raises:
            ValueError: The vocabulary does not have the end marker.
        """
        self._tokenizer = tokenizer
        self._markers = (end_marker, start_marker)
        end = tokenizer.token_to_id(end_marker)
        if end is None:
            raise ValueError(f"the tokenizer has no {end_marker} token")
        start = tokenizer.token_to_id(start_marker)
        self.eos_id: int = end
        self.pad_id: int = end
        # GPT-2's own vocabulary has one marker for both ends.
        self.bos_id: int = end if start is None else start

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int) -> CaptionTokenizer:
        """Learn a vocabulary of at most ``vocabulary_size`` tokens; the start and end markers get the last two ids."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size - 2,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            min_frequency=2,
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer.add_special_tokens([START, END])
        return cls(tokenizer)

    @classmethod
    def load(cls, directory: Path) -> CaptionTokenizer:
        """Read ``tokenizer.json`` from a directory, and the names of other markers than GPT-2's beside it.

        Raises:
            UserError: Nothing says which token ends a text.
        """
        file = directory / "tokenizer.json"
        with reading(file, "name another directory"):
            tokenizer = Tokenizer.from_file(str(file))
        if tokenizer.token_to_id(END) is not None:
            return cls(tokenizer)
        end, start = _named_markers(directory)
        if end is None or tokenizer.token_to_id(end) is None:
            raise UserError(
                f"{file} has no {END}, and no {MARKERS} beside it names an eos_token that it has: add that file"
            )
        return cls(tokenizer, end, start or end)

    def save(self, directory: Path) -> None:
        """Write ``tokenizer.json`` into a directory."""
        directory.mkdir(parents=True, exist_ok=True)
        with replacing(directory / "tokenizer.json") as unfinished:
            self._tokenizer.save(str(unfinished))
        if self._markers != (END, START):
            write_json(directory / MARKERS, dict(zip(("eos_token", "bos_token"), self._markers, strict=True)))

    def json(self) -> str:
        """Return what ``tokenizer.json`` holds."""
        return self._tokenizer.to_str()

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, markers included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    @property
    def largest_id(self) -> int:
        """The largest token id, markers included."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    @cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        """The bytes that each token id spells; none for markers and for ids without a token."""
        alphabet = _byte_of_letter()
        markers = {
            START,
            END,
            *self._markers,
            *(one.content for one in self._tokenizer.get_added_tokens_decoder().values()),
        }
        known = self._tokenizer.get_vocab(with_added_tokens=False)
        byte_level = all(letter in alphabet for token in known if token not in markers for letter in token)
        spelled = [b""] * (self.largest_id + 1)
        for token, index in known.items():
            if token in markers:
                continue
            byte = _BYTE.fullmatch(token)
            if byte_level:
                spelled[index] = bytes(alphabet[letter] for letter in token)
            else:
                spelled[index] = bytes([int(byte[1], 16)]) if byte else token.replace(_SPACE, " ").encode()
        return tuple(spelled)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without markers."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids, markers left out."""
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=True)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the character span ``(start, end)`` of each token, the space before a word left out."""
        spans = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return [_without_leading_space(text, start, end) for start, end in spans]


def _named_markers(directory: Path) -> tuple[str | None, str | None]:
    """The end and start markers that a tokenizer's configuration names: each a text, or a mapping that holds it."""
    file = directory / MARKERS
    if not file.is_file():
        return None, None
    with reading(file, "download it again"):
        named = json.loads(file.read_text(encoding="utf-8"))
        end, start = (named.get(key) for key in ("eos_token", "bos_token"))
    found = [one.get("content") if isinstance(one, dict) else one for one in (end, start)]
    return found[0], found[1]


def _without_leading_space(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    return start, end


def _byte_of_letter() -> dict[str, int]:
    """Byte-level BPE writes printable bytes as themselves and the others, in order, as the letters from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + rank): byte for rank, byte in enumerate(hidden)}
