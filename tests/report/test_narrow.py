"""Pages on a telephone: nothing runs over the edge of 390 pixels, and no letter is too small to read."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest

from clip_xai.report.causes_page import Case, Dot, Forest, Matrix, Priced, Share, write_causes_page
from clip_xai.report.figures import data_uri
from clip_xai.report.html import write_explanations
from clip_xai.report.pages import Table
from clip_xai.report.shortcuts_page import ArtefactPart, Point, Rise, Shown, write_shortcuts_page
from tests.report.browser import needs_browser, run_browser
from tests.report.planted import explained, photograph

WIDTH, LEAST = 390, 10.0  # pixels of the telephone, and of the smallest letters
#: Headless browsers have no window as narrow as this; a frame may be.
FRAME = """<!doctype html><body style="margin:0">
<iframe style="width:390px;height:20000px;border:0" srcdoc="%s"></iframe>
<script>
addEventListener("load", () => {
  const inner = document.querySelector("iframe").contentWindow, over = [], tiny = [];
  for (const one of inner.document.querySelectorAll("details")) one.open = true;
  const scrolls = (one) => {
    for (let at = one.parentElement; at; at = at.parentElement)
      if (["auto", "scroll", "hidden"].includes(inner.getComputedStyle(at).overflowX)) return true;
    return false;
  };
  for (const one of inner.document.body.querySelectorAll("*")) {
    const box = one.getBoundingClientRect(), drawn = one.ownerSVGElement;
    if (!box.width) continue;
    const name = `${one.tagName} ${one.getAttribute("class")}: ${one.textContent.trim().slice(0, 40)}`;
    if ((box.right > inner.innerWidth + 1 || box.left < -1) && !scrolls(one)) over.push(name);
    const scale = drawn && drawn.viewBox.baseVal.width
      ? drawn.getBoundingClientRect().width / drawn.viewBox.baseVal.width : 1;
    const own = [...one.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (own && parseFloat(inner.getComputedStyle(one).fontSize) * scale < %s) tiny.push(name);
  }
  document.body.textContent = JSON.stringify({
    width: inner.innerWidth, page: inner.document.documentElement.scrollWidth, over, tiny });
  document.documentElement.dataset.opened = "yes";
});
</script>"""

LONG = "true effects, large and small reversed"
WIDE = Table(
    "Wide", ("method", *(f"criterion {n}" for n in range(9))), ((LONG, *["0.62 [0.41, 0.83]"] * 9),) * 3, "Why."
)


def causes(place: Path) -> Path:
    """A page of judged explainers with all that one can have."""
    dots = tuple(
        Dot(name, 0.6, 0.4, 0.8, "0.60 [0.40, 0.80]", 0.5, "12 [10–23]", True) for name in (LONG, "Grad-ECLIP")
    )
    share = Share("arborising vessels and more", -80.0, "−12.34", 55.0, "+100%")
    case = Case("structure: blue-white veil", "Agreement 0.92.", *[data_uri(photograph())] * 2, (share,) * 3)
    return write_causes_page(
        place, subtitle="4 scenes · /a/very/long/path/" + "of_a_model/" * 9, verdicts=[("It can be believed.", True)],
        tables=[WIDE], forests=[Forest("Correctness", "A note.", dots)], cases=[("Most", [case, case])],
        priced=[Priced(name, 10.0**number, 0.5 + number / 9, name) for number, name in enumerate((LONG, "RISE"))],
        matrices=[Matrix("Effects", ("its own word", "another structure's word", "diagnosis", "contrast"),
                         (("mole", (("+0.10", 0.5, 12),) * 4),), "A note.")],
        curves=[("Curves", data_uri(photograph()))], more=[WIDE], details=[WIDE], left_out=["Nothing."],
        settings={"protocol.measures": ["relevance_gain/token_drop"] * 9},
    )  # fmt: skip


def shortcuts(place: Path) -> Path:
    """A page of planted shortcuts."""
    points = tuple(Point(p, p / 3, p / 3 - 0.1, p / 3 + 0.1, p > 0.5) for p in (0.2, 0.5, 0.8, 1.0))
    part = ArtefactPart("Letter", (WIDE,), (Rise(LONG, "It reveals it from p = 0.8 on.", points, points),) * 3,
                        (Shown("Grad-CAM, p = 1", data_uri(photograph())),) * 3, "One scene.")  # fmt: skip
    return write_shortcuts_page(place, subtitle="A model", verdicts=[("It cheats.", False)], parts=[part],
                                left_out=["Nothing."], settings={"seeds": [0]})  # fmt: skip


def explanations(place: Path) -> Path:
    """A page of explained photographs."""
    return write_explanations([explained("a_very_long_name_" * 9 + ".jpg")], place, title="Explanations", table=WIDE)


@needs_browser
@pytest.mark.parametrize("write", [causes, shortcuts, explanations], ids=lambda one: one.__name__)
def test_a_page_of_the_width_of_a_telephone_has_nothing_over_its_edge_and_nothing_tiny(write, tmp_path: Path) -> None:
    page = write(tmp_path / "index.html").read_text(encoding="utf-8")
    found = measured(page, tmp_path)
    assert found == {"width": WIDTH, "page": WIDTH, "over": [], "tiny": []}


@needs_browser
def test_what_is_too_wide_or_too_small_is_found(tmp_path: Path) -> None:
    page = """<body style="margin:0"><p style="width:500px">wide</p><svg viewBox="0 0 1000 9" style="width:100%">
    <text font-size="20">tiny</text></svg></body>"""
    found = measured(page, tmp_path)
    assert found["page"] == 500 and found["over"] == ["P null: wide"] and found["tiny"] == ["text null: tiny"]


def measured(page: str, place: Path) -> dict[str, object]:
    """What a browser measures of a page in a frame as wide as a telephone."""
    (place / "frame.html").write_text(FRAME % (html.escape(page), LEAST), encoding="utf-8")
    printed = run_browser((place / "frame.html").as_uri(), place / "profile", "--dump-dom")
    [found] = re.findall(r"<body[^>]*>(\{.*\})", printed)
    return json.loads(html.unescape(found))
