"""The front page of the demo: what its previews show."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_xai.report.cards import write_card
from clip_xai.report.demo_page import PREVIEW, Link, write_index
from tests.report.planted import explained


def previewed(place: Path, picture: Path) -> Image.Image:
    """The preview of a picture on a front page."""
    (place / "there.html").write_text("x")
    write_index(place / "index.html", [Link("There", "", place / "there.html", picture)])
    page = (place / "index.html").read_text()
    [shown] = re.findall(r'<img src="data:image/[a-z]+;base64,([^"]+)"', page)
    return Image.open(io.BytesIO(base64.b64decode(shown)))


def vivid(picture: Image.Image) -> float:
    """The share of strongly coloured pixels."""
    saturation, value = (np.asarray(picture.convert("HSV"))[..., band] for band in (1, 2))
    return float(((saturation > 130) & (value > 130)).mean())


@pytest.mark.parametrize("above", [0, 1, 40])
def test_the_preview_of_a_card_shows_its_heat_maps_whatever_stands_above_them(above: int, tmp_path: Path) -> None:
    grey = Image.new("RGB", (256, 192), (128, 128, 128))  # so that all that is vivid in a picture is heat
    image = replace(explained(), photograph=grey, mask=None, references=("Every word of it. " * 20,) * above)
    card = write_card(replace(image, explanations=image.explanations[:1]), tmp_path / "card.png")
    preview = previewed(tmp_path, card)
    with Image.open(card) as whole:
        top = whole.convert("RGB").crop((0, 0, whole.width, whole.width * 9 // 16))
    assert preview.size == PREVIEW and vivid(preview) > 5 * vivid(top)


def test_a_picture_that_is_no_card_is_shown_from_its_top(tmp_path: Path) -> None:
    Image.fromarray(np.repeat(np.arange(200, dtype=np.uint8)[:, None], 64, axis=1)).save(tmp_path / "plain.png")
    rows = np.asarray(previewed(tmp_path, tmp_path / "plain.png").convert("L"))[:, 320]
    assert rows[0] < 3 and abs(int(rows[-1]) - 35) < 3  # 64 x 36 of 64 x 200
