"""The words of a field stand in a file, which travels with the package, and a person can bring her own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from clip_xai.data.lexicon import read_diagnosis
from clip_xai.data.vocabulary import FOLDER, load_vocabulary, unpacked
from clip_xai.errors import UserError


@pytest.mark.parametrize("name", ["skin", "chest"])
def test_templates_come_from_the_file(name: str) -> None:
    said, found = yaml.safe_load((FOLDER / f"{name}.yaml").read_text()), load_vocabulary(name)
    assert list(found.templates) == said["templates"] and found.comparison == said["comparison"]
    assert all(text.count("{}") == 1 for text in (*found.templates, found.comparison))
    assert list(found.diagnoses) == list(said["diagnoses"]) and list(found.attributes) == list(said["attributes"])


def test_another_name_is_refused() -> None:
    with pytest.raises(UserError, match="choose one of chest, skin"):
        load_vocabulary("zebra")
    with pytest.raises(UserError, match=r"data.vocabulary=skim: .* did you mean skin\?"):
        load_vocabulary("skim")


OWN = """\
templates: ["an OCT scan of {}."]
diagnoses:
  drusen: {synonyms: [druse]}
  macular edema:
  cystoid macular edema: {parent: macular edema}
statements: {denials: [free of any]}
"""


def own(folder: Path, content: str = OWN, name: str = "eye.yaml") -> str:
    (folder / name).write_text(content, encoding="utf-8")
    return str(folder / name)


def test_a_persons_own_file_says_the_rest_by_itself(tmp_path: Path) -> None:
    eye = load_vocabulary(own(tmp_path))
    assert (eye.name, eye.comparison, eye.probe) == ("eye", "an OCT scan of {}.", "an OCT scan of drusen.")
    assert eye.classes == ("drusen", "macular edema", "cystoid macular edema") and eye.truth == "finding"
    assert read_diagnosis("druse, free of any macular edema", eye) == "drusen"
    assert eye.lineage("cystoid macular edema") == ("cystoid macular edema", "macular edema")
    assert read_diagnosis("melanoma", eye) is None
    kept = unpacked(eye.packed())  # on a machine without the file
    assert kept is not None and (kept.diagnoses, kept.templates) == (eye.diagnoses, eye.templates)
    assert kept.digest == eye.digest != load_vocabulary(own(tmp_path, OWN.replace("druse]", "spot]"))).digest


def test_names_alone_are_a_vocabulary(tmp_path: Path) -> None:
    few = load_vocabulary(own(tmp_path, 'templates: ["{}"]\ndiagnoses: [drusen, edema]\n'))
    assert tuple(few.diagnoses) == ("drusen", "edema")
    assert few.groups == ("patient", "patients")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("templates: [a]\ndiagnoses: [b]", r"templates: 'a' must hold \{\} once"),
        ("templates: ['{}']", "does not have diagnoses: add them"),
        ("templates: ['{}']\ndiagnosis: [b]", "there is no 'diagnosis' in a vocabulary; did you mean diagnoses"),
        ("templates: ['{}']\ndiagnoses: {b: {parent: c}}", "diagnoses.b.parent: 'c' is not among them"),
        ("templates: ['{}']\ndiagnoses: {b: {parent: c}, c: {parent: b}}", "its own ancestor: b < c < b"),
        ("templates: ['{}']\ndiagnoses: {b: {malignancy: bad}}", "malignancy is 'bad': choose one of benign"),
        ("templates: ['{}']\ndiagnoses: [B]", "names are lower case"),
        ("templates: ['{}']\ndiagnoses: [b]\nstatements: {denials: [no]}", "False is not a text: put it in quotes"),
        ("templates: ['{}']\ndiagnoses: [b]\nlabel_codes: {x: y}", "'x' stands for 'y', which is not among"),
        ("templates: ['{}']\ndiagnoses: [b]\ntruth_form: point", "choose one of mask, box"),
        ("templates: ['{}']\ndiagnoses: [b]\ngroups: [eye]", "give singular and plural, such as"),
        ("templates: ['{}'\ndiagnoses", "is not YAML"),
        ("- a", "does not hold a vocabulary"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_vocabulary(own(tmp_path, content))
    assert "\n" not in str(caught.value) and "eye.yaml" in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml cannot be read: No such file"):
        load_vocabulary(str(tmp_path / "none.yaml"))
