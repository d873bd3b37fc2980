"""The whole of DermaCAP at its real size: every planted fault is in the report, no planted leak across the splits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clip_xai.data.manifest import load_manifest
from clip_xai.data.manifest_builder import build_manifest
from clip_xai.data.record import CONFLICT, Record
from clip_xai.data.settings import SCHEMES, BuildSettings
from tests.data import rehearsal

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rehearsal")


@pytest.fixture(scope="module")
def planted(root: Path) -> rehearsal.Planted:
    return rehearsal.write(root / "data")


@pytest.fixture(scope="module")
def records(root: Path, planted: rehearsal.Planted) -> dict[str, Record]:
    return {record.identifier: record for record in load_manifest(build_manifest(root / "data", root / "out"))}


@pytest.fixture(scope="module")
def report(root: Path, records: dict[str, Record]) -> dict[str, Any]:
    return json.loads((root / "out" / "report.json").read_text(encoding="utf-8"))


def test_no_row_is_lost(report: dict[str, Any], planted: rehearsal.Planted) -> None:
    assert sum(rehearsal.ROWS.values()) == 22755
    for name, rows in rehearsal.ROWS.items():
        source = report["sources"][name]
        assert source["expected"] == source["rows"] == rows
        assert source["photographs"] + source["missing"] + source["unreadable"] + source["refused"] == rows, name
        assert source["refused"] == planted.refused.get(name, 0)
    assert report["sources"]["ham10000"]["masks"] == 10015 - 5


def test_every_planted_fault_is_named(
    report: dict[str, Any], records: dict[str, Record], planted: rehearsal.Planted
) -> None:
    by_kind: dict[str, set[str]] = {}
    for problem in report["problems"]:
        by_kind.setdefault(problem["kind"], set()).add(f"{problem['source']}/{problem['file']}")
    assert by_kind["missing"] == planted.missing and by_kind["unreadable"] == planted.unreadable
    assert len(planted.missing) == 14
    assert planted.odd <= set(records)
    wrong = {row["row"] for row in report["flagged"] if any("wrong extension" in flag for flag in row["flags"])}
    assert wrong == planted.wrong_extension
    near = {frozenset(pair) for pair in report["near_duplicates"]}
    groups = {identifier: record.group for identifier, record in records.items()}
    for pair in planted.alike:
        assert frozenset(pair) in near or groups[pair[0]] == groups[pair[1]], pair
    # Looks connect nothing else: what was painted with different numbers stays apart.
    shown = {frozenset(pair) for pair in [*planted.alike, *planted.same]}
    strangers = [pair for pair in near if pair not in shown]
    assert all(len({records[row].group for row in pair}) == 1 for pair in strangers)
    assert {frozenset(item["rows"]) for item in report["conflicts"]} == {frozenset(pair) for pair in planted.conflicts}
    assert report["sources"]["ddi2"]["unmapped"] == {"a name nobody maps": 74}
    assert report["sources"]["skincap"]["unmapped"] == report["sources"]["ddi"]["unmapped"] == {}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_planted_leak_crosses_a_split(root: Path, planted: rehearsal.Planted, scheme: str) -> None:
    settings = BuildSettings(split=scheme, held_out="ddi" if scheme == "leave_one_source_out" else None)
    built = load_manifest(build_manifest(root / "data", root / "out", settings))
    rows = {record.identifier: record for record in built}
    for together in [*map(list, planted.same), *map(list, planted.alike), *planted.together]:
        there = [rows[name] for name in together if name in rows]
        assert len({record.group for record in there}) <= 1, together
        assert len({record.split for record in there} - {None}) <= 1, together
    for one, two in planted.same:
        assert Counter(rows[name].split is not None for name in (one, two) if name in rows)[True] <= 1
    for name in {name for pair in planted.conflicts for name in pair}:
        assert rows[name].split in ("train", None) and CONFLICT in rows[name].flags
    sizes = Counter(record.split for record in built)
    assert min(sizes["train"], sizes["val"], sizes["test"]) > 200
    if scheme == "stratified":
        kept = sum(sizes[split] for split in ("train", "val", "test"))
        assert abs(sizes["train"] / kept - 0.75) < 0.01 and abs(sizes["test"] / kept - 0.15) < 0.01


def test_captions_say_nothing_private_and_visible_ones_no_diagnosis(root: Path, records: dict[str, Record]) -> None:
    for record in records.values():
        text = " ".join(record.references).casefold()
        for word in (
            "nan",
            "unk",
            "none",
            "pomerania",
            "smok",
            "water",
            "cantonese",
            "margins",
            "female",
            "impression",
        ):
            assert f" {word}" not in text, (record.identifier, text)
    shown = load_manifest(build_manifest(root / "data", root / "out", BuildSettings(captions="visible")))
    from clip_xai.data.lexicon import read_diagnosis

    assert not [record.identifier for record in shown if read_diagnosis(record.caption)]
    assert not [record.identifier for record in shown if "biops" in record.caption.casefold()]
    frequent = Counter(record.caption for record in shown if record.source == "ham10000").most_common(1)[0][1]
    assert frequent < 0.02 * 11720


def test_a_second_call_opens_no_photograph(
    root: Path, records: dict[str, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    build_manifest(root / "data", root / "out", BuildSettings())
    opened: list[object] = []
    monkeypatch.setattr(Image, "open", lambda *given, **named: opened.append(given))
    before = (root / "out" / "manifest.parquet").stat()
    assert build_manifest(root / "data", root / "out", BuildSettings()) == root / "out" / "manifest.parquet"
    after = (root / "out" / "manifest.parquet").stat()
    assert not opened and (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak is read as Linux tells it")
def test_memory_stays_flat(root: Path, tmp_path: Path) -> None:
    """In a process of its own, from nothing: a hundred bytes a photograph, not the photographs."""
    script = (
        "import sys; from pathlib import Path\n"
        "from clip_xai.data.manifest_builder import BuildSettings, build_manifest\n"
        "build_manifest(Path(sys.argv[1]), Path(sys.argv[2]), BuildSettings())\n"
        # Not getrusage: what it gives begins with the peak of the process that started this one.
        "print(*[line for line in open('/proc/self/status') if line.startswith('VmHWM')])"
    )
    command = [sys.executable, "-c", script, str(root / "data"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-2]) < 2**20  # KiB
