"""What the pages of reports share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from clip_xai.files import write_text
from clip_xai.page import render_page

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Table:
    """A finished table of text.

    Attributes:
        title: What it shows.
        head: Column titles, the first over the row names.
        rows: Rows of cells.
        note: How to read it.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A table with pictures.

    Attributes:
        table: The table.
        pictures: What each shows, and its ``data:`` address.
    """

    table: Table
    pictures: tuple[tuple[str, str], ...] = ()


def write_page(template: str, path: Path, *, title: str, subtitle: str = "", notes: Sequence[str] = (),
               styles: tuple[str, ...] = (), script: str | None = None, **values: object) -> Path:  # fmt: skip
    """Fill a template of ``report/templates`` and write one self-contained page; see :func:`clip_xai.page.render_page`.

    Args:
        template: Name in ``report/templates``.
        path: Where to write.
        title: Heading of the page.
        subtitle: One line under it.
        notes: Sentences that a reader must see, under that; what stands behind a colon is folded up.
        styles: Further style sheets of ``report/templates``, after the common one.
        script: A script of ``report/templates``, or None.
        **values: What the template asks for.
    """
    page = render_page(
        TEMPLATES, template, title=title, subtitle=subtitle, notes=notes, styles=styles, script=script, **values
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return path


def script_json(value: object) -> Markup:
    r"""JSON that cannot end the script element it stands in.

    >>> str(script_json("</script>"))
    '"\\u003c/script\\u003e"'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)
