"""Every ink of the pages stands out from every ground that it is written on, light and dark."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest

from clip_xai.page import BASE
from clip_xai.report.canvas import contrast
from clip_xai.report.html import write_explanations
from tests.report.browser import needs_browser, run_browser
from tests.report.planted import explained

#: Ink -> the grounds that it is written on, by the names of style.css.
WRITTEN = {
    "ink": ("paper", "sheet", "warn-soft", "accent-soft"),
    "quiet": ("paper", "sheet", "accent-soft"),
    "accent": ("paper", "sheet"),
    "warn": ("paper", "sheet", "warn-soft"),
    "good": ("paper", "sheet"),
    "bad": ("paper", "sheet"),
    "sheet": ("accent",),  # the word and the method that are shown
}


def palettes() -> dict[str, dict[str, tuple[int, ...]]]:
    """The colours of the light and the dark page."""
    light, dark = (BASE / "style.css").read_text(encoding="utf-8").split("@media (prefers-color-scheme: dark)")
    found = {}
    for name, css in (("light", light), ("dark", dark.split("* {")[0])):
        pairs = re.findall(r"--([\w-]+): #([0-9a-f]{6})", css)
        found[name] = {key: tuple(bytes.fromhex(value)) for key, value in pairs}
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_ink_stands_out_from_its_grounds(scheme: str) -> None:
    colours = palettes()[scheme]
    for ink, grounds in WRITTEN.items():
        for ground in grounds:
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    # The surest word: the accent over the sheet, as strongly as the page's script lays it.
    surest = tuple(round(s + 0.36 * (a - s)) for s, a in zip(colours["sheet"], colours["accent"], strict=True))
    assert contrast(colours["ink"], surest) >= 4.5


@needs_browser
def test_a_method_left_out_is_named_though_one_is_all_that_remains(tmp_path: Path) -> None:
    image = explained()
    alone = replace(image, explanations=image.explanations[:1], left_out=("Grad-CAM: every score is 0.",))
    page = write_explanations([alone], tmp_path / "index.html", title="A")
    seen = run_browser(page.as_uri(), tmp_path / "profile", "--dump-dom")
    [details] = re.findall(r'<details[^>]*id="left-out"[^>]*>.*?</details>', seen, re.DOTALL)
    assert "hidden" not in details.split(">")[0]
    assert "1 method left out" in details and "Grad-CAM: every score is 0." in details
    title = re.search(r'<h3 id="text-title">(.*?)</h3>', seen)
    assert title is None or html.unescape(title.group(1)).count("“") <= 1  # no quotes in quotes
    assert f'alt="Photograph {image.name}"' in seen and f'alt="{image.caption}"' not in seen
