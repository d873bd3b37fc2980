"""The reading rule, the ontology and the publishers' labels."""

from __future__ import annotations

import pytest

from clip_xai.data.lexicon import (
    canonical_diagnosis,
    diagnosis_span,
    mentions_diagnosis,
    read_attribute,
    read_diagnosis,
    read_malignancy,
    read_structures,
)
from clip_xai.data.synthetic.composition import POSITIONS
from clip_xai.data.vocabulary import load_vocabulary

SKIN = load_vocabulary("skin")


@pytest.mark.parametrize(
    ("text", "diagnosis"),
    [
        ("Squamous cell carcinoma in situ of the ear", "squamous cell carcinoma in situ"),
        ("squamous-cell-carcinoma", "squamous cell carcinoma"),
        ("several melanocytic nevi", "melanocytic nevus"),
        ("seborrheic keratoses", "seborrheic keratosis"),
        ("Bowen's disease", "squamous cell carcinoma in situ"),
        ("no melanomatous change", None),
        ("a picture of skin", None),
    ],
)
def test_longest_whole_word_phrase_is_read(text: str, diagnosis: str | None) -> None:
    assert read_diagnosis(text) == diagnosis


@pytest.mark.parametrize(
    ("text", "diagnosis"),
    [
        ("a scar-like red plaque, most likely melanoma", "melanoma"),
        ("no sign of melanoma; benign nevus", "melanocytic nevus"),
        ("Diagnosis: melanoma.", "melanoma"),
        ("The most likely diagnosis of this black lesion in the centre of the picture is melanoma", "melanoma"),
        ("melanoma is the most likely diagnosis of this black lesion", "melanoma"),
        ("eczema is most likely, psoriasis possible", "eczema"),
        ("melanoma or nevus", None),
        ("melanoma vs nevus", None),
        ("consistent with psoriasis or eczema", None),
        ("consistent with psoriasis, eczema less likely", "psoriasis"),
        ("melanoma cannot be excluded; benign nevus", "melanocytic nevus"),
        ("a nevus; melanoma should be excluded", "melanocytic nevus"),
        ("melanoma has to be ruled out, psoriasis", "psoriasis"),
        ("nothing suspicious for melanoma", None),
        ("not a melanoma but a nevus", "melanocytic nevus"),
        ("not only melanoma", "melanoma"),
        ("rule out melanoma", None),
        ("isn't psoriasis", None),
        ("unlikely to be melanoma", None),
        ("melanoma was ruled out. This is a dermatofibroma", "dermatofibroma"),
        ("without evidence of basal cell carcinoma, melanoma or psoriasis", None),
        ("without scale, consistent with psoriasis", "psoriasis"),
        ("a plaque without scale consistent with psoriasis", "psoriasis"),
        ("not consistent with psoriasis", None),
        ("no clinical or dermoscopic evidence to support a diagnosis of melanoma", None),
        ("no melanoma, nevus seen", "melanocytic nevus"),
        ("nevus rather than melanoma", "melanocytic nevus"),
        ("melanoma, not nevus", "melanoma"),
        ("melanoma arising in a nevus", "melanoma"),
        ("history of melanoma. Psoriasis on the elbow", "psoriasis"),
        ("mimicking melanoma, this seborrheic keratosis", "seborrheic keratosis"),
        ("non-melanoma skin cancer", None),
        ("post-acne scar", "scar"),
        ("acne-like papules in rosacea", "rosacea"),
        ("post acne or psoriasis", "psoriasis"),
        ("a non-melanoma or nevus", "melanocytic nevus"),
        ("history of melanoma or nevus", None),
        ("no scale, possibly melanoma", "melanoma"),
        ("no scale possibly melanoma", "melanoma"),
        ("psoriasiform plaque on scarred skin", None),
        ("differential diagnosis includes nevus; final diagnosis melanoma", "melanoma"),
        ("differential diagnosis: melanoma, nevus or scar", None),
        ("nevus, possibly melanoma", "melanocytic nevus"),
        ("possibly melanoma", "melanoma"),
        ("a mole, dysplastic nevus", "dysplastic nevus"),
        ("no diagnosis. Melanoma", "melanoma"),
        ("Bowen’s disease", "squamous cell carcinoma in situ"),
        ("Behçet's disease", "behcet disease"),
    ],
)
def test_conclusions_denials_and_whole_words_decide(text: str, diagnosis: str | None) -> None:
    assert read_diagnosis(text) == diagnosis
    assert diagnosis is not None or diagnosis_span(text) is None


def test_the_span_is_the_phrase_that_was_matched() -> None:
    """All phrases of the lexicon, behind rivals that must not win and inside of sentences."""
    phrases = [(phrase, entry.name) for entry in SKIN.diagnoses.values() for phrase in (entry.name, *entry.synonyms)]
    assert len(phrases) >= 273
    for phrase, name in phrases:
        for text in (
            f"Scar-like; consistent with {phrase}.",
            f"{phrase} on the arm",
            f"not acne: most likely {phrase}",
        ):
            span = diagnosis_span(text)
            assert span is not None and text[slice(*span)] == phrase and read_diagnosis(text) == name


