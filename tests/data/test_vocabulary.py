"""The reading rule, the ontology and the publishers' labels."""

from __future__ import annotations

import pytest

from clip_xai.data.vocabulary import (
    ATTRIBUTES,
    DIAGNOSES,
    LABEL_CODES,
    POSITIONS,
    STRUCTURES,
    canonical_diagnosis,
    read_attribute,
    read_diagnosis,
    read_structures,
)


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
    for name, entry in DIAGNOSES.items():
        assert entry.malignancy in ("benign", "malignant", "inflammatory")
        assert entry.parent == "" or entry.parent in DIAGNOSES
        assert read_diagnosis(name) == name
        assert {read_diagnosis(phrase) for phrase in entry.synonyms} <= {name}
    assert set(LABEL_CODES.values()) <= set(DIAGNOSES)
    assert DIAGNOSES["seborrheic keratosis"].parent == DIAGNOSES["solar lentigo"].parent == "benign keratosis"
    for attribute, values in ATTRIBUTES.items():
        for value, phrases in values.items():
            assert {read_attribute(phrase, attribute) for phrase in phrases} == {value}
    for name, phrases in STRUCTURES.items():
        assert {read_structures(phrase) for phrase in phrases} == {(name,)}
    assert tuple(ATTRIBUTES["position"]) == POSITIONS
