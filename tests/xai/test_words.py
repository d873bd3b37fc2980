from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.xai.words import spans_of_ids, words_of


def test_words_hold_hyphens_and_leave_punctuation_alone() -> None:
    text = 'A dome-shaped papule (3.5 mm), "blue".'
    words = words_of(text, [(index, index + 1) for index in range(len(text))])
    found = [word.text for word in words]
    assert found == ["A", "dome-shaped", "papule", "(", "3.5", "mm", ")", ",", '"', "blue", '"', "."]


def test_a_mark_inside_a_neighbours_token_joins_that_neighbour() -> None:
    # One token for '".' at the end, one for '(a' at the start.
    assert [word.text for word in words_of('red".', [(0, 3), (3, 5)])] == ["red", '".']
    words = words_of("(abc) x", [(0, 4), (4, 5), (5, 7)])
    assert [(word.text, word.tokens) for word in words] == [("(abc", (0,)), (")", (1,)), ("x", (2,))]


def test_words_past_the_context_are_left_out() -> None:
    assert [word.text for word in words_of("one two three", [(0, 3), (3, 7)])] == ["one", "two"]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.data())
def test_every_token_belongs_to_exactly_one_word(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text))))) if text else []
    edges = [0, *cuts, len(text)]
    spans = list(pairwise(edges))
    words = words_of(text, spans)
    dealt = [token for word in words for token in word.tokens]
    assert sorted(dealt) == (list(range(len(spans))) if words else [])
    assert all(word.text == text[word.start : word.end] and word.tokens for word in words)


def test_spans_come_from_the_ids_and_not_from_encoding_again(tokenizer: CaptionTokenizer) -> None:
    letters = [token for letter in "melanoma" for token in tokenizer.encode(letter)]
    assert letters != tokenizer.encode("melanoma")
    text, spans = spans_of_ids(tokenizer, letters)
    assert (text, spans) == ("melanoma", [(index, index + 1) for index in range(8)])


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="aé😀 .x-", min_size=1, max_size=12))
def test_words_of_generated_ids_spell_the_caption(tokenizer: CaptionTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    decoded, spans = spans_of_ids(tokenizer, ids)
    words = words_of(decoded, spans)
    assert decoded == text
    visible = "".join(text.split())
    if visible.isascii():
        assert "".join("".join(word.text.split()) for word in words) == visible
