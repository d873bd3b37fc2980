from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.backbones.text_tokenizers import ByteLevelClipTokenizer, ClipTokenizer
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.xai.target import SimilarityTarget
from clip_xai.xai.targets.similarity import CutTextWarning
from clip_xai.xai.words import words_of

TRAINED = CaptionTokenizer.train(["a brown lesion of the skin", "a brown nevus"] * 3, vocabulary_size=300)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_survives_encoding(text: str) -> None:
    assert TRAINED.decode(TRAINED.encode(text)) == text


def test_spans_spell_the_words() -> None:
    text = "a brown nevus"
    spelled = "".join(text[start:end] for start, end in TRAINED.spans(text))
    assert spelled == "abrownnevus"


@pytest.mark.parametrize("text", ["A photo of  Melanoma, (nodular).", "naïve café — 3 mm", "two\nlines"])
def test_clip_spans_cover_every_visible_character_once(text: str) -> None:
    spans = ClipTokenizer().spans(text)
    covered = [index for start, end in spans for index in range(start, end)]
    assert covered == [index for index, character in enumerate(text) if not character.isspace()]


def test_clip_spans_count_tokens_as_open_clip_does() -> None:
    tokenizer = ClipTokenizer()
    text = "a dermoscopic photograph of hyperkeratotic melanoacanthoma"
    ids = tokenizer([text])[0]
    assert len(tokenizer.spans(text)) == int((ids != 0).sum()) - 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("red &lt; brown", ["red", "&lt;", "brown"]),
        ("a \u201cscaly\u201d plaque", ["a", "\u201c", "scaly", "\u201d", "plaque"]),
        ("a \ufb01brous papule", ["a", "\ufb01brous", "papule"]),
        ("5\u00a0mm na\u00efve", ["5", "mm", "na\u00efve"]),
        ("nai\u0308ve", ["nai\u0308ve"]),
        ("\uff52\uff45\uff44 nevus", ["\uff52\uff45\uff44", "nevus"]),
        ("red &amp;amp; scaly", ["red", "&amp;amp;", "scaly"]),
    ],
)
def test_clip_words_keep_their_places_in_what_cleaning_rewrites(text: str, words: list[str]) -> None:
    tokenizer = ClipTokenizer()
    assert [word.text for word in words_of(text, tokenizer.spans(text))] == words
    assert len(tokenizer.spans(text)) == int((tokenizer([text])[0] != 0).sum()) - 2


def test_the_end_of_a_text_that_is_not_read_is_named(backbone: OpenClipBackbone) -> None:
    text = "a brown lesion " * 10 + "melanoma"
    unread = backbone.unread(text)
    assert backbone.unread("melanoma") == "" and unread.endswith("melanoma")
    kept = text[: len(text) - len(unread)]
    assert backbone.unread(kept) == "" and torch.equal(backbone.tokenize([kept]), backbone.tokenize([text]))
    with pytest.warns(CutTextWarning, match="not read: .*melanoma"):
        target = SimilarityTarget.from_texts(backbone, [text, "a nevus"])
    assert len(target.notes) == 1


def test_the_end_marker_survives_a_long_text() -> None:
    tokenizer = ByteLevelClipTokenizer(TRAINED, context_length=8)
    row = tokenizer(["a brown lesion of the skin, of the skin, of the skin"])[0]
    assert row[0] == TRAINED.bos_id
    assert row[-1] == TRAINED.eos_id == int(row.max())
