"""The page of planted shortcuts: charts of one scale, and nothing of what is written in it acts."""

from __future__ import annotations

from pathlib import Path

from clip_xai.report.pages import Table
from clip_xai.report.shortcuts_page import HEIGHT, ArtefactPart, Point, Rise, Shown, _charts, write_shortcuts_page
from tests.report.planted import HOSTILE


def rise(name: str, size: float) -> Rise:
    points = tuple(Point(p, size * p, size * p - 0.1, size * p + 0.1, p > 0.5) for p in (0.2, 0.5, 1.0))
    return Rise(name, "It does.", points, (Point(1.0, -0.05, None, None),))


def test_charts_of_an_artefact_have_one_scale() -> None:
    steep, flat = _charts([rise("steep", 0.8), rise("flat", 0.1)])
    assert steep["zero"] == flat["zero"] and steep["top"] == flat["top"] == "+0.90"
    heights = [point["y"] for point in steep["points"]]  # type: ignore[attr-defined]
    assert heights == sorted(heights, reverse=True) and all(0 < one < HEIGHT for one in heights)
    ends = [heights[0] - heights[-1], flat["points"][0]["y"] - flat["points"][-1]["y"]]  # type: ignore[index]
    assert abs(ends[0] / ends[1] - 8) < 0.5
    assert [point["revealed"] for point in steep["points"]] == [False, False, True]  # type: ignore[attr-defined]


def test_the_page_holds_what_it_was_given_and_escapes_it(tmp_path: Path) -> None:
    table = Table("Which methods", ("method", "p"), ((HOSTILE, ".5"),), "A note.")
    part = ArtefactPart(
        "Ruler", (table,), (rise(HOSTILE, 0.4),), (Shown("The scene", "data:image/png;base64,"),), "One."
    )
    path = write_shortcuts_page(
        tmp_path / "index.html", subtitle="A model", verdicts=[("It cheats.", False), ("None shows it.", True)],
        parts=[part], left_out=["A scene."], settings={"scenes": 12},
    )  # fmt: skip
    page = path.read_text(encoding="utf-8")
    assert HOSTILE not in page and page.count('class="revealed"') == 1
    assert 'class="warning">None shows it.' in page and "Which methods" in page and "A scene." in page
