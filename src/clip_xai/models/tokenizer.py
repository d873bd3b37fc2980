"""The language model's tokenizer: byte-level BPE with the place of each token in its text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from clip_xai.files import reading, replacing

START, END = "<|startoftext|>", "<|endoftext|>"


class CaptionTokenizer:
    """A byte-level BPE tokenizer as GPT-2 uses it, kept in one ``tokenizer.json``.

    Any text can be encoded, and decoding gives it back exactly. The end marker doubles as the padding id; padding is
    never supervised, so the two do not mix.

    Example:
        >>> tokenizer = CaptionTokenizer.train(["a brown lesion", "a red lesion"], vocabulary_size=300)
        >>> tokenizer.decode(tokenizer.encode("a red lesion"))
        'a red lesion'
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Wrap a ``tokenizers.Tokenizer`` that has GPT-2's end marker.

        Raises:
            ValueError: The vocabulary has no ``<|endoftext|>``.
        """
        self._tokenizer = tokenizer
        end = tokenizer.token_to_id(END)
        if end is None:
            raise ValueError(f"the tokenizer has no {END} token")
        start = tokenizer.token_to_id(START)
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
        """Read ``tokenizer.json`` from a directory."""
        file = directory / "tokenizer.json"
        with reading(file, "name another directory"):
            return cls(Tokenizer.from_file(str(file)))

    def save(self, directory: Path) -> None:
        """Write ``tokenizer.json`` into a directory."""
        directory.mkdir(parents=True, exist_ok=True)
        with replacing(directory / "tokenizer.json") as unfinished:
            self._tokenizer.save(str(unfinished))

    def json(self) -> str:
        """Return what ``tokenizer.json`` holds."""
        return self._tokenizer.to_str()

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, markers included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    @cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        """The bytes that each token id spells; none for markers and for ids without a token."""
        alphabet = _byte_of_letter()
        spelled = [b""] * (max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1)
        for token, index in self._tokenizer.get_vocab(with_added_tokens=False).items():
            if token not in (START, END):
                spelled[index] = bytes(alphabet[letter] for letter in token)
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


def _without_leading_space(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    return start, end


def _byte_of_letter() -> dict[str, int]:
    """Byte-level BPE writes printable bytes as themselves and the others, in order, as the letters from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + rank): byte for rank, byte in enumerate(hidden)}
