"""A contact sheet: normal films, and some of each finding with its box."""

from __future__ import annotations

from PIL import Image, ImageDraw

from clip_xai.data.synthetic.chest.parts import box_of
from clip_xai.data.synthetic.chest.plan import LABELS, Film, sample_film
from clip_xai.data.synthetic.chest.render import render

_MARGIN, _TITLE = 4, 14


def contact_sheet(seed: int, films: int, size: int, across: int = 4) -> Image.Image:
    """Draw a row of normal films and a row of each finding, of the first films of a seed that show nothing else.

    Args:
        seed: Seed of the films.
        films: Films to choose from.
        size: Side of each in pixels.
        across: Films in a row.
    """
    known = [sample_film(seed, patient, 0) for patient in range(1, films + 1)]
    rows = [
        [film for film in known if film.labels == labels][:across] for labels in ((), *((name,) for name in LABELS))
    ]
    step = size + _MARGIN
    sheet = Image.new("RGB", (across * step, len(rows) * (step + _TITLE)))
    draw = ImageDraw.Draw(sheet)
    for row, chosen in enumerate(rows):
        for column, film in enumerate(chosen):
            _paste(sheet, draw, film, size, column * step, row * (step + _TITLE))
    return sheet


def _paste(sheet: Image.Image, draw: ImageDraw.ImageDraw, film: Film, size: int, left: int, top: int) -> None:
    drawn = render(film, size)
    title = ", ".join(f"{finding.label} {finding.side} {finding.size}" for finding in film.findings) or "No Finding"
    draw.text((left, top), f"{title} {film.view}", fill="white")
    sheet.paste(Image.fromarray(drawn.image).convert("RGB"), (left, top + _TITLE))
    for finding in film.findings:
        x, y, width, height = box_of(drawn.masks[finding.label])
        corners = (left + x, top + _TITLE + y, left + x + width - 1, top + _TITLE + y + height - 1)
        draw.rectangle(corners, outline="yellow")
