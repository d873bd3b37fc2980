"""Tables as spreadsheets and people write them: read as they are meant, or refused by file, row and reason."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from dataclasses import fields
from pathlib import Path

import openpyxl
import pytest

from clip_xai.data.groups import without_patients
from clip_xai.data.manifest import load_manifest
from clip_xai.data.manifest_builder import build_manifest
from clip_xai.data.record import SourceTable
from clip_xai.data.settings import BuildSettings, Columns
from clip_xai.data.sources import SOURCES
from clip_xai.data.sources.captions_csv import ROLES, read_all
from clip_xai.data.sources.encodings import UnknownEncodingError, decode, separator_of
from clip_xai.data.sources.tables import read_table
from clip_xai.errors import UserError
from tests.data.publishers import DDI_COLUMNS, PAD_COLUMNS, ham, photograph, spreadsheet, table

HEAD = ("image", "caption", "group", "diagnosis")
TEXTS = ("A brown macule, naïve skin.", "A red plaque; scaly.", "Œdème d’été: « plaque » 37 °C.", "Größe 5 µm.")


def rows(folder: Path) -> list[tuple[str, ...]]:
    names = [f"p{number}.jpg" for number in range(4)]
    for name in names:
        photograph(folder / name)
    return [
        (name, text, f"pat{number // 2}", "nevus") for number, (name, text) in enumerate(zip(names, TEXTS, strict=True))
    ]


def written(head: tuple[str, ...], lines: list[tuple[str, ...]], separator: str = ",") -> str:
    quoted = [separator.join('"' + cell.replace('"', '""') + '"' for cell in cells) for cells in lines]
    return "\r\n".join([separator.join(head), *quoted, ""])


def own(root: Path) -> SourceTable:
    (found,) = read_all(root, tuple(SOURCES))
    return found


SPREADSHEETS = {
    "comma": lambda text: text.encode(),
    "byte-order mark": lambda text: text.encode("utf-8-sig"),
    "Windows": lambda text: text.encode("cp1252"),
    "Macintosh": lambda text: text.encode("mac_roman"),
    "Unicode text": lambda text: text.replace('","', '"\t"').replace(",".join(HEAD), "\t".join(HEAD))
    .encode("utf-16"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "named separator": lambda text: ("sep=;\r\n" + text.replace('","', '";"').replace(",".join(HEAD), ";".join(HEAD)))
    .encode(),
    "blank first line": lambda text: ("\r\n" + text).encode(),
}  # fmt: skip


@pytest.mark.parametrize("how", SPREADSHEETS)
def test_what_spreadsheets_write_is_read(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "own"
    content = SPREADSHEETS[how](written(HEAD, rows(folder)))
    (folder / "captions.csv").write_bytes(content)
    found = own(tmp_path)
    assert tuple(record.caption for record in found.records) == TEXTS and not found.problems
    guessed = [note for note in found.notes if "not UTF-8" in note]
    assert len(guessed) == (how in ("Windows", "Macintosh"))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["captions.csv", "Captions.CSV", "captions.tsv", "captions.txt"])
def test_separators(tmp_path: Path, separator: str, name: str) -> None:
    folder = tmp_path / "own"
    (folder / name).parent.mkdir()
    (folder / name).write_text(written(HEAD, rows(folder), separator))
    assert tuple(record.caption for record in own(tmp_path).records) == TEXTS


def test_a_separator_in_every_caption_is_none() -> None:
    text = "image,caption\na.jpg,red; scaly\nb.jpg,brown; flat\nc.jpg,blue; raised, hard\n"
    assert separator_of(text) == ","
    assert separator_of("image;caption\na.jpg;red, scaly\nb.jpg;brown, flat\n") == ";"
    assert separator_of("A title, by somebody\nid;name\n1;2\n") in (",", ";")
    assert separator_of("") == separator_of("one\ntwo\n") == "," and separator_of("", "\t") == "\t"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("красная бляшка", "cp1251"), ("红色斑块", "gbk"), ("kůže žlutá", "cp1250"), ("skóra żółta", "cp1250"),
     ("赤い斑点", "shift_jis"), ("ερυθρά πλάκα", "cp1253")],
)  # fmt: skip
def test_other_encodings_are_not_guessed(text: str, encoding: str) -> None:
    with pytest.raises(UnknownEncodingError):
        decode(f"image,caption\na.jpg,{text}\n".encode(encoding))


def test_utf_8_with_a_stray_byte_is_not_western() -> None:
    with pytest.raises(UnknownEncodingError):
        decode("naïve".encode() + b" caf\xe9")


def test_a_spreadsheet_of_ones_own_is_a_source(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    lines = [dict(zip(("Image", "Caption", "Nr"), (name, text, 1.0), strict=True)) for name, text, *_ in rows(folder)]
    photograph(folder / "7.jpg")
    spreadsheet(folder / "captions.xlsx", ["Image", "Caption", "Nr"], *lines, {"Image": 7.0, "Caption": "Seven."})
    found = own(tmp_path)
    assert [record.name for record in found.records] == ["p0.jpg", "p1.jpg", "p2.jpg", "p3.jpg", "7.jpg"]
    (folder / "captions.xlsx").rename(folder / "captions.csv")  # whatever its name says
    assert len(own(tmp_path).records) == 5
    (folder / "captions.csv").rename(folder / "captions.ods")
    with pytest.raises(UserError, match=r"captions\.ods: .*save it as captions\.xlsx or captions\.csv"):
        own(tmp_path)


def test_two_tables_of_one_folder_are_refused(tmp_path: Path) -> None:
    for name in ("captions.csv", "captions.txt"):
        table(tmp_path / "own" / name, ["image", "caption"])
    with pytest.raises(UserError, match=r"captions\.txt: a second table .* keep one"):
        own(tmp_path)


def test_names_are_found_as_people_write_them(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    for name in ("a.jpg", "B.JPG", "c.png", "sub/d.jpg", "e.jpg", "e.png", "f.jpeg", "g.jpg", "x/g.jpg"):
        photograph(folder / name)
    photograph(tmp_path / "outside.jpg")
    names = {
        str((folder / "a.jpg").resolve()): "a.jpg", "b.jpg": "B.JPG", "C": "c.png", "./SUB\\D.jpg": "sub/d.jpg",
        "E": "e.jpg or e.png", "E.JPG": "e.jpg", "f.jpg": "not on disk (but f.jpeg is)",
        "": "image or caption is empty",
        "C:\\Users\\me\\own\\x\\g.jpg": "x/g.jpg", "/home/other/g.jpg": "g.jpg", "d.jpg": "(but sub/d.jpg is)",
        str(tmp_path / "outside.jpg"): "outside of the folder", "https://x.org/a.jpg": "an address", "sub": "a folder",
        "captions.csv": "no picture by its name", "nowhere": "not on disk",
    }  # fmt: skip
    for name, expected in names.items():
        table(folder / "captions.csv", ["image", "caption"], {"image": name, "caption": "One."})
        found = own(tmp_path)
        if found.records:
            assert found.records[0].name == expected and found.records[0].image == folder / expected, name
        else:
            (problem,) = found.problems
            assert expected in problem.reason and problem.reason.startswith("row 2: "), (name, problem)
    table(folder / "captions.csv", ["image", "caption"], {"image": "C:\\g.jpg", "caption": "One."})
    assert any("1 absolute paths of another machine" in note for note in own(tmp_path).notes)


def test_rows_of_one_photograph_must_agree(tmp_path: Path) -> None:
    photograph(tmp_path / "own" / "a.jpg")
    head = ["image", "caption", "group", "split"]
    lines = [
        ("a.jpg", "One.", "", "train"),
        ("A.JPG", "Two.", "p", ""),
        ("a", "Three.", "q", "train"),
        ("a.jpg", "4", "p", "test"),
    ]
    table(tmp_path / "own" / "captions.csv", head, *(dict(zip(head, line, strict=True)) for line in lines))
    found = own(tmp_path)
    (record,) = found.records
    assert record.references == ("One.", "Two.") and record.keys == ("own:p",) and found.rows == 3
    assert [problem.reason for problem in found.problems] == [
        "row 4: its group is 'q', in row 2 it is another", "row 5: its split is 'test', in row 2 it is another",
    ]  # fmt: skip


def test_other_headers_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "own"
    photograph(folder / "a.jpg")
    table(folder / "captions.csv", ["Datei", "Befund (Text)", "Patient_ID", "caption"],
          {"Datei": "a.jpg", "Befund (Text)": "Rot.", "Patient_ID": "7", "caption": "other"})  # fmt: skip
    with pytest.raises(UserError, match=r"column image is missing \(found: Datei, .*data\.columns=\{image: \.\.\.\}"):
        build_manifest(folder.parent, tmp_path / "out")
    columns = {"image": "datei", "caption": "Befund (Text)", "group": "Patient_ID"}
    (record,) = load_manifest(
        build_manifest(folder.parent, tmp_path / "out", BuildSettings(columns=Columns(**columns)))
    )
    assert (record.caption, record.group, record.fields) == ("Rot.", "own:7", {})
    with pytest.raises(UserError, match="column Fall is missing"):
        build_manifest(folder.parent, tmp_path / "out", BuildSettings(columns=Columns(**{**columns, "group": "Fall"})))


def test_every_role_has_a_setting() -> None:
    assert tuple(item.name for item in fields(Columns)) == (*ROLES, "label")


def test_headers_in_other_scripts_are_told_apart(tmp_path: Path) -> None:
    photograph(tmp_path / "own" / "a.jpg")
    table(tmp_path / "own" / "captions.csv", ["图片", "说明"], {"图片": "a.jpg", "说明": "红斑"})
    (found,) = read_all(tmp_path, (), {"image": "图片", "caption": "说明"})
    assert found.records[0].caption == "红斑"


def test_no_patients_are_said(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "own"
    lines = [{"image": photograph(folder / f"{n}.jpg").name, "caption": "One.", "Case ID": 1} for n in "abc"]
    table(folder / "captions.csv", ["image", "caption", "Case ID"], *lines)
    (found,) = read_all(folder.parent, ())
    assert found.notes == [
        "no patient column: splits are by photograph (if Case ID tells the patients: data.columns={group: Case ID})"
    ]
    records = load_manifest(build_manifest(folder.parent, tmp_path / "out"))
    assert without_patients(records) == {"own": 3}
    named = BuildSettings(columns=Columns(group="Case ID"))
    assert without_patients(load_manifest(build_manifest(folder.parent, tmp_path / "out", named))) == {}
    table(folder / "captions.csv", ["image", "caption", "group"],
          {"image": "a.jpg", "caption": "One.", "group": "1"}, {"image": "b.jpg", "caption": "Two."})  # fmt: skip
    (found,) = read_all(folder.parent, ())
    assert found.notes == ["1 photograph without a group: each counts as a patient of its own"]


def test_publishers_without_patients_say_so(tmp_path: Path) -> None:
    table(
        tmp_path / "ddi_metadata.csv",
        DDI_COLUMNS,
        {"DDI_file": photograph(tmp_path / "000001.png").name, "disease": "x"},
    )
    found = SOURCES["ddi"].read(tmp_path)
    assert found is not None and "no patient known: splits are by photograph" in found.notes
    assert without_patients(found.records) == {"ddi": 1}


STRANGERS: dict[str, tuple[bytes, str]] = {
    "old Excel": (b"\xd0\xcf\x11\xe0" + b"\0" * 600, "old format: save it as .xlsx"),
    "web page": (b"<!DOCTYPE html><html>Please log in</html>", "a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a pointer of Git LFS"),
    "another encoding": ("image,caption\na.jpg,красная\n".encode("cp1251"), "not UTF-8 text"),
    "a stray quote": (b'image,caption\na.jpg,"one\nb.jpg,"two"\n', "line 3: "),
    "an open quote": (b'image,caption\na.jpg,"one\nb.jpg,two\n', "line 3: "),
    "nothing": (b"\n\n", "the table is empty"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_no_table_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    content, said = STRANGERS[name]
    (tmp_path / "captions.csv").write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_all(tmp_path, ())
    assert said in str(refused.value) and "captions.csv: " in str(refused.value) and "\n" not in str(refused.value)


def test_a_publishers_table_never_vanishes(tmp_path: Path) -> None:
    row = {"patient_id": "P", "img_id": "PAT_1_1_1.png", "diagnostic": "BCC", "region": "FACE"}
    path = table(tmp_path / "metadata.csv", PAD_COLUMNS, row)
    photograph(tmp_path / "images" / "PAT_1_1_1.png")
    text = path.read_text()
    read = SOURCES["pad_ufes_20"].read
    plain = read(tmp_path)
    assert plain is not None and len(plain.records) == 1
    for content in (text.replace("FACE", "TÊTE").encode("cp1252"), text.replace(",", ";").encode("utf-16")):
        path.write_bytes(content)
        found = read(tmp_path)
        assert found is not None and len(found.records) == 1
    path.write_bytes("пациент".encode("cp1251") + text.encode())
    with pytest.raises(
        UserError, match=r"metadata\.csv: cannot be read as a table \(not UTF-8 text\); download it again"
    ):
        read(tmp_path)
    path.unlink()
    spreadsheet(tmp_path / "metadata.xlsx", PAD_COLUMNS, row)
    found = read(tmp_path)
    assert found is not None and len(found.records) == 1


def test_rows_are_numbered_as_a_spreadsheet_numbers_them(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n\n3\n4,5\n")
    read = read_table(tmp_path / "t.csv")
    assert read.numbers == (2, 5) and read.broken == ((4, "1 cell under 2 columns"),)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    command = [sys.executable, "-m", "clip_xai.data", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_the_command_says_in_five_lines_what_it_did(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "own"
    head = ["Bild", "Text"]
    lines = [(photograph(folder / f"{n}.jpg").name, "One.") for n in "abcd"] + [("gone.jpg", "Two."), ("a.txt", "")]
    table(folder / "captions.csv", head, *(dict(zip(head, line, strict=True)) for line in lines))
    arguments = [f"data.root={folder.parent}", f"data.output_dir={tmp_path / 'out'}"]
    for _ in range(2):  # the second time nothing is done, and the same is said
        done = run(*arguments, "data.columns={image: Bild, caption: Text}")
        assert done.returncode == 0, done.stderr
        kept, left_out, splits, noted, place = done.stdout.splitlines()
        assert kept.startswith("kept: 4 photographs in 4 groups (own 4)")
        assert "1 missing, 1 row" in left_out and "own/gone.jpg: row 6: listed in the table, not on disk" in left_out
        assert "(stratified, seed 0)" in splits and "no patient column: splits are by photograph" in noted
        assert place.endswith("report.html") and "manifest.parquet" in place
    for wrong in ("[image]", "{picture: Bild}"):
        refused = run(*arguments, f"data.columns={wrong}")
        assert refused.returncode == 1 and "is no mapping such as {image: File" in refused.stderr


def test_a_table_of_another_name_is_pointed_at(tmp_path: Path) -> None:
    table(tmp_path / "data" / "table.csv", ["image", "caption"])
    with pytest.raises(UserError, match=r"\(but table\.csv: a table of your own is called captions\.csv and has"):
        build_manifest(tmp_path / "data", tmp_path / "out")


def test_only_photographs_of_the_sources_own_hint(tmp_path: Path) -> None:
    table(tmp_path / "data" / "own" / "captions.csv", ["image", "caption"], {"image": "gone.jpg", "caption": "One."})
    with pytest.raises(UserError) as refused:
        build_manifest(tmp_path / "data", tmp_path / "out")
    assert "(first: gone.jpg: row 2: listed in the table, not on disk)" in str(refused.value)
    assert "HAM10000" not in str(refused.value)
    ham(tmp_path / "data", {"image_id": "ISIC_0000001"}, images=False)
    with pytest.raises(UserError, match="ham10000: HAM10000_metadata"):
        build_manifest(tmp_path / "data", tmp_path / "out")


def test_one_patient_is_one_however_the_number_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    lines = [{"image": photograph(folder / f"{n}.jpg", n).name, "caption": "One.", "group": group}
             for n, group in enumerate(("7", "7.0", "8", "-", "?", "#N/A"))]  # fmt: skip
    table(folder / "captions.csv", ["image", "caption", "group"], *lines)
    found = own(tmp_path)
    assert [record.keys[0] for record in found.records] == [
        "own:7", "own:7", "own:8", "own:3.jpg", "own:4.jpg", "own:5.jpg",
    ]  # fmt: skip
    assert any(note.startswith("3 photographs without a group") for note in found.notes)


def test_a_cell_that_says_nothing_is_no_caption(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    captions = ("nan", "-", "#VALUE!", "#N/A", "None", "A plaque.")
    lines = [{"image": photograph(folder / f"{n}.jpg").name, "caption": text} for n, text in enumerate(captions)]
    table(folder / "captions.csv", ["image", "caption"], *lines)
    found = own(tmp_path)
    assert [record.caption for record in found.records] == ["A plaque."] and len(found.problems) == 5


def test_two_columns_of_one_name_are_asked_about(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    photograph(folder / "a.jpg")
    table(folder / "captions.csv", ["image", "caption", "Caption"],
          {"image": "a.jpg", "caption": "One.", "Caption": "Two."})  # fmt: skip
    with pytest.raises(
        UserError, match=r"columns caption, Caption may be the caption: .*data\.columns=\{caption: caption"
    ):
        own(tmp_path)
    for named, text in (("caption", "One."), ("Caption", "Two.")):
        (found,) = read_all(tmp_path, (), {"caption": named})
        assert found.records[0].references == (text,)


def book(folder: Path) -> tuple[openpyxl.Workbook, list[tuple[str, ...]]]:
    """A spreadsheet with one table, of which nothing is written yet."""
    made = openpyxl.Workbook()
    made.active.append(HEAD)
    lines = rows(folder)
    for line in lines:
        made.active.append(line)
    return made, lines


def test_merged_cells_say_the_same_of_every_row(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    made, _ = book(folder)
    for top in (2, 4):
        made.active.merge_cells(f"C{top}:C{top + 1}")
    made.save(folder / "captions.xlsx")
    assert [record.keys[0] for record in own(tmp_path).records] == ["own:pat0", "own:pat0", "own:pat1", "own:pat1"]


def test_numbers_are_read_as_a_spreadsheet_shows_them(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    made, _ = book(folder)
    for row in range(2, 6):
        photograph(folder / f"{row:03d}.jpg")
        made.active[f"A{row}"] = row
        made.active[f"A{row}"].number_format = "000"
    made.save(folder / "captions.xlsx")
    assert [record.name for record in own(tmp_path).records] == ["002.jpg", "003.jpg", "004.jpg", "005.jpg"]
    table(folder / "captions.csv", ["image", "caption"], {"image": "2", "caption": "One."})
    (folder / "captions.xlsx").unlink()
    assert "(but 002.jpg is)" in own(tmp_path).problems[0].reason


def test_formulas_that_nobody_computed_are_not_read_as_empty(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    made, _ = book(folder)
    made.active["C3"] = '="pat"&"0"'
    made.save(folder / "captions.xlsx")
    with pytest.raises(
        UserError, match=r"1 formulas whose values .* cell C3: open it in a spreadsheet program and save"
    ):
        own(tmp_path)


def test_the_sheet_that_is_meant_is_read_or_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    made, lines = book(folder)
    second = made.create_sheet("second")
    second.append(HEAD)
    second.append((lines[0][0], "Of the second.", *lines[0][2:]))
    made.save(folder / "captions.xlsx")
    with pytest.raises(UserError, match=r"2 sheets have such a header \(Sheet, second\): keep the one"):
        own(tmp_path)
    made.active.sheet_state = "hidden"
    made.active = 1
    made.save(folder / "captions.xlsx")
    assert [record.caption for record in own(tmp_path).records] == ["Of the second."]


def test_names_are_the_same_however_their_accents_are_composed(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    photograph(folder / unicodedata.normalize("NFC", "lésion\u00a01.jpg"))
    name = unicodedata.normalize("NFD", "lésion 1.jpg")
    table(folder / "captions.csv", ["image", "caption"], {"image": name, "caption": "One."})
    assert len(own(tmp_path).records) == 1
