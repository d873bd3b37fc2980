"""From Python in a few lines: a backbone by its name, photographs and texts in, pictures out.

The same objects are what the command line composes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from clip_xai.data.images import as_rgb, read_image
from clip_xai.errors import UserError
from clip_xai.files import replacing
from clip_xai.models.backbones.base import Backbone
from clip_xai.models.backbones.build import build_backbone
from clip_xai.models.backbones.catalogue import CATALOGUE
from clip_xai.report.assemble import Answer, assemble
from clip_xai.report.cards import draw_card
from clip_xai.report.explained import ExplainedImage
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.explainer import Explainer, explain_together
from clip_xai.xai.methods import METHODS
from clip_xai.xai.target import ContrastTarget, SimilarityTarget

PUBLISHED = "published"


@dataclass(frozen=True)
class Explanations:
    """What several methods say about one photograph.

    Attributes:
        attributions: One a method: raw maps ``[1, T, h, w]`` with their settings, scores and place on the photograph.
        shown: What a card or a page shows of it.
    """

    attributions: list[Attribution]
    shown: ExplainedImage

    def picture(self) -> Image.Image:
        """Draw the photograph and every map on one card."""
        return draw_card(self.shown)

    def show(self) -> None:
        """Open the card in the system's viewer; a notebook shows it by itself."""
        self.picture().show()

    def save(self, path: str | Path) -> None:
        """Write the card."""
        with replacing(Path(path)) as unfinished:
            self.picture().save(unfinished)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.picture().save(buffer, "PNG")
        return buffer.getvalue()


def load_backbone(name: str = "tiny", pretrained: str | None = PUBLISHED) -> Backbone:
    """Build a CLIP by its name.

    Args:
        name: As in ``backbone=NAME``.
        pretrained: ``published``: where its publisher keeps the weights (``tiny`` has them in the package); otherwise
            a hub name, a folder, a file, or None for random weights.

    Raises:
        UserError: The name is unknown, or the weights are nowhere to be had.
    """
    if name not in CATALOGUE:
        raise UserError(f"there is no backbone {name!r}; choose one of {', '.join(CATALOGUE)}")
    entry = CATALOGUE[name]
    return build_backbone(name, entry.architecture, entry.pretrained if pretrained == PUBLISHED else pretrained)


def explain(
    backbone: Backbone,
    photograph: str | Path | Image.Image,
    texts: Sequence[str],
    methods: Sequence[str | Explainer] = ("gradeclip",),
    *,
    kind: str = "cosine",
    contrast: bool = False,
) -> Explanations:
    """Explain what on a photograph makes it similar to each of some texts.

    Args:
        backbone: The CLIP.
        photograph: A file, or a picture.
        texts: T texts.
        methods: Names as in ``xai=NAME``, or explainers with settings of their own.
        kind: ``cosine``, ``dot`` or ``logit``.
        contrast: Explain each text's margin over the mean of the others instead of its similarity alone.

    Raises:
        UserError: A method is unknown or not defined on this tower, or the photograph cannot be read.
    """
    chosen = [_method(method) for method in methods]
    picture = as_rgb(photograph) if isinstance(photograph, Image.Image) else read_image(Path(photograph))
    target = (ContrastTarget if contrast else SimilarityTarget).from_texts(backbone, texts, kind)
    pixels = backbone.preprocess(picture)[None].to(next(backbone.parameters()).device)
    geometry = backbone.preprocess.geometry(picture.width, picture.height)
    found = [one.with_geometry([geometry]) for one in explain_together(chosen, backbone, pixels, target)]
    answer = Answer(target.score_name, [None] * len(texts), found, [method.settings for method in chosen])
    name = "photograph" if isinstance(photograph, Image.Image) else Path(photograph).name
    return Explanations(found, assemble(picture, geometry, [answer], name=name))


def _method(method: str | Explainer) -> Explainer:
    if isinstance(method, Explainer):
        return method
    if method not in METHODS:
        raise UserError(f"there is no explainer {method!r}; choose of {', '.join(METHODS)}")
    return METHODS[method]()
