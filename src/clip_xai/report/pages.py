"""What all pages share: escaping, one style, a policy that lets nothing in from outside."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from clip_xai.files import write_text
from clip_xai.report.explained import DISCLAIMER


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


def write_page(template: str, path: Path, *, title: str, subtitle: str = "", styles: tuple[str, ...] = (),
               script: str | None = None, **values: object) -> Path:  # fmt: skip
    """Fill a template and write one self-contained page.

    Every value is escaped. The page carries its style and its script; a content security policy refuses any other
    script and every address outside of the file, so that a file name or a caption cannot act.

    Args:
        template: Name in ``report/templates``.
        path: Where to write.
        title: Heading of the page.
        subtitle: One line under it.
        styles: Further style sheets of ``report/templates``, after the common one.
        script: A script of ``report/templates``, or None.
        **values: What the template asks for.
    """
    environment = Environment(
        loader=PackageLoader("clip_xai.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    code = _source(environment, script) if script else ""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii")
    page = environment.get_template(template).render(
        title=title,
        subtitle=subtitle,
        disclaimer=DISCLAIMER,
        css=Markup("\n".join(_source(environment, name) for name in ("style.css", *styles))),
        script=Markup(code),
        script_hash=f"'sha256-{digest}'" if script else "'none'",
        **values,
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


def _source(environment: Environment, name: str) -> str:
    loader = environment.loader
    assert loader is not None
    return loader.get_source(environment, name)[0]
