"""What the captions of a scene say, and that it can be read back."""

from __future__ import annotations

import re

import numpy as np
import pytest

from clip_xai.data.lexicon import read_attribute, read_diagnosis, read_structures
from clip_xai.data.synthetic.describe import describe, facet_captions, facets
from clip_xai.data.synthetic.scene import sample_scene
from clip_xai.data.vocabulary import load_vocabulary

SKIN = load_vocabulary("skin")

SCENES = [sample_scene(seed) for seed in range(400)]
UNSEEN = re.compile(
    r"\b(years?|old|man|woman|male|female|patient|back|face|arm|leg|hand|foot|trunk|chest|neck|scalp|history)\b", re.I
)


def read_all(text: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {name: read_attribute(text, name) for name in SKIN.attributes}
    return found | {"diagnosis": read_diagnosis(text), "structures": ", ".join(read_structures(text)) or "none"}


def test_every_caption_states_exactly_the_facets() -> None:
    for scene in SCENES:
        for caption in describe(scene, 3):
            assert read_all(caption) == facets(scene), caption


def test_captions_differ_and_are_sentences_of_moderate_length() -> None:
    words: set[str] = set()
    for scene in SCENES:
        captions = describe(scene, 3)
        assert len(set(captions)) == 3
        assert describe(scene, 1) == captions[:1]
        for caption in captions:
            assert 18 <= len(caption.split()) <= 40, caption
            assert re.fullmatch(r"[A-Z][^{}]*\.", caption) and "  " not in caption
            assert not re.search(r"\b[Aa] [aeiou]", caption) and not re.search(r"\b[Aa]n [^aeiou]", caption)
            assert not UNSEEN.search(caption)
            words |= set(re.findall(r"[a-z-]+", caption.lower()))
    assert len(words) < 250


def test_many_captions_of_one_scene_stay_different() -> None:
    assert len(set(describe(SCENES[0], 8))) == 8
    for count in (0, 9):
        with pytest.raises(ValueError, match="at least 1 and at most 8"):
            describe(SCENES[0], count)


def test_partial_captions_state_their_facets_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    for scene in SCENES:
        stated = facets(scene)
        for key, caption in facet_captions(scene, rng).items():
            wanted = {name: stated[name] for name in key.split("+")}
            found = {name: value for name, value in read_all(caption).items() if value not in (None, "none")}
            assert found == {name: value for name, value in wanted.items() if value != "none"}, caption
