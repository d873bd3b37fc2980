"""Sentences of chest reports, each read by hand: which findings they state, deny or leave open."""

from __future__ import annotations

import pytest

from clip_xai.data.lexicon import canonical_diagnosis, read_attribute, read_diagnosis, read_findings, read_malignancy
from clip_xai.data.vocabulary import load_vocabulary

CHEST = load_vocabulary("chest")
# As the table of ChestX-ray14 writes its labels.
LABELS = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
)


def test_the_findings_are_the_fourteen_of_the_data_set() -> None:
    assert [canonical_diagnosis(label, CHEST) for label in LABELS] == list(CHEST.diagnoses)
    assert canonical_diagnosis("Infiltrate", CHEST) == "infiltration"  # as its table of boxes has it
    assert canonical_diagnosis("No Finding", CHEST) is None and canonical_diagnosis("melanoma", CHEST) is None


@pytest.mark.parametrize(
    ("sentence", "present", "possible", "absent"),
    [
        ("No pneumothorax.", "", "", "pneumothorax"),
        ("There is no pneumothorax or pleural effusion.", "", "", "effusion pneumothorax"),
        ("No consolidation, effusion, or pneumothorax is seen.", "", "", "effusion pneumothorax consolidation"),
        ("Small right apical pneumothorax.", "pneumothorax", "", ""),
        ("Pneumothorax is not seen.", "", "", "pneumothorax"),
        ("The right pneumothorax has resolved.", "", "", "pneumothorax"),
        ("Interval resolution of the left effusion.", "", "", "effusion"),
        ("No change in the left pleural effusion.", "effusion", "", ""),
        ("Lungs are clear of infiltrates.", "", "", "infiltration"),
        ("The heart is enlarged. No edema.", "cardiomegaly", "", "edema"),
        ("The heart is not enlarged.", "", "", ""),
        ("Bibasilar atelectasis; pneumonia cannot be excluded.", "atelectasis", "pneumonia", ""),
        ("Cannot exclude a small pneumothorax.", "", "pneumothorax", ""),
        ("Findings may reflect edema or pneumonia.", "", "pneumonia edema", ""),
        ("Possible nodule in the left upper lobe.", "", "nodule", ""),
        ("Multiple pulmonary nodules and masses.", "mass nodule", "", ""),
        ("Mass-like consolidation.", "consolidation", "", ""),
        ("Pericardial effusion and subcutaneous emphysema.", "", "", ""),
        ("History of pneumonia. Emphysematous changes.", "emphysema", "", ""),
        ("Biapical pleural thickening without effusion.", "pleural thickening", "", "effusion"),
        ("Large hiatus hernia, unchanged.", "hernia", "", ""),
        ("Pulmonary oedema with fibrotic changes.", "edema fibrosis", "", ""),
        ("Possible pneumonia. Follow-up: pneumonia in the right lower lobe.", "pneumonia", "", ""),
        ("Normal chest.", "", "", ""),
    ],
)  # fmt: skip
def test_what_a_sentence_says(sentence: str, present: str, possible: str, absent: str) -> None:
    listed = {"present": present, "possible": possible, "absent": absent}
    expected = {}
    for said, names in listed.items():
        left = names.replace("pleural thickening", "pleural_thickening").split()
        expected |= {name.replace("_", " "): said for name in left}
    assert read_findings(sentence, CHEST) == expected


def test_no_pneumothorax_is_not_a_pneumothorax() -> None:
    assert read_diagnosis("no pneumothorax", CHEST) is None
    assert read_diagnosis("a chest X-ray showing a small pneumothorax", CHEST) == "pneumothorax"
    assert read_diagnosis("a pneumothorax", load_vocabulary("skin")) is None
    assert read_malignancy("a nodule", CHEST) is None and not CHEST.malignancies


@pytest.mark.parametrize(
    ("text", "attribute", "value"),
    [
        ("small left-sided pleural effusion", "side", "left"),
        ("bilateral infiltrates", "side", "bilateral"),
        ("opacity in both lungs", "side", "bilateral"),
        ("nodule in the right upper lobe", "zone", "upper"),
        ("trace effusion", "size", "small"),
        ("a massive effusion", "size", "large"),
        ("mildly enlarged heart", "severity", "mild"),
        ("frontal radiograph", "view", "frontal"),
        ("not on the left", "side", None),
    ],
)
def test_attributes(text: str, attribute: str, value: str | None) -> None:
    assert read_attribute(text, attribute, CHEST) == value


def test_every_phrase_reads_as_itself() -> None:
    for name, entry in CHEST.diagnoses.items():
        for phrase in (name, *entry.synonyms):
            assert read_diagnosis(f"There is {phrase} here", CHEST) == name, phrase
