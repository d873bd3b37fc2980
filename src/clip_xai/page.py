"""What all pages share, whichever layer writes them: header, notice, style, and a policy that lets nothing in."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

DISCLAIMER = (
    "Research software, not a medical device. Heat maps show what moved a model's score, not what is diseased; "
    "nothing here may be used for diagnosis."
)
BASE = Path(__file__).parent / "assets" / "pages"


def render_page(
    templates: Path, template: str, *, title: str, subtitle: str = "", notes: Sequence[str] = (),
    styles: tuple[str, ...] = (), script: str | None = None, **values: object,
) -> str:  # fmt: skip
    """Fill a template and return one self-contained page.

    Every value is escaped. The page carries its style and its script; a content security policy refuses any other
    script and every address outside of the file, so that a file name or a caption cannot act.

    Args:
        templates: The directory of the template, its styles and its script; ``base.html.j2`` is always there.
        template: Name of the template.
        title: Heading of the page.
        subtitle: One line under it.
        notes: Sentences that a reader must see, under that; what stands behind a colon is folded up.
        styles: Further style sheets, after the common one.
        script: A script, or None.
        **values: What the template asks for.
    """
    environment = Environment(
        loader=FileSystemLoader([templates, BASE]), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    code = _source(environment, script) if script else ""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii")
    return environment.get_template(template).render(
        title=title,
        subtitle=subtitle,
        header_notes=[note.partition(": ")[::2] for note in notes],
        disclaimer=DISCLAIMER,
        css=Markup("\n".join(_source(environment, name) for name in ("style.css", *styles))),
        script=Markup(code),
        script_hash=f"'sha256-{digest}'" if script else "'none'",
        **values,
    )


def _source(environment: Environment, name: str) -> str:
    loader = environment.loader
    assert loader is not None
    return loader.get_source(environment, name)[0]