@pytest.mark.parametrize(
    ("text", "attribute", "value"),
    [
        ("scarred skin", "colour", None),
        ("surrounding skin", "shape", None),
        ("not red but black", "colour", "black"),
        ("no red spot; pink", "colour", "pink"),
        ("a red or black lesion", "colour", None),
        ("oval-like", "shape", None),
        ("light brown skin", "colour", None),
        ("light brown skin", "skin tone", "brown"),
    ],
)
def test_attributes_are_denied_and_offered_as_diagnoses_are(text: str, attribute: str, value: str | None) -> None:
    assert read_attribute(text, attribute) == value


def test_malignancy_and_structures_are_denied_likewise() -> None:
    assert read_malignancy("a benign lesion") == "benign" and read_malignancy("not malignant, benign") == "benign"
    assert read_malignancy("melanoma or basal cell carcinoma") == "malignant"
    assert read_malignancy("melanoma or nevus") is None and read_malignancy("no malignant change") is None
    assert read_structures("no ulceration, crust") == ("crust",)
    assert mentions_diagnosis("no sign of melanoma") and not mentions_diagnosis("scarred")


@pytest.mark.parametrize(
    ("text", "attribute", "value"),
    [
        ("a blue-white veil over a dark brown lesion", "colour", "dark brown"),
        ("a central white patch on dark skin", "colour", None),
        ("brown skin with a red halo", "colour", None),
        ("brown skin with a red halo", "skin tone", "brown"),
        ("dark skin", "skin tone", "dark"),
        ("in the upper centre of the image", "position", "upper centre"),
        ("top left", "position", "upper left"),
        ("the centre", "position", "centre"),
        ("a medium lesion on medium skin", "size", "medium"),
        ("on medium skin", "size", None),
        ("reddened", "colour", None),
        ("sharply demarcated", "border", "well-defined"),
    ],
)
def test_words_taken_by_a_longer_phrase_are_not_read_again(text: str, attribute: str, value: str | None) -> None:
    assert read_attribute(text, attribute) == value


def test_structures_are_read_in_the_vocabularys_order() -> None:
    assert read_structures("showing crust, globules and a pigment network") == ("pigment network", "globules", "crust")


def test_an_unknown_attribute_is_refused() -> None:
    with pytest.raises(KeyError, match="choose one of"):
        read_attribute("red", "weight")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("melanocytic-nevi", "melanocytic nevus"),
        ("NEV", "melanocytic nevus"),
        ("nv", "melanocytic nevus"),
        ("bkl", "benign keratosis"),
        ("vasc", "vascular lesion"),
        ("ACK", "actinic keratosis"),
        ("malignant- ak", "actinic keratosis"),
        ("malignant- sccis", "squamous cell carcinoma in situ"),
        ("benign-melanocytic nevus", "melanocytic nevus"),
        ("benign-fibrous papule", "fibrous papule"),
        ("7-malignant-bcc", "basal cell carcinoma"),
        ("other- melanocytic lesion, possible re-excision (severe, spitz, aimp)", "atypical melanocytic lesion"),
        ("other- non-neoplastic, inflammatory, infectious", "inflammatory skin disease"),
        ("nodular-melanoma-(nm)", "nodular melanoma"),
        ("benign-keratosis", "benign keratosis"),
        ("verruca-vulgaris", "verruca vulgaris"),
        ("wart", "verruca vulgaris"),
        ("benign-other", None),
        ("", None),
    ],
)
def test_publishers_labels(label: str, name: str | None) -> None:
    assert canonical_diagnosis(label) == name


def test_frequent_ddi_diseases_are_known() -> None:
    frequent = [
        "melanocytic-nevi", "seborrheic-keratosis", "verruca-vulgaris", "basal-cell-carcinoma", "epidermal-cyst",
        "mycosis-fungoides", "squamous-cell-carcinoma-in-situ", "dermatofibroma", "acrochordon",
        "squamous-cell-carcinoma", "dysplastic-nevus", "seborrheic-keratosis-irritated", "pyogenic-granuloma",
        "neurofibroma", "angioma", "eccrine-poroma", "melanoma", "melanoma-in-situ",
        "squamous-cell-carcinoma-keratoacanthoma", "melanoma-acral-lentiginous", "lipoma", "blue-nevus",
        "molluscum-contagiosum", "basal-cell-carcinoma-nodular", "nevus-lipomatosus-superficialis", "kaposi-sarcoma",
        "inverted-follicular-keratosis", "prurigo-nodularis", "metastatic-carcinoma", "eczema-spongiotic-dermatitis",
    ]  # fmt: skip
    assert [name for name in frequent if canonical_diagnosis(name) is None] == []


def test_the_ontology_is_closed_and_every_phrase_reads_as_itself() -> None:
    for name, entry in SKIN.diagnoses.items():
        assert entry.malignancy in ("benign", "malignant", "inflammatory")
        assert entry.parent == "" or entry.parent in SKIN.diagnoses
        assert read_diagnosis(name) == name
        assert {read_diagnosis(phrase) for phrase in entry.synonyms} <= {name}
    assert set(SKIN.label_codes.values()) <= set(SKIN.diagnoses)
    assert SKIN.diagnoses["seborrheic keratosis"].parent == SKIN.diagnoses["solar lentigo"].parent == "benign keratosis"
    for attribute, values in SKIN.attributes.items():
        for value, phrases in values.items():
            assert {read_attribute(phrase, attribute) for phrase in phrases} == {value}
    for name, phrases in SKIN.structures.items():
        assert {read_structures(phrase) for phrase in phrases} == {(name,)}
    assert tuple(SKIN.attributes["position"]) == POSITIONS
