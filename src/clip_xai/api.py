"""From Python in a few lines: a model by its name, photographs and texts in, pictures out; a finished run read back.

The same objects are what the command line composes.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from clip_xai.data.images import as_rgb, check_shape, read_image
from clip_xai.data.preprocess import Geometry
from clip_xai.errors import UserError
from clip_xai.explanations.explanation_job import ExplanationJob
from clip_xai.explanations.photographs import Photograph
from clip_xai.explanations.store import Result, ResultStore
from clip_xai.files import replacing
from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.catalogue import CATALOGUE
from clip_xai.models.backbones.classifier import VisionClassifier
from clip_xai.models.backbones.clip import with_texts
from clip_xai.models.backbones.module_tower import wrapped_classifier as wrap_classifier
from clip_xai.models.captioner import Captioner
from clip_xai.models.settings import Decoding
from clip_xai.report.assemble import Answer, assemble
from clip_xai.report.cards import draw_card
from clip_xai.report.explained import ExplainedImage
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.explainer import Explainer, defined_for, explain_apart, explainers
from clip_xai.xai.target import ClassifierTarget, ContrastTarget, SimilarityTarget, Target
from clip_xai.xai.targets.question import CAPTION_PARTS, Question
from clip_xai.xai.targets.similarity import KINDS

__all__ = ["Explanations", "Run", "explain", "load_backbone", "read_run", "wrap_classifier"]

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
        """Write the card.

        Raises:
            UserError: The name has no ending of a picture, or its directory does not exist.
        """
        place = Path(path).expanduser()
        if place.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
            raise UserError(f"{place}: a card is written as .png, .jpg or .webp: give its file such an ending")
        if not place.parent.is_dir():
            raise UserError(f"{place}: there is no directory {place.parent}: make it first")
        with replacing(place) as unfinished:
            self.picture().save(unfinished)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.picture().save(buffer, "PNG")
        return buffer.getvalue()


def load_backbone(
    name: str = "tiny",
    pretrained: str | Path | None = PUBLISHED,
    *,
    architecture: str | None = None,
    image_size: int | None = None,
    num_classes: int | None = None,
    classes: str | Path | None = None,
) -> VisionBackbone:
    """Build a CLIP, or a classifier, by its name.

    Args:
        name: As in ``backbone=NAME``; ``hf`` for a folder of transformers', ``open_clip`` for any other CLIP,
            ``timm`` and ``torchvision`` for classifiers.
        pretrained: ``published``: where its publisher keeps the weights (``tiny`` has them in the package); otherwise
            a hub name, a folder, a file, or None for random weights.
        architecture: A model name of open_clip, timm or torchvision, in the place of the one that the name stands for.
        image_size: Side of the input in pixels if it is not the tower's own.
        num_classes: Number of classes of a classifier at random weights.
        classes: File with the name of one class a line.

    Raises:
        UserError: The name is unknown, or the weights are nowhere to be had.
    """
    if image_size is not None and (isinstance(image_size, bool) or not isinstance(image_size, int)):
        raise UserError(f"image_size={image_size!r}: give a whole number of pixels")
    if name not in CATALOGUE:
        raise UserError(f"there is no backbone {name!r}; choose one of {', '.join(CATALOGUE)}")
    entry = CATALOGUE[name]
    place = entry.pretrained if pretrained == PUBLISHED else pretrained
    chosen = architecture or entry.architecture
    return build_backbone(
        name,
        chosen,
        None if place is None else os.path.expanduser(str(place)),
        image_size=image_size,
        library=entry.library,
        num_classes=num_classes,
        classes=None if classes is None else os.path.expanduser(str(classes)),
    )


def explain(
    model: VisionBackbone | Captioner,
    photograph: str | Path | Image.Image | np.ndarray,
    texts: str | Sequence[str] | None = None,
    methods: str | Explainer | Sequence[str | Explainer] = ("gradeclip",),
    *,
    kind: str | None = None,
    contrast: bool = False,
    classes: str | int | Sequence[str | int] = (),
    decoding: Decoding | None = None,
) -> Explanations:
    """Explain what on a photograph makes it similar to some texts, or what is behind the words of its caption.

    A method that is not defined here, or fails, is left out and named in a warning and on the card.

    Args:
        model: A CLIP, a classifier, or a captioner such as :func:`~clip_xai.models.export.from_pretrained` gives.
        photograph: A file, a picture (turned as its EXIF says), or its values ``[H, W]``, ``[H, W, 3]`` or
            ``[H, W, 4]``: 8-bit, or floats from 0 to 1.
        texts: One text or T of them. None for a captioner's own caption: its words, the diagnosis and the whole.
        methods: A name as in ``xai=NAME``, an explainer with settings of its own, or several.
        kind: ``cosine`` (the default), ``dot`` or ``logit``; of a classifier ``logit`` (the default), ``margin`` or
            ``log_probability``.
        contrast: Explain each text's margin over the mean of the others instead of its similarity alone.
        classes: Of a classifier, names or numbers of its classes; none for the likeliest.
        decoding: How a captioner decodes; None for how captions are evaluated.

    Raises:
        UserError: There is nothing to explain, no method answers, or the photograph cannot be read.
    """
    chosen = [_method(one) for one in _several(methods)]
    if not chosen:
        raise UserError(f"name at least one method: {', '.join(explainers)}")
    if kind is not None and kind not in KINDS:
        raise UserError(f"kind={kind!r}: choose one of {', '.join(KINDS)}")
    captioner = model if isinstance(model, Captioner) else None
    backbone = captioner.backbone if captioner is not None else model
    if not isinstance(backbone, VisionBackbone):
        raise UserError(f"explain takes a CLIP or a captioner first, not a {type(model).__name__}: see load_backbone")
    asked = None if texts is None else _several(texts)
    classifier = isinstance(backbone, VisionClassifier)
    if asked is None and captioner is None and not classifier:
        raise UserError(
            "a CLIP by itself needs a text to compare with, or several: explain(backbone, photograph, texts)"
        )
    if asked is not None and not (asked and all(map(_is_text, asked))):
        raise UserError(f"texts={texts!r}: give one text or several, none of them blank")
    picture, name = _picture(photograph)
    geometry = backbone.preprocess.geometry(picture.width, picture.height)
    if classes != () and not classifier:
        raise UserError(f"classes={classes!r} are of a classifier, and backbone {backbone.name} is none: give texts")
    if asked is None and captioner is not None:
        place = Path(photograph) if isinstance(photograph, str | Path) else None
        return _caption(captioner, chosen, picture, place or Path(name), geometry, decoding)
    pixels = backbone.preprocess(picture)[None].to(next(backbone.parameters()).device)
    target: Target
    if asked is None:
        named = [classes] if isinstance(classes, str | int) else list(classes)
        target = ClassifierTarget.of(backbone, named, kind or "logit", pixels)
    else:
        of_texts = ContrastTarget if contrast else SimilarityTarget
        target = of_texts.from_texts(with_texts(backbone), asked, kind or "cosine")
    able, refused = defined_for(chosen, backbone, target)
    able, found, failed = explain_apart(able, backbone, pixels, target)
    left_out = [*(f"{reason}." for reason in refused), *failed]
    found = [one.with_geometry([geometry]) for one in found]
    settings = [method.settings for method in able]
    answer = Answer(target.score_name, [None] * len(target.labels), found, settings, target.notes, tuple(left_out))
    if not found:
        raise UserError(" ".join(left_out))
    return _explanations(found, assemble(picture, geometry, [answer], name=name))


def _caption(
    captioner: Captioner,
    methods: list[Explainer],
    picture: Image.Image,
    place: Path,
    geometry: Geometry,
    decoding: Decoding | None,
) -> Explanations:
    """Explain a captioner's caption, by what the command does of each photograph."""
    job = ExplanationJob(captioner.backbone, captioner, methods, Question(CAPTION_PARTS), decoding)
    preprocess = captioner.backbone.preprocess
    # A file is read as for evaluation, at reduced size, so that its caption is the evaluated one.
    pixels = preprocess.read(place) if place.is_file() else preprocess(picture)
    pixels = pixels[None].to(next(captioner.parameters()).device)
    result = job.result_of(Photograph(place, place.name), pixels, geometry)
    answers = list(result.answers.values())
    found = [one for answer in answers for one in answer.attributions]
    facts = result.photograph.facts
    return _explanations(
        found,
        assemble(
            picture,
            geometry,
            answers,
            name=place.name,
            caption=result.caption,
            facts=facts,
            warning=result.photograph.warning,
        ),
    )


