"""Three policies of captions: what each says, and above all what it never says."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_xai.data.captions import POLICIES, CaptionFacts, compose
from clip_xai.data.lexicon import canonical_diagnosis, read_diagnosis
from clip_xai.data.own_text import gives_advice, names_a_diagnosis, without_answers
from clip_xai.data.sources.common import labelled, skin_types_of
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.errors import UserError
from tests.data.rehearsal import VOCABULARY

SKIN = load_vocabulary("skin")

FACTS = CaptionFacts(
    name="a.jpg",
    view="dermoscopic image",
    site="the left cheek",
    size_mm=(6.0, 5.0),
    diagnosis="melanoma",
    confirmed_by="histopathology",
    skin_types=(2,),
    concepts=("scale", "erythema"),
    fields={"Age (approx)": "55", "Pixels X": "600"},
)


def test_each_policy_says_its_part() -> None:
    (visible,), (clinical,), (dump,) = (compose(FACTS, policy) for policy in POLICIES)
    for text in (visible, clinical):
        for stated in ("left cheek", "6 x 5 mm", "scale and erythema", "type II", "dermoscop"):
            assert stated in text
    assert read_diagnosis(visible) is None and "histo" not in visible
    assert read_diagnosis(clinical) == "melanoma" and "confirmed by histopathology" in clinical
    assert dump == "Age (approx): 55, Pixels X: 600"
    with pytest.raises(UserError, match="choose one of visible, clinical, fields"):
        compose(FACTS, "poem")


facts = st.builds(
    CaptionFacts,
    name=st.text(max_size=20),
    view=st.sampled_from(["dermoscopic image", "clinical photograph", "overview photograph"]),
    site=st.sampled_from([None, "the back", "acral skin"]),
    size_mm=st.sampled_from([(), (5.0,), (5.0, 5.0), (12.5, 3.0)]),
    diagnosis=st.sampled_from([None, *sorted(SKIN.diagnoses)]),
    confirmed_by=st.sampled_from([None, "biopsy"]),
    skin_types=st.sampled_from([(), (1,), (3, 4), (5, 6)]),
    concepts=st.lists(st.sampled_from(["scale", "papules", "a wheal"]), unique=True).map(tuple),
)


@settings(max_examples=500, deadline=None)
@given(facts, st.sampled_from(["visible", "clinical"]))
def test_captions_are_sentences(facts: CaptionFacts, policy: str) -> None:
    (text,) = compose(facts, policy)
    assert compose(facts, policy) == (text,)
    assert all(re.fullmatch(r"[A-Z][^.]*(\d\.\d[^.]*)*\.", part) for part in re.split(r"(?<=\.) (?=[A-Z])", text)), text
    assert "  " not in text and not re.search(r"\b(None|nan|unknown)\b|\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", text), text
    if policy == "visible":
        assert read_diagnosis(text) is None
    elif facts.diagnosis:
        assert read_diagnosis(text) == facts.diagnosis, text


def test_no_template_stands_out() -> None:
    texts = [compose(CaptionFacts(**{**vars(FACTS), "name": f"{n}.jpg"}))[0] for n in range(2000)]
    counts = Counter(texts)
    assert len(counts) > 400 and counts.most_common(1)[0][1] < 40
    first = Counter(" ".join(text.split()[:2]) for text in texts)
    assert first.most_common(1)[0][1] < 0.4 * len(texts)


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("A red plaque with scale. A biopsy is recommended.", "A red plaque with scale."),
        ("A red, scaly plaque on the elbow, consistent with psoriasis.", "A red, scaly plaque on the elbow."),
        ("The picture shows psoriasis of the elbow. Silvery scale covers it.", "Silvery scale covers it."),
        ("Avoid scratching. Treatment with topical corticosteroids is needed.", ""),
        ("Melanoma.", ""),
        ("A dark patch of 2.5 cm. It is likely due to sun exposure.", "A dark patch of 2.5 cm."),
    ],
)
def test_advice_and_answers_are_cut_from_publishers_texts(text: str, visible: str) -> None:
    assert without_answers(text) == visible
    assert gives_advice(text) or names_a_diagnosis(text)
    facts = CaptionFacts(name="a", view="clinical photograph", own_text=(text,), diagnosis="psoriasis")
    assert compose(facts, "clinical") == compose(facts, "fields") == (text,)
    (shown,) = compose(facts, "visible")
    assert shown == visible if visible else read_diagnosis(shown) is None and "skin lesion" in shown.lower()


def test_words_that_describe_are_no_advice() -> None:
    for text in ("Several red papules with crusts on the trunk.", "A pigmented nodule with clinical ulceration."):
        assert not gives_advice(text) and not names_a_diagnosis(text) and without_answers(text) == text


def test_every_label_of_the_publishers_has_a_name_or_is_known_to_have_none() -> None:
    labels = {
        *VOCABULARY["ddi"]["disease"], *VOCABULARY["fitzpatrick17k"]["label"], *VOCABULARY["ham10000_train"]["dx"],
        *VOCABULARY["pad_ufes_20"]["diagnostic"], *VOCABULARY["mra_midas"]["midas_path"],
        *VOCABULARY["mra_midas"]["clinical_impression_1"],
    }  # fmt: skip
    nameless = {label for label in labels if canonical_diagnosis(label) is None}
    assert nameless == {"nan", "0", "benign-other", "malignant- other", "6-benign-other", "12-malignant-other"}
    assert {canonical_diagnosis(label) for label in ("nv", "NEV", "melanocytic-nevi", "benign-melanocytic nevus")} == {
        "melanocytic nevus"
    }
    assert {canonical_diagnosis(label) for label in ("Nevus, NOS", "Melanoma, NOS")} == {
        "melanocytic nevus",
        "melanoma",
    }


def test_a_name_agrees_with_what_stands_above_it() -> None:
    assert SKIN.lineage("nodular melanoma") == ("nodular melanoma", "melanoma")
    assert SKIN.agree("melanoma", "nodular melanoma") and SKIN.agree("nodular melanoma", "melanoma")
    assert not SKIN.agree("nodular melanoma", "melanoma in situ") and not SKIN.agree("melanoma", "melanocytic nevus")
    for name in SKIN.diagnoses:
        assert len(set(SKIN.lineage(name))) == len(SKIN.lineage(name))


@pytest.mark.parametrize(
    ("cell", "types"),
    [("3", (3,)), ("3.0", (3,)), ("3, 4", (3, 4)), ("12", (1, 2)), ("34.0", (3, 4)), ("56", (5, 6)), ("-1", ()),
     ("", ()), ("nan", ()), ("IV", (4,)), ("ii fair skin, blue eyes", (2,)), ("7", ()), ("0", ()), ("unknown", ())],
)  # fmt: skip
def test_skin_types(cell: str, types: tuple[int, ...]) -> None:
    assert skin_types_of(cell) == types


def test_fields_are_labelled_and_unknown_ones_left_out() -> None:
    row = {
        "img_id": "x",
        "smoke": "True",
        "age": "55.0",
        "region": "UNK",
        "has_piped_water": "",
        "skin_history": "False",
    }
    assert labelled(row, ("img_id",), {"smoke": "Smokes"}) == {"Smokes": "Yes", "Age": "55", "Skin history": "No"}
