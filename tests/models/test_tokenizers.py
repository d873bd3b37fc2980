from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_xai.models.backbones.text_tokenizers import ByteLevelClipTokenizer, ClipTokenizer
from clip_xai.models.tokenizer import CaptionTokenizer

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


def test_clip_spans_refuse_what_cleaning_rewrites() -> None:
    with pytest.raises(ValueError, match="plain characters"):
        ClipTokenizer().spans("red &lt; brown")


def test_the_end_marker_survives_a_long_text() -> None:
    tokenizer = ByteLevelClipTokenizer(TRAINED, context_length=8)
    row = tokenizer(["a brown lesion of the skin, of the skin, of the skin"])[0]
    assert row[0] == TRAINED.bos_id
    assert row[-1] == TRAINED.eos_id == int(row.max())