def _explanations(found: list[Attribution], shown: ExplainedImage) -> Explanations:
    for reason in shown.left_out:
        warnings.warn(reason, stacklevel=3)
    return Explanations(found, shown)


def _is_text(text: Any) -> bool:
    """Whether something is a text that can be read; half of a pair of surrogates cannot."""
    return isinstance(text, str) and bool(text.strip()) and text == text.encode("utf-8", "ignore").decode()


def _several(given: Any) -> list[Any]:
    """Return what was given as a list; one is one, a text no list of its letters, a mapping no list of its keys."""
    listed = isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping | type)
    return list(given) if listed else [given]


def _picture(photograph: str | Path | Image.Image | np.ndarray) -> tuple[Image.Image, str]:
    """Return a photograph upright, in RGB, and its name."""
    if isinstance(photograph, str | Path):
        return read_image(Path(photograph).expanduser()), Path(photograph).name
    if isinstance(photograph, Image.Image):
        name = Path(str(getattr(photograph, "filename", "") or "photograph")).name
        try:
            check_shape(*photograph.size)
            return as_rgb(ImageOps.exif_transpose(photograph)), name
        except (OSError, ValueError) as error:
            raise UserError(f"the picture cannot be read: {error}") from error
    if not isinstance(photograph, np.ndarray):
        kind = type(photograph).__name__
        raise UserError(f"a photograph is a path, a picture or an array [H, W, 3], not a {kind}")
    values = photograph
    if values.dtype.kind == "f" and values.size and values.min() >= 0 and values.max() <= 1:
        values = np.round(values * 255).astype(np.uint8)
    if values.dtype != np.uint8 or not values.size or not (values.ndim == 2 or values.shape[2:] in ((3,), (4,))):
        raise UserError(
            f"an array of {photograph.dtype} {photograph.shape} is not a photograph: give 8-bit values, or floats "
            "from 0 to 1, in the shape [H, W], [H, W, 3] or [H, W, 4]"
        )
    return _picture(Image.fromarray(values))


