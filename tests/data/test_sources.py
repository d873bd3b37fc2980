"""Every adapter on invented rows in its publisher's layout, with the publisher's faults."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_xai.data.captions import CaptionFacts, clinical_caption, size_in_mm
from clip_xai.data.record import SourceTable
from clip_xai.data.sources import SOURCES
from clip_xai.errors import UserError
from tests.data.publishers import (
    DDI2_COLUMNS,
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

SAMPLES = Path(os.environ.get("CLIP_XAI_SAMPLES", "samples"))


def read(name: str, root: Path) -> SourceTable:
    found = SOURCES[name].read(root)
    assert found is not None
    return found


def reasons(found: SourceTable) -> dict[str, str]:
    return {problem.file: f"{problem.kind}: {problem.reason}" for problem in found.problems}


def test_ham_reads_lesions_sites_and_masks(tmp_path: Path) -> None:
    folder = tmp_path / "downloads" / "ham10000"
    ham(
        folder,
        {"image_id": "ISIC_0024306", "dx": "mel", "age": "0.0", "sex": "unknown"},
        {"image_id": "ISIC_0024307.jpg", "dx": "bkl", "localization": "unknown", "dx_type": "follow_up"},
        images=False,
    )
    photograph(folder / "ham10000_images_part_1" / "ISIC_0024306.jpg")
    photograph(folder / "HAM10000_images_part_2" / "nested" / "ISIC_0024307.JPG")
    masks = folder / "HAM10000_segmentations_lesion_tschandl"
    photograph(masks / "ISIC_0024306_segmentation.png")
    photograph(masks / "__MACOSX" / "._ISIC_0024307_segmentation.png")
    # The test table's name is shared with the challenge's one-hot table; this one has all columns.
    test = table(
        folder / "ISIC2018_Task3_Test_GroundTruth.csv",
        HAM_COLUMNS,
        {"lesion_id": "HAMTEST_0000000", "image_id": "ISIC_0034524", "dx": "nv", "dx_type": "consensus"},
    )
    photograph(folder / "ISIC2018_Task3_Test_Images" / "ISIC_0034524.jpg")
    one, two, three = read("ham10000", tmp_path).records
    assert (one.diagnosis, one.malignancy, one.official_split) == ("melanoma", "malignant", "train")
    assert one.mask == masks / "ISIC_0024306_segmentation.png" and two.mask is None
    assert "age" not in one.fields and "sex" not in one.fields and two.fields["age"] == "45.0"
    assert "the back" in one.caption.lower()
    assert "histopathology" in one.caption and "dermoscop" in one.caption
    assert two.diagnosis == "benign keratosis" and "unknown" not in two.caption
    assert (three.official_split, three.keys) == ("test", ("ham10000-lesion:HAMTEST_0000000",))
    # The challenge's file of the same name knows the class alone, and is just as well.
    classes = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
    table(test, ["image", *classes], {"image": "ISIC_0034524", **dict.fromkeys(classes, "0.0"), "NV": "1.0"})
    found = read("ham10000", tmp_path)
    assert [record.diagnosis for record in found.records] == ["melanoma", "benign keratosis", "melanocytic nevus"]
    assert found.records[2].official_split == "test" and "no lesion id" in " ".join(found.notes)


def test_ham_refuses_altered_rows_and_points_nowhere_else(tmp_path: Path) -> None:
    secret = photograph(tmp_path / "secret.jpg")
    folder = tmp_path / "data" / "ham10000"
    ham(
        folder,
        {"image_id": "ISIC_0000001"},
        {"image_id": "ISIC_0000001"},
        {"image_id": "ISIC_0000002", "dx": "Melanomaanocytic Nevi (moles)"},
        {"image_id": "../../secret"},
        {"image_id": "ISIC_0000003"},
        images=False,
    )
    photograph(folder / "HAM10000_images_part_1" / "ISIC_0000001.jpg")
    found = read("ham10000", tmp_path / "data")
    assert [record.name for record in found.records] == ["ISIC_0000001.jpg"] and found.rows == 5
    assert len(found.problems) == 4 and secret not in [record.image for record in found.records]
    assert "missing" in reasons(found)["ISIC_0000003.jpg"] and "altered copy" in reasons(found)["ISIC_0000002"]


def test_tables_that_are_not_the_publishers_are_refused_in_words(tmp_path: Path) -> None:
    path = table(tmp_path / "HAM10000_metadata.csv", ["image", "dx"], {"image": "x", "dx": "nv"})
    with pytest.raises(UserError, match=r"lesion_id, image_id.* missing \(found: image, dx\)"):
        SOURCES["ham10000"].read(tmp_path)
    for content in (b"\xff\xfe\x00bad", b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match="download it again"):
            SOURCES["ham10000"].read(tmp_path)
    (tmp_path / "release_midas.xlsx").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"release_midas.xlsx: cannot be read as a table"):
        SOURCES["mra_midas"].read(tmp_path)
    for folder in ("a", "b"):
        table(tmp_path / folder / "ddi_metadata.csv", DDI_COLUMNS)
    with pytest.raises(UserError, match="more than once"):
        SOURCES["ddi"].read(tmp_path)


def test_a_row_with_too_many_cells_is_set_aside(tmp_path: Path) -> None:
    path = ham(tmp_path, {"image_id": "ISIC_0000001"})
    path.write_text(path.read_text() + "HAM_1,ISIC_0000002,nv,histo,45,male,back,x,one too many\n")
    found = read("ham10000", tmp_path)
    assert len(found.records) == 1 and found.rows == 2
    assert reasons(found) == {"HAM10000_metadata.csv line 3": "row: 9 cells under 8 columns"}


@pytest.mark.parametrize("place", ["images", "imgs_part_2", "imgs_part_1/imgs_part_1", ""])
def test_pad_is_found_however_it_was_unpacked(tmp_path: Path, place: str) -> None:
    row = {"patient_id": "PAT_7", "lesion_id": "9", "region": "FOREARM", "diagnostic": "BCC", "img_id": "PAT_7_9_1.png"}
    folder = tmp_path / "zr7vgbcyr2-1"
    table(
        folder / "metadata.csv",
        PAD_COLUMNS,
        {**row, "biopsed": "True", "fitspatrick": "3.0", "diameter_1": "10.0", "diameter_2": "12.0", "smoke": "True",
         "background_father": "POMERANIA", "itch": "UNK", "has_piped_water": "False", "gender": "FEMALE"},
    )  # fmt: skip
    # Another publisher's file of the same name is passed over.
    table(tmp_path / "isic" / "metadata.csv", ["isic_id", "attribution"])
    photograph(folder / place / "PAT_7_9_1.png")
    (record,) = read("pad_ufes_20", tmp_path).records
    assert record.diagnosis == "basal cell carcinoma" and record.keys == ("pad_ufes_20-patient:PAT_7",)
    for stated in ("basal cell carcinoma", "forearm", "12 x 10 mm", "biopsy", "type III"):
        assert stated in record.caption
    for private in ("smok", "pomerania", "water", "female", "unk"):
        assert private not in record.caption.lower()
    assert "itch" not in record.fields


def midas(root: Path, *rows: dict) -> SourceTable:
    filled = [
        {"midas_record_id": 5, "midas_iscontrol": "no", "midas_distance": "6in", "midas_location": "l cheek\u00a0",
         "midas_path": "malignant- bcc", "midas_pathreport": "SECRET REPORT", "midas_gender": "female", "midas_age": 60,
         "midas_fitzpatrick": "ii fair skin, blue eyes", "midas_race": "white", "midas_melanoma": "yes",
         "clinical_impression_1": "11-malignant-melanoma", "length_(mm)": 6.0, "width_(mm)": 5.0, **row}
        for row in rows
    ]  # fmt: skip
    spreadsheet(root / "release_midas.xlsx", MIDAS_COLUMNS, *filled)
    return read("mra_midas", root)


def test_midas_composes_from_what_is_known_and_leaks_nothing(tmp_path: Path) -> None:
    for name in ("s-prd-100000001.jpg", "s-prd-100000002.JPG", "s-prd-100000003_cropped.jpeg", "s-prd-100000004.jpg"):
        photograph(tmp_path / name)
    found = midas(
        tmp_path,
        {"midas_file_name": "s-prd-100000001.jpg"},
        {"midas_file_name": "s-prd-100000002.jpeg", "midas_distance": "dscope", "length_(mm)": 0.0, "width_(mm)": 0.0},
        {"midas_file_name": "s-prd-100000003.jpg", "midas_path": 0, "midas_location": None},
        {"midas_file_name": "s-prd-100000004.jpg", "midas_path": "malignant- other", "midas_fitzpatrick": None},
        {"midas_file_name": "s-prd-100000005.jpg"},
    )
    one, two, three, four = found.records
    for stated in ("basal cell carcinoma", "the left cheek", "6 x 5 mm", "Fitzpatrick", "type II", "histopathology"):
        assert stated in one.caption
    assert two.view == "dermoscopic" and "mm" not in two.caption and "length_(mm)" not in two.fields
    assert three.diagnosis is None and three.malignancy is None and "a skin lesion" in three.caption.lower()
    assert "histopathology" not in three.caption and "midas_path" not in three.fields
    assert (four.diagnosis, four.malignancy) == (None, "malignant") and "a malignant lesion" in four.caption.lower()
    assert found.unmapped == {"malignant- other": 1} and found.rows == 5
    assert [problem.file for problem in found.problems if problem.kind == "missing"] == ["s-prd-100000005.jpg"]
    for record in found.records:
        assert set(record.keys) >= {"mra_midas-patient:5"} and "midas_gender" not in record.fields
        for leak in ("secret", "melanoma", "female", "white", "fair"):
            assert leak not in record.caption.lower()


def test_skincap_keeps_its_text_and_leaves_not_include_out(tmp_path: Path) -> None:
    folder = tmp_path / "SkinCaRe" / "SkinCAP"
    text = 'A "red, scaly" plaque, on the elbow.'
    table(
        folder / "skincap_v240623.csv",
        SKINCAP_COLUMNS,
        {"id": 1, "skincap_file_path": "1.png", "ori_file_path": "ABC.jpg", "source": "Fitzpatrick17k",
         "disease": "Psoriasis", "caption_zh_polish_en": text},
        {"id": 2, "skincap_file_path": "2.png", "ori_file_path": "000017.png", "source": "DDI",
         "disease": "melanocytic-nevi", "caption_zh_polish_en": "A mole."},
        {"id": 3, "skincap_file_path": "3.png", "source": "ddi", "disease": "x", "caption_zh_polish_en": ""},
        {"id": 4, "skincap_file_path": "4.png", "source": "ddi", "disease": "x", "caption_zh_polish_en": "left out"},
        {"id": 5, "skincap_file_path": "../../../etc/passwd", "disease": "x", "caption_zh_polish_en": "outside"},
        encoding="utf-8-sig",
    )  # fmt: skip
    for name in ("1.png", "2.png", "3.png", "not_include/4.png"):
        photograph(folder / "skincap" / name)
    found = read("skincap", tmp_path)
    one, two = found.records
    assert one.caption == text and one.references == (text,) and one.diagnosis == "psoriasis"
    assert one.keys == ("fitzpatrick17k:abc",) and two.keys == ("photo:ddi/000017.png",)
    assert two.diagnosis == "melanocytic nevus" and len(found.problems) == 3
    assert any("plain file name" in problem.reason for problem in found.problems)


def test_ddi_reads_tones_and_lists_what_it_cannot_map(tmp_path: Path) -> None:
    folder = tmp_path / "ddidiversedermatologyimages"
    table(
        folder / "ddi_metadata.csv",
        DDI_COLUMNS,
        {"DDI_ID": 1, "DDI_file": "000001.png", "skin_tone": "12", "malignant": "FALSE", "disease": "melanocytic-nevi"},
        {"DDI_ID": 2, "DDI_file": "000002.png", "skin_tone": "56", "malignant": "TRUE", "disease": "no-such-tumor"},
    )
    photograph(folder / "000001.png")
    photograph(folder / "images" / "000002.png")
    found = read("ddi", tmp_path)
    one, two = found.records
    assert one.diagnosis == "melanocytic nevus" and "I to II" in one.caption and one.keys == ("photo:ddi/000001.png",)
    assert two.diagnosis is None and two.malignancy == "malignant" and "no such tumor" in two.caption
    assert found.unmapped == {"no-such-tumor": 1}


def test_ddi2_reads_its_header_when_it_runs(tmp_path: Path) -> None:
    folder = tmp_path / "ddi2diversedermatologyimages2"
    path = folder / "final_DDI2_Asian_spreadsheet.xlsx"
    spreadsheet(
        path,
        [*DDI2_COLUMNS, "a new column"],
        {"photo_id": "502948221_cropped", "fitzpatrick_skin_type": "3, 4", "diagnosis_detailed": "Melanoma",
         "diagnosis_general": "x", "benign/malignant": "malignant", "a new column": "kept"},
        {"photo_id": 502948222.0, "diagnosis_detailed": "unheard of", "diagnosis_general": "nevus"},
    )  # fmt: skip
    photograph(folder / "502948221_cropped.jpg")
    photograph(folder / "502948222.png")
    one, two = read("ddi2", tmp_path).records
    assert one.diagnosis == "melanoma" and "III to IV" in one.caption and one.fields["a new column"] == "kept"
    assert "stanford-photo:502948221" in one.keys and two.diagnosis == "melanocytic nevus"
    spreadsheet(path, ["number", "label"])
    with pytest.raises(UserError, match=r"photo_id is missing \(found: number, label\)"):
        SOURCES["ddi2"].read(tmp_path)


def test_links_are_followed_and_loops_survived(tmp_path: Path) -> None:
    ham(tmp_path / "disk", {"image_id": "ISIC_0000001"})
    root = tmp_path / "data"
    root.mkdir()
    (root / "ham10000").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "loop").symlink_to(root)
    (record,) = read("ham10000", root).records
    assert record.image.is_relative_to(root)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="CLIP_XAI_SAMPLES names no folder with real files")
@pytest.mark.parametrize("root", [SAMPLES, SAMPLES / "ham10000", SAMPLES / "pad_ufes_20"])
def test_the_real_samples_are_read(root: Path) -> None:
    found = {name: table for name, source in SOURCES.items() if (table := source.read(root)) is not None}
    if root.name != "pad_ufes_20":
        assert (found["ham10000"].rows, len(found["ham10000"].records)) == (11527, 11)
        assert sum(problem.kind == "missing" for problem in found["ham10000"].problems) == 11516
        assert sum(record.mask is not None for record in found["ham10000"].records) == 3
    if root.name != "ham10000":
        assert (found["pad_ufes_20"].rows, len(found["pad_ufes_20"].records)) == (9, 7)
    assert all(not table.unmapped for table in found.values())


cell = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.dictionaries(st.sampled_from(PAD_COLUMNS), cell, max_size=8), max_size=6))
def test_no_row_is_lost_and_none_ends_in_a_traceback(tmp_path: Path, rows: list[dict]) -> None:
    table(tmp_path / "metadata.csv", PAD_COLUMNS, *rows)
    try:
        found = read("pad_ufes_20", tmp_path)
    except UserError as error:
        assert "metadata.csv" in str(error)
        return
    assert len(found.records) + len(found.problems) == found.rows


def test_captions_say_what_is_known_and_vary_with_the_name_alone() -> None:
    facts = {"view": "dermoscopic image", "site": "the back", "diagnosis": "actinic keratosis", "size_mm": (6.0, 5.0)}
    captions = {clinical_caption(CaptionFacts(name=str(number), skin_types=(2,), **facts)) for number in range(60)}
    assert len(captions) > 30 and captions == {
        clinical_caption(CaptionFacts(name=str(number), skin_types=(2,), **facts)) for number in range(60)
    }
    for caption in captions:
        assert "an actinic keratosis" in caption.lower() and "the back" in caption.lower() and "6 x 5 mm" in caption
        assert "type II." in caption and "  " not in caption and "None" not in caption and ".." not in caption
    bare = {clinical_caption(CaptionFacts(name=str(number), view="clinical photograph")) for number in range(60)}
    assert len(bare) > 6 and all("a skin lesion" in caption.lower() for caption in bare)
    mass = clinical_caption(CaptionFacts(name="x", view="clinical photograph", diagnosis="psoriasis"))
    assert "a psoriasis" not in mass


def test_sizes_of_zero_are_no_measurement() -> None:
    assert size_in_mm(0.0, 0.0) == () and size_in_mm(None, None) == ()
    assert size_in_mm(5.0, 6.0) == (6.0, 5.0) and size_in_mm(5.0, None) == (5.0,) and size_in_mm(0.0, 4.0) == (4.0,)


def test_a_raised_digit_is_no_skin_type() -> None:
    from clip_xai.data.sources.common import skin_types_of

    assert skin_types_of("²") == () and skin_types_of("2") == (2,)
