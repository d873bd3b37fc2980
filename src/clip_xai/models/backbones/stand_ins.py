"""Tokenizers that stand in where the published files are not at hand: same format, same number of ids.

A model at random weights does not know any words, so any tokenizer of the right vocabulary size will do to build, train
and test it. These are made of the embedded language model's word pieces and are named as stand-ins; with published
weights they are never used.
"""

from __future__ import annotations

import json

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from clip_xai.models.assets import TINY_GPT2

BERT_MARKERS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SIGLIP_MARKERS = ("<unk>", "</s>", "<pad>")


def stand_in_wordpiece(vocabulary_size: int) -> Tokenizer:
    """Return a lower-casing WordPiece tokenizer as BERT's, ``[CLS]`` and ``[SEP]`` around each text."""
    words, pieces = _embedded_pieces()
    letters = _letters()
    tokens = [*BERT_MARKERS, *letters, *(f"##{letter}" for letter in letters), *words, *(f"##{p}" for p in pieces)]
    vocabulary = _numbered(tokens, vocabulary_size)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    class_id, end_id = vocabulary["[CLS]"], vocabulary["[SEP]"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", class_id), ("[SEP]", end_id)]
    )
    return tokenizer


def stand_in_unigram(vocabulary_size: int) -> Tokenizer:
    """Return a lower-casing unigram tokenizer as SigLIP's, ``</s>`` behind each text."""
    words, pieces = _embedded_pieces()
    tokens = [*SIGLIP_MARKERS, *_letters(), *(f"▁{letter}" for letter in _letters()), "▁"]
    tokens += [*(f"▁{word}" for word in words), *pieces]
    vocabulary = _numbered(tokens, vocabulary_size)
    # Longer pieces are likelier than their letters one by one.
    scores = [(token, -10.0 if len(token) > 2 else -20.0) for token in vocabulary]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"[^\w\s]"), ""), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def _embedded_pieces() -> tuple[list[str], list[str]]:
    """Return the embedded vocabulary's plain words, and the pieces that go on with one."""
    vocabulary = json.loads((TINY_GPT2 / "tokenizer.json").read_text())["model"]["vocab"]
    words = [token[1:].lower() for token in vocabulary if token.startswith("Ġ") and token[1:].isalpha()]
    pieces = [token.lower() for token in vocabulary if token.isalpha() and not token.startswith("Ġ")]
    plain = [sorted({token for token in tokens if token.isascii() and len(token) > 1}) for tokens in (words, pieces)]
    return plain[0], plain[1]


def _letters() -> list[str]:
    return [chr(code) for code in range(33, 127) if chr(code) == chr(code).lower()]


def _numbered(tokens: list[str], vocabulary_size: int) -> dict[str, int]:
    """Number tokens and fill the vocabulary up with ids that nothing uses; cut it where it is too small."""
    unique = list(dict.fromkeys(tokens))[:vocabulary_size]
    unique += [f"[unused{index}]" for index in range(vocabulary_size - len(unique))]
    return {token: index for index, token in enumerate(unique)}