def _method(method: Any) -> Explainer:
    if isinstance(method, Explainer):
        return method
    if isinstance(method, type) and issubclass(method, Explainer):
        return method()
    if not isinstance(method, str):
        raise UserError(f"there is no explainer {method!r}; choose one of {', '.join(explainers)}")
    return explainers.named(method)()


@dataclass(frozen=True)
class Run:
    """A run of explanations, read back.

    Attributes:
        results: One a photograph: its caption, and for each question an answer with the raw maps.
        maps: All maps one after the other, each with its method, labels, scores and place on the photograph.
        scores: One row for each photograph and thing that was asked: ``image``, ``question``, ``label``, ``score``.
        table: ``attributions.parquet``: one row for each map.
    """

    results: list[Result]
    maps: list[Attribution]
    scores: pd.DataFrame
    table: pd.DataFrame


def read_run(directory: str | Path) -> Run:
    """Read what ``explain.py`` wrote into a run directory.

    Raises:
        UserError: There is no finished run of explanations.
    """
    place = Path(directory)
    index = place / "attributions.parquet"
    if not index.is_file():
        raise UserError(f"{place} holds no finished run of explanations (no {index.name}): name its run directory")
    results = [result for _, result in ResultStore(place).results()]
    rows = [
        {"image": result.photograph.name, "question": name, "label": item.label, "score": item.score}
        for result in results
        for name, answer in result.answers.items()
        for item in answer.items
    ]
    maps = [one for result in results for answer in result.answers.values() for one in answer.attributions]
    return Run(results, maps, pd.DataFrame(rows), pd.read_parquet(index))
