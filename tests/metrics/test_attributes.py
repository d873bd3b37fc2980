"""Diagnoses and attributes are read from words; every expected value here was read by eye."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.metrics.attributes import (
    balanced_accuracy,
    balanced_statistics,
    diagnosis_family,
    read_attributes,
    read_diagnoses,
    true_attribute,
    true_diagnosis,
)

SKIN = load_vocabulary("skin")

CAPTIONS = [
    "a black lesion, most likely melanoma in situ",
    "a dark brown mole in the upper left",
    "a red lesion with scale",
    "this is psoriasis",
    "basal cell carcinoma in the centre",
]
TRUTHS = ["melanoma", "melanocytic nevus", "psoriasis", "eczema", None]


def test_exact_family_and_malignancy() -> None:
    exact = read_diagnoses(CAPTIONS, TRUTHS)
    assert exact.rows.tolist() == [0, 1, 2, 3]  # the last record has no diagnosis and does not count
    assert exact.said == ("melanoma in situ", "melanocytic nevus", None, "psoriasis")
    assert exact.right.tolist() == [0, 1, 0, 0]
    assert exact.answered.tolist() == [1, 1, 0, 1]
    assert exact.undecided == 1
    assert read_diagnoses(CAPTIONS, TRUTHS, "family").right.tolist() == [1, 1, 0, 0]
    assert read_diagnoses(CAPTIONS, TRUTHS, "malignancy").right.tolist() == [1, 1, 0, 1]
    with pytest.raises(ValueError, match="exact, family, malignancy"):
        read_diagnoses(CAPTIONS, TRUTHS, "parent")


def test_hedging_does_not_pay() -> None:
    """Naming every disease is no answer: it stays in the denominator and is not right."""
    hedged = ["melanoma or nevus", "psoriasis, eczema or scabies", "melanoma or basal cell carcinoma", "a lesion"]
    truths = ["melanoma", "psoriasis", "melanoma", "melanoma"]
    exact = read_diagnoses(hedged, truths)
    assert (exact.right.tolist(), exact.answered.tolist(), exact.undecided) == ([0, 0, 0, 0], [0, 0, 0, 0], 0)
    # Two carcinomas are one answer to whether it is malignant, two nevi to the family.
    malignancy = read_diagnoses(hedged, truths, "malignancy")
    assert (malignancy.right.tolist(), malignancy.answered.tolist()) == ([0, 1, 1, 0], [0, 1, 1, 0])
    family = read_diagnoses(["blue nevus or dysplastic nevus"], ["spitz nevus"], "family")
    assert family.right.tolist() == [1]


def test_a_denied_or_concluded_diagnosis_is_no_longer_the_first_name() -> None:
    captions = [
        "a scar-like plaque, most likely melanoma",
        "no sign of melanoma; benign nevus",
        "there is no melanoma",
        "a benign lesion, not malignant",
    ]
    exact = read_diagnoses(captions, ["melanoma", "melanocytic nevus", "melanoma", "melanocytic nevus"])
    assert exact.right.tolist() == [1, 1, 0, 0] and exact.answered.tolist() == [1, 1, 0, 0]
    assert true_diagnosis(None, captions[:1]) == "melanoma" and true_diagnosis(None, captions[2:3]) is None
    malignancy = read_diagnoses(captions[3:], ["melanocytic nevus"], "malignancy")
    assert malignancy.right.tolist() == [1]


def test_references_that_contradict_each_other_tell_no_truth() -> None:
    reading = read_attributes(["a red spot"] * 2, [("a red spot", "a pink spot"), ("a red spot",)], "colour")
    assert (reading.rows.tolist(), reading.undecided) == ([1], 1)


def test_every_family_is_a_root() -> None:
    assert {SKIN.diagnoses[diagnosis_family(name)].parent for name in SKIN.diagnoses} == {""}
    assert diagnosis_family("irritated seborrheic keratosis") == "benign keratosis"


def test_the_record_speaks_before_the_references() -> None:
    assert true_diagnosis("Melanoma", ("psoriasis",)) == "melanoma"
    assert true_diagnosis(None, ("a lesion", "psoriasis", "this is psoriasis")) == "psoriasis"
    assert true_diagnosis(None, ("psoriasis", "eczema")) is None  # its references contradict each other
    assert true_diagnosis("unheard of", ("a lesion",)) is None


def test_a_reference_below_the_record_s_diagnosis_knows_better_and_one_above_does_not() -> None:
    assert true_diagnosis("melanoma", ("a melanoma in situ",)) == "melanoma in situ"
    assert true_diagnosis("melanoma in situ", ("a melanoma",)) == "melanoma in situ"


def test_attributes_count_where_a_reference_states_them() -> None:
    references = [
        ("a black lesion",),
        ("a lesion", "a brown lesion that is dark brown"),
        ("a pink lesion",),
        ("a mole",),
        ("x",),
    ]
    colours = read_attributes(CAPTIONS, references, "colour")
    assert colours.rows.tolist() == [0, 1, 2]
    assert colours.truth == ("black", "dark brown", "pink")
    assert colours.right.tolist() == [1, 1, 0]
    assert colours.answered.tolist() == [1, 1, 1]
    assert true_attribute(("a lesion in the bottom right",), "position") == "lower right"
    silent = read_attributes(["a lesion"], [("a lesion in the upper left",)], "position")
    assert (silent.right.tolist(), silent.answered.tolist()) == ([0], [0])
    with pytest.raises(ValueError, match="colour"):
        read_attributes(CAPTIONS, references, "smell")


@pytest.mark.parametrize("attribute", sorted(SKIN.attributes))
def test_every_phrase_of_every_value_is_read_back(attribute: str) -> None:
    for value, phrases in SKIN.attributes[attribute].items():
        captions = [f"the picture, {phrase}, is here" for phrase in phrases]
        reading = read_attributes(captions, [(captions[0],)] * len(captions), attribute)
        assert set(reading.truth) == {value}
        assert reading.right.all()


def test_balanced_accuracy_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    names = ["melanoma", "psoriasis", "eczema"]
    truths = [names[index] for index in generator.choice(3, size=60, p=[0.8, 0.15, 0.05])]
    said = [names[index] for index in generator.choice(3, size=60)]
    reading = read_diagnoses([f"this is {name}" for name in said], truths)
    sums = balanced_statistics(reading).sum(axis=0)
    assert float(balanced_accuracy(sums)) == pytest.approx(balanced_accuracy_score(truths, said))


def test_a_class_without_rows_takes_no_part() -> None:
    assert balanced_accuracy(np.array([[3.0, 0.0, 4.0, 0.0], [1.0, 1.0, 1.0, 2.0]])) == pytest.approx([0.75, 0.75])


def test_what_nobody_knows_is_left_out_and_counted() -> None:
    reading = read_attributes(["a red lesion"], [("a lesion",)], "colour")
    assert len(reading.truth) == len(reading.right) == 0 and reading.undecided == 1


def test_counts_must_match() -> None:
    with pytest.raises(ValueError, match="1 captions stand against 2"):
        read_diagnoses(["a"], ["melanoma", None])
