"""One data set in every form that it is handed out gives the same photographs; altered copies are told in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clip_xai.data.captions import CaptionFacts
from clip_xai.data.record import SourceTable
from clip_xai.data.sources import SOURCES
from clip_xai.data.sources.captions_csv import read_all
from clip_xai.data.sources.common import SourceReader, stated_fields
from clip_xai.data.sources.photograph_files import PhotographIndex, find_table
from clip_xai.data.sources.tables import read_table
from clip_xai.errors import UserError
from tests.data.publishers import (
    DDI_COLUMNS,
    HAM_COLUMNS,
    MIDAS_COLUMNS,
    PAD_COLUMNS,
    SKINCAP_COLUMNS,
    ham,
    photograph,
    spreadsheet,
    table,
)

CLASSES = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
TRAIN, VALIDATION, TEST = ("ISIC_0024306", "ISIC_0024307"), "ISIC_0034321", "ISIC_0034524"
ARCHIVE = [
    "isic_id", "attribution", "copyright_license", "age_approx", "anatom_site_general", "benign_malignant",
    "diagnosis_1", "diagnosis_2", "diagnosis_3", "diagnosis_confirm_type", "image_type", "lesion_id", "sex",
]  # fmt: skip


def read(name: str, root: Path) -> SourceTable:
    found = SOURCES[name].read(root)
    assert found is not None
    return found


def one_hot(path: Path, **labels: str) -> None:
    rows = [{"image": image, **dict.fromkeys(CLASSES, "0.0"), label: "1.0"} for image, label in labels.items()]
    table(path, ["image", *CLASSES], *rows)


def archive(root: Path) -> None:
    common = {"attribution": "x", "copyright_license": "CC-BY-NC", "image_type": "dermoscopic", "sex": "male"}
    table(
        root / "metadata.csv",
        ARCHIVE,
        {**common, "isic_id": TRAIN[0], "diagnosis_1": "Malignant", "diagnosis_3": "Melanoma, NOS", "lesion_id": "IL_1",
         "diagnosis_confirm_type": "histopathology", "anatom_site_general": "head/neck", "age_approx": "85"},
        {**common, "isic_id": TRAIN[1], "diagnosis_1": "Benign", "diagnosis_3": "Nevus", "lesion_id": "IL_1"},
        {**common, "isic_id": VALIDATION, "diagnosis_1": "Benign", "diagnosis_3": "Pigmented benign keratosis"},
        {**common, "isic_id": TEST, "diagnosis_1": "Benign", "diagnosis_3": "Dermatofibroma", "age_approx": "0"},
    )  # fmt: skip
    for image in (*TRAIN, VALIDATION, TEST):
        photograph(root / f"{image}.JPG")
    (root / "attribution.txt").write_text("x")


def challenge(root: Path) -> None:
    parts = {
        "Training": dict(zip(TRAIN, ("MEL", "NV"), strict=True)),
        "Validation": {VALIDATION: "BKL"},
        "Test": {TEST: "DF"},
    }
    for part, labels in parts.items():
        one_hot(root / f"ISIC2018_Task3_{part}_GroundTruth" / f"ISIC2018_Task3_{part}_GroundTruth.csv", **labels)
        for image in labels:
            photograph(root / f"ISIC2018_Task3_{part}_Input" / f"{image}.jpg")
        (root / f"ISIC2018_Task3_{part}_Input" / "ATTRIBUTION.txt").write_text("x")
    table(
        root / "ISIC2018_Task3_Training_LesionGroupings.csv",
        ["image", "lesion_id", "diagnosis_confirm_type"],
        *({"image": image, "lesion_id": "HAM_0000001", "diagnosis_confirm_type": "histopathology"} for image in TRAIN),
    )


def dataverse(root: Path, folder: str = "HAM10000_images_part_1", tab: bool = False) -> None:
    rows = [
        {"lesion_id": "HAM_0000001", "image_id": image, "dx": dx, "dx_type": "histo", "age": "45.0", "sex": "male",
         "localization": "back", "dataset": "rosendahl"}
        for image, dx in zip(TRAIN, ("mel", "nv"), strict=True)
    ]  # fmt: skip
    path = table(root / "HAM10000_metadata.csv", HAM_COLUMNS, *rows)
    if tab:
        (root / "HAM10000_metadata.tab").write_text(path.read_text().replace(",", "\t"))
        path.unlink()
    for place, image in enumerate(TRAIN):
        photograph(root / (folder if place else folder.replace("1", "2")) / f"{image}.jpg")
    table(
        root / "ISIC2018_Task3_Test_GroundTruth.csv",
        HAM_COLUMNS,
        {"lesion_id": "HAMTEST_0000000", "image_id": TEST, "dx": "df", "dx_type": "consensus"},
    )
    photograph(root / "ISIC2018_Task3_Test_Images" / f"{TEST}.jpg")
    one_hot(root / "ISIC2018_Task3_Validation_GroundTruth.csv", **{VALIDATION: "BKL"})
    photograph(root / "ISIC2018_Task3_Validation_Input" / f"{VALIDATION}.jpg")


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "archive": archive,
    "challenge": challenge,
    "dataverse": dataverse,
    "dataverse as tab": lambda root: dataverse(root, tab=True),
    "mirror": lambda root: dataverse(root, folder="ham10000_images_part_1/ham10000_images_part_1"),
    "both": lambda root: (challenge(root / "challenge"), dataverse(root / "dataverse"))[0],
    "everything": lambda root: (archive(root / "a"), challenge(root / "b"), dataverse(root / "c"))[0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("below", ["", "downloads"])
def test_ham_is_the_same_in_every_layout(tmp_path: Path, layout: str, below: str) -> None:
    LAYOUTS[layout](tmp_path / below)
    if layout == "both":
        (tmp_path / below / "challenge" / "ISIC2018_Task3_Validation_GroundTruth" /
         "ISIC2018_Task3_Validation_GroundTruth.csv").unlink()  # fmt: skip
    photograph(tmp_path / "other" / "000001.png")
    found = read("ham10000", tmp_path)
    assert found.problems == [] and (found.rows, found.expected) == (4, 11720)
    rows = {record.image.stem.upper(): record for record in found.records}
    assert {image: (row.diagnosis, row.official_split) for image, row in rows.items()} == {
        TRAIN[0]: ("melanoma", "train"),
        TRAIN[1]: ("melanocytic nevus", "train"),
        VALIDATION: ("benign keratosis", "val"),
        TEST: ("dermatofibroma", "test"),
    }
    # One lesion in two photographs, whatever the layout calls it.
    assert rows[TRAIN[0]].keys == rows[TRAIN[1]].keys != rows[TEST].keys
    assert "histopathology" in rows[TRAIN[0]].caption
    assert all(" nan" not in row.caption.lower() and "unknown" not in row.caption for row in rows.values())


def test_the_archive_alone_knows_the_validation_sets_fields(tmp_path: Path) -> None:
    archive(tmp_path / "archive")
    dataverse(tmp_path / "dataverse")
    rows = {record.image.stem.upper(): record for record in read("ham10000", tmp_path).records}
    assert rows[VALIDATION].fields["sex"] == "male" and "the back" in rows[TRAIN[0]].caption.lower()
    assert "age_approx" not in rows[TEST].fields


def test_another_collection_of_the_archive_is_no_ham(tmp_path: Path) -> None:
    table(tmp_path / "metadata.csv", ARCHIVE, {"isic_id": "ISIC_0000001", "diagnosis_3": "Nevus"})
    assert SOURCES["ham10000"].read(tmp_path) is None
    table(
        tmp_path / "metadata.csv", ARCHIVE,
        {"isic_id": "ISIC_0000001", "diagnosis_3": "Nevus"}, {"isic_id": TRAIN[0], "diagnosis_3": "Nevus"},
    )  # fmt: skip
    photograph(tmp_path / f"{TRAIN[0]}.jpg")
    found = read("ham10000", tmp_path)
    assert len(found.records) == 1 and "another collection" in found.problems[0].reason


def test_tables_that_disagree_leave_the_row_out(tmp_path: Path) -> None:
    dataverse(tmp_path)
    one_hot(tmp_path / "ISIC2018_Task3_Training_GroundTruth.csv", **dict(zip(TRAIN, ("BCC", "NV"), strict=True)))
    found = read("ham10000", tmp_path)
    assert TRAIN[0] not in {record.image.stem for record in found.records} and len(found.records) == 3
    assert found.problems[0].reason == "two tables disagree on its diagnosis: mel and bcc"


def test_altered_copies_of_ham_are_repaired_or_refused_in_words(tmp_path: Path) -> None:
    kinds = ["nv", "Melanoma", "Melanocytic nevi", "healthy", "Melanomaanocytic Nevi (moles)"]
    ham(tmp_path, *({"image_id": f"ISIC_002430{n}.jpg", "dx": dx} for n, dx in enumerate(kinds)), images=False)
    for n in range(5):
        photograph(tmp_path / "images" / f"ISIC_002430{n}.jpg")
    found = read("ham10000", tmp_path)
    assert [record.diagnosis for record in found.records] == ["melanocytic nevus", "melanoma", "melanocytic nevus"]
    assert {problem.file for problem in found.problems} == {"ISIC_0024303", "ISIC_0024304"}
    assert any("5 image ids with an extension, repaired" in note for note in found.notes)
    assert any("2 spelled-out diagnoses, repaired" in note for note in found.notes)
    many = [{"image_id": f"ISIC_{n:07d}", "dx": "nv"} for n in range(10030)]
    ham(tmp_path, *many, images=False)
    assert any("10030 rows, the publisher's 10015" in note for note in read("ham10000", tmp_path).notes)


def test_archives_that_are_still_packed_are_named(tmp_path: Path) -> None:
    table(tmp_path / "metadata.csv", PAD_COLUMNS, {"patient_id": "P", "img_id": "a.png", "diagnostic": "bcc"},
          {"patient_id": "P", "img_id": "b.png", "diagnostic": "Basal cell carcinoma"})  # fmt: skip
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "imgs_part_1.zip").write_bytes(b"PK")
    found = read("pad_ufes_20", tmp_path)
    assert [problem.kind for problem in found.problems] == ["missing", "missing"]
    assert "imgs_part_1.zip is still packed" in " ".join(found.notes) and "spelled-out" in " ".join(found.notes)


@pytest.mark.parametrize("place", ["", "images", "images/images"])
@pytest.mark.parametrize("index", ["", "_unnamed_var"])
def test_ddi_flat_or_in_images(tmp_path: Path, place: str, index: str) -> None:
    columns = [index, "DDI_ID", "DDI_file", "skin_tone", "malignancy(malig=1)", "disease"]
    row = {index: 0, "DDI_ID": 1, "DDI_file": "000001.png", "skin_tone": "34", "disease": "blue-nevus"}
    table(tmp_path / "ddi" / "ddi_metadata.csv", columns, {**row, "malignancy(malig=1)": "0"})
    photograph(tmp_path / "ddi" / place / "000001.png")
    photograph(tmp_path / "ddi" / "__MACOSX" / "._000001.png")
    (record,) = read("ddi", tmp_path).records
    assert (record.diagnosis, record.skin_types, record.skin_tone) == ("blue nevus", (3, 4), "III-IV")
    assert "_unnamed_var" not in record.fields


@pytest.mark.parametrize(
    "columns", [["Photo ID", "Diagnosis (detailed)", "Benign/Malignant"], ["PHOTO_ID ", "diagnosis"]]
)
def test_ddi2_knows_columns_by_their_names_however_written(tmp_path: Path, columns: list[str]) -> None:
    cells = dict(zip(columns, (502948221.0, "melanoma", "malignant"), strict=False))
    spreadsheet(tmp_path / "final_DDI2_Asian_spreadsheet.xlsx", columns, cells)
    photograph(tmp_path / "502948221_CROPPED.jpeg")
    found = read("ddi2", tmp_path)
    assert found.records[0].diagnosis == "melanoma" and columns[0].strip() in found.notes[0]


def test_midas_as_a_csv_and_with_a_sheet_in_front(tmp_path: Path) -> None:
    row = {"midas_record_id": 1, "midas_file_name": "s-prd-100000001.jpg", "midas_path": "malignant- sccis",
           "midas_distance": "n/a - virtual", "midas_location": "r lateral shin"}  # fmt: skip
    photograph(tmp_path / "S-PRD-100000001.JPEG")
    table(tmp_path / "release_midas.csv", MIDAS_COLUMNS, row)
    assert "the right lateral shin" in read("mra_midas", tmp_path).records[0].caption.lower()
    (tmp_path / "release_midas.csv").unlink()
    path = spreadsheet(tmp_path / "release_midas.xlsx", MIDAS_COLUMNS, row)
    import openpyxl

    book = openpyxl.load_workbook(path)
    book.create_sheet("Read me", 0).append(["terms of use"])
    book.save(path)
    (record,) = read("mra_midas", tmp_path).records
    assert record.diagnosis == "squamous cell carcinoma in situ" and record.keys[1] == "stanford-photo:100000001"


def test_skincap_by_either_name_of_its_caption_and_with_the_newer_spreadsheet(tmp_path: Path) -> None:
    folder = tmp_path / "SkinCAP"
    photograph(folder / "skincap" / "1.png")
    row = {"skincap_file_path": "1.png", "ori_file_path": "x/abc.jpg", "source": "fitzpatrick17k", "disease": "acne"}
    columns = [name if name != "caption_zh_polish_en" else "caption_en" for name in SKINCAP_COLUMNS]
    table(folder / "skincap_v240623.csv", columns, {**row, "caption_en": "Red papules."}, encoding="utf-8-sig")
    assert read("skincap", tmp_path).records[0].references == ("Red papules.",)
    table(folder / "skincap_v240623.csv", SKINCAP_COLUMNS, {**row, "caption_zh_polish_en": "Papules."})
    newer = folder / "skincap_v240715.xlsx"
    spreadsheet(newer, ["skincap"], {"skincap": None})
    import openpyxl

    book = openpyxl.load_workbook(newer)
    book.active.append([*row, "caption_en"])
    book.active.append([*row.values(), "Small red papules."])
    book.save(newer)
    assert read("skincap", tmp_path).records[0].references == ("Papules.", "Small red papules.")
    (folder / "skincap_v240623.csv").unlink()
    assert read("skincap", tmp_path).records[0].references == ("Small red papules.",)


def test_any_table_of_captions_is_a_source(tmp_path: Path) -> None:
    folder = tmp_path / "clinic"
    columns = ["image", "caption", "group", "split", "mask", "diagnosis", "camera"]
    for name in ("a/1.jpg", "b/1.jpg", "mask.png"):
        photograph(folder / name)
    photograph(tmp_path / "outside.jpg")
    table(
        folder / "captions.csv",
        columns,
        {"image": "a/1.jpg", "caption": "One.", "group": "p1", "split": "valid", "mask": "mask.png", "camera": "X",
         "diagnosis": "NEV"},
        {"image": "a/1.jpg", "caption": "Another."},
        {"image": "b\\1.jpg", "caption": "Two.", "group": "p1", "mask": "gone.png"},
        {"image": "../outside.jpg", "caption": "Three."},
        {"image": "gone.jpg", "caption": "Four."},
        {"image": "b/1.jpg", "caption": ""},
        {"image": "/etc/passwd", "caption": "Five."},
    )  # fmt: skip
    (found,) = read_all(tmp_path, ("ddi",))
    one, two = found.records
    assert (
        found.source == "clinic" and one.references == ("One.", "Another.") and one.keys == two.keys == ("clinic:p1",)
    )
    assert (one.official_split, one.diagnosis, one.fields) == (
        "val",
        "melanocytic nevus",
        {"camera": "X", "diagnosis": "NEV"},
    )
    assert one.mask == folder / "mask.png" and two.mask is None and one.identifier != two.identifier
    assert sorted(problem.kind for problem in found.problems) == ["mask", "missing", "row", "row", "row"]
    assert found.rows == len(found.records) + sum(problem.kind != "mask" for problem in found.problems)
    with pytest.raises(UserError, match="rename the folder"):
        read_all(tmp_path, ("clinic",))
    table(folder / "captions.csv", ["picture", "caption"])
    with pytest.raises(UserError, match=r"image is missing \(found: picture, caption\)"):
        read_all(tmp_path, ())


def test_the_adapter_of_a_seventh_source_is_a_loop(tmp_path: Path) -> None:
    """The adapter that docs/extending/data_source.md shows."""

    def adapter(root: Path) -> SourceTable | None:
        path = find_table(root, r"mine_metadata\.csv")
        if path is None:
            return None
        table = read_table(path)
        table.require("file", "patient", "label")
        reader = SourceReader("mine", PhotographIndex(path.parent), expected=1000)
        reader.count_rows(table)
        for row in table.rows:
            photograph = reader.photograph(row["file"])
            if photograph is not None:
                diagnosis = reader.diagnose(row["label"])
                facts = CaptionFacts(name=photograph.name, view="clinical photograph", diagnosis=diagnosis)
                keys = (f"mine-patient:{row['patient']}",)
                reader.add(photograph, facts, keys=keys, diagnosis=diagnosis, fields=stated_fields(row))
        return reader.table()

    assert adapter(tmp_path) is None
    photograph(tmp_path / "a" / "Pictures" / "1.JPG")
    rows = [{"file": "1.png", "patient": "7", "label": "NEV"}, {"file": "2.png", "patient": "7", "label": "nonsense"}]
    table(tmp_path / "a" / "mine_metadata.csv", ["file", "patient", "label"], *rows)
    found = adapter(tmp_path)
    assert found is not None and (found.rows, found.expected, len(found.records)) == (2, 1000, 1)
    assert found.records[0].diagnosis == "melanocytic nevus" and found.problems[0].kind == "missing"


def test_a_source_is_one_file_and_one_yaml() -> None:
    for name, source in SOURCES.items():
        assert source.rows and source.place and source.licence and source.terms and source.title, name
    skin = {name: source for name, source in SOURCES.items() if source.subject == "skin"}
    assert list(skin) == ["ham10000", "pad_ufes_20", "mra_midas", "ddi", "ddi2", "skincap"]
    assert list(SOURCES)[len(skin) :] == ["nih_chestxray14", "chexpert", "vindr_cxr", "rsna_pneumonia"]
    assert sum(source.rows or 0 for source in skin.values()) == 22755
    assert DDI_COLUMNS[2] == "DDI_file"
