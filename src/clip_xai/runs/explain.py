"""The job ``explain``: what on the photograph, and in the text, is behind each word and each similarity.

A run directory holds ``index.html``, ``cards/*.png``, ``metrics.json``, the raw attributions, one file a photograph,
target and method (``attributions/0001_NAME/caption.gradeclip.safetensors``), and ``attributions.parquet``, which lists
every single map in them. Numpy alone reads them::

    from safetensors.numpy import load_file
    row = pandas.read_parquet("attributions.parquet").iloc[0]
    values = load_file(row.file)["values"][0, row.row]       # [h, w], raw and signed

A map covers the box (left, top, right, bottom), in pixels of the photograph, which is what the model saw of it.
"""

from __future__ import annotations

import glob
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from clip_xai.data.images import read_image, read_mask
from clip_xai.data.preprocess import Geometry
from clip_xai.data.record import Record
from clip_xai.data.vocabulary import read_diagnosis
from clip_xai.errors import UserError
from clip_xai.models.backbones.base import Backbone
from clip_xai.models.captioner import Caption, Captioner, Decoding
from clip_xai.progress import track
from clip_xai.report.assemble import Answer, assemble
from clip_xai.report.cards import write_card
from clip_xai.report.explained import LOG_PROBABILITY, POOLED_NOTE, ExplainedImage, slug
from clip_xai.report.html import write_explanations
from clip_xai.report.wandb_tables import EXPLANATION_COLUMNS, explanation_rows
from clip_xai.runs.config import ExplainConfig
from clip_xai.runs.instantiate import decoding, device_of, explainers, open_captioner
from clip_xai.runs.lesion_maps import LesionMaps
from clip_xai.runs.loggers import log_metrics, log_table, open_loggers
from clip_xai.runs.records import evenly, load_records
from clip_xai.xai.explainer import Explainer, explain_together
from clip_xai.xai.target import CaptionTarget, SimilarityTarget, Target
from clip_xai.xai.words import Word

log = logging.getLogger(__name__)
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"}
WHOLE_CAPTION = "whole caption"


@dataclass(frozen=True)
class Photograph:
    """One photograph to explain, with what is known about it."""

    path: Path
    name: str
    mask: Path | None = None
    group: str = ""
    references: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Record) -> Photograph:
        """The photograph of a record."""
        facts = {"source": record.source, "diagnosis": record.diagnosis or "", "view": record.view}
        shown = {key: value for key, value in facts.items() if value}
        return cls(record.image, record.name, record.mask, record.group, record.references, shown)


@dataclass(frozen=True)
class Question:
    """What is asked of each photograph.

    Attributes:
        names: ``caption``: the log-probability of each word of the generated caption, of the diagnosis it states and of
            the whole; ``similarity``: between the photograph and a text.
        kind: The similarity: ``cosine``, ``dot`` or ``logit``.
        text: The text; None for the generated caption.
    """

    names: tuple[str, ...] = ("caption", "similarity")
    kind: str = "cosine"
    text: str | None = None


@dataclass
class Explained:
    """What a run found out.

    Attributes:
        images: What is shown of each photograph.
        cards: The card of each.
        rows: One dictionary for each map and each row of words: the rows of ``attributions.parquet``.
        problems: One line for each photograph or target that could not be explained.
        lesions: Maps and lesion masks, for localisation.
    """

    images: list[ExplainedImage] = field(default_factory=list)
    cards: list[Path] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    lesions: LesionMaps = field(default_factory=LesionMaps)


def explain(config: ExplainConfig) -> dict[str, Any]:
    """Explain photographs with a trained captioner; see the module for what is written.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        UserError: There is no checkpoint or no photograph, or not one photograph could be explained.
    """
    started = time.perf_counter()
    captioner = open_captioner(config.ckpt, config.runs_root).to(device_of(config.trainer))
    photographs = chosen_photographs(config)
    run_dir = Path(config.run_dir)
    found = explain_photographs(
        captioner.backbone,
        captioner,
        photographs,
        explainers(config.xai),
        Question(tuple(config.target.names), config.target.kind, config.text),
        run_dir,
        decoding(config.generation),
    )
    subtitle = f"{len(found.images)} photographs · backbone {captioner.backbone.name} · checkpoint {config.ckpt}"
    metrics = write_explained(found, run_dir, subtitle, config.seed)
    metrics |= {"photographs": len(photographs), "seconds": round(time.perf_counter() - started, 1)}
    (run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with open_loggers(config.logger, run_dir, "explain", asdict(config)) as loggers:
        log_metrics(loggers, {"explained": metrics["explained"], "problems": len(metrics["problems"])})
        tables = [explanation_rows(image, card) for image, card in zip(found.images, found.cards, strict=True)]
        log_table(loggers, "explanations", EXPLANATION_COLUMNS, [row for rows in tables for row in rows])
    log.info("report: %s", run_dir / "index.html")
    return metrics


def chosen_photographs(config: ExplainConfig) -> list[Photograph]:
    """The photographs that ``image=`` names (a file, a folder, a pattern), else records of the data set.

    Raises:
        UserError: Nothing is there.
    """
    if config.image is None:
        records = evenly(load_records(config.data, config.split), config.samples)
        return [Photograph.of(record) for record in records]
    place = Path(config.image)
    if place.is_dir():
        paths = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES)
    elif place.is_file():
        paths = [place]
    else:
        paths = sorted(Path(path) for path in glob.glob(config.image, recursive=True) if Path(path).is_file())
    if not paths:
        raise UserError(f"image={config.image}: no photograph there; give a file, a folder of photographs or a pattern")
    return [Photograph(path, path.name, group=path.name) for path in paths]


def explain_photographs(
    backbone: Backbone,
    captioner: Captioner | None,
    photographs: Sequence[Photograph],
    methods: Sequence[Explainer],
    question: Question,
    output: Path,
    decoding: Decoding | None = None,
) -> Explained:
    """Explain photographs one by one and write the raw attributions and the card of each as soon as it is done.

    Args:
        backbone: The tower.
        captioner: The captioner; None where only the similarity to a given text is asked.
        photographs: What is explained.
        methods: The explainers; those that read a trace share one pass for each target.
        question: What is asked.
        output: The run directory.
        decoding: How captions are decoded.

    Raises:
        UserError: The question needs a captioner and there is none, or not one photograph could be explained.
    """
    if captioner is None and ("caption" in question.names or question.text is None):
        raise UserError("without a captioner only target=similarity with text=... can be explained")
    (output / "cards").mkdir(parents=True, exist_ok=True)
    found = Explained()
    for number, photograph in enumerate(track(photographs, "Explaining photographs"), start=1):
        try:
            _explain_one(number, photograph, backbone, captioner, methods, question, output, decoding, found)
        except UserError as error:
            found.problems.append(f"{photograph.name}: {error}")
            log.warning("%s: %s", photograph.name, error)
    if not found.images:
        raise UserError(f"none of {len(photographs)} photographs could be explained; {found.problems[0]}")
    return found


def write_explained(found: Explained, run_dir: Path, subtitle: str, seed: int = 0) -> dict[str, Any]:
    """Write the index of the raw attributions and the page; return the numbers of the run."""
    pd.DataFrame(found.rows).to_parquet(run_dir / "attributions.parquet", index=False)
    localised = found.lesions.measure(seed)
    write_explanations(
        found.images,
        run_dir / "index.html",
        title="Explanations",
        subtitle=subtitle,
        problems=found.problems,
        table=found.lesions.table(localised),
    )
    return {"explained": len(found.images), "problems": found.problems, "localisation": localised}


def _explain_one(
    number: int, photograph: Photograph, backbone: Backbone, captioner: Captioner | None,
    methods: Sequence[Explainer], question: Question, output: Path, decoding: Decoding | None, found: Explained,
) -> None:  # fmt: skip
    picture = read_image(photograph.path)
    mask = _mask_of(photograph, picture)
    geometry = backbone.preprocess.geometry(picture.width, picture.height)
    pixels = backbone.preprocess(picture)[None].to(next(backbone.parameters()).device)
    caption = _caption(captioner, pixels, decoding) if captioner is not None else None
    folder = Path("attributions") / f"{number:04d}_{slug(photograph.path.stem)}"
    (output / folder).mkdir(parents=True, exist_ok=True)
    answers: list[Answer] = []
    rows: list[dict[str, Any]] = []
    for name in question.names:
        target, spans = _target(name, backbone, captioner, caption, question)
        attributions = [
            attribution.with_geometry([geometry]) for attribution in explain_together(methods, backbone, pixels, target)
        ]
        notes = (POOLED_NOTE,) if name == "caption" and target.reads == "pooled" else ()
        score_name = LOG_PROBABILITY if name == "caption" else question.kind
        answer = Answer(score_name, spans, attributions, [method.settings for method in methods], notes)
        for attribution in attributions:
            file = folder / f"{name}.{attribution.method}.safetensors"
            attribution.save(output / file)
            rows += _index_rows(photograph, file, answer, attribution, geometry)
        answers.append(answer)
    measurements = {}
    if mask is not None:
        measurements = found.lesions.add(
            backbone, picture, geometry, mask, answers, photograph.group or photograph.name
        )
    image = assemble(
        picture,
        geometry,
        answers,
        name=photograph.name,
        caption=None if caption is None else caption.text,
        references=photograph.references,
        mask=mask,
        facts=photograph.facts,
        measurements=measurements,
    )
    found.cards.append(write_card(image, output / "cards" / f"{folder.name}.png"))
    found.images.append(image)
    found.rows += rows


def _mask_of(photograph: Photograph, picture: Image.Image) -> NDArray[np.bool_] | None:
    if photograph.mask is None:
        return None
    mask = read_mask(photograph.mask)
    if mask.shape != (picture.height, picture.width):
        raise UserError(f"the mask {photograph.mask.name} is {mask.shape}, the photograph {picture.size[::-1]}")
    return mask


def _caption(captioner: Captioner, pixels: Tensor, decoding: Decoding | None) -> Caption:
    with torch.no_grad():
        return captioner.generate(captioner.read(pixels), decoding)[0]


def _target(
    name: str, backbone: Backbone, captioner: Captioner | None, caption: Caption | None, question: Question
) -> tuple[Target, list[tuple[int, int] | None]]:
    """The target, and where each of its scores stands in the generated caption."""
    if name == "caption":
        assert captioner is not None and caption is not None
        return caption_target(captioner, caption.token_ids)
    text = question.text if question.text is not None else (caption.text if caption is not None else "")
    if not text.strip():
        raise UserError("the generated caption is empty; train the captioner further, or give text=...")
    return SimilarityTarget.from_texts(backbone, [text], question.kind), [None]


def caption_target(
    captioner: Captioner, token_ids: Sequence[int]
) -> tuple[CaptionTarget, list[tuple[int, int] | None]]:
    """The words of a caption, the diagnosis it states (where it states one) and the whole, as one target.

    Returns:
        The target, and the characters of each word; None for the diagnosis and the whole.
    """
    words = CaptionTarget.words(captioner, token_ids).caption_words()
    parts = [word.tokens for word in words]
    labels = [word.text for word in words]
    spans: list[tuple[int, int] | None] = [(word.start, word.end) for word in words]
    text = captioner.tokenizer.decode(token_ids)
    stated = diagnosis_words(text, words)
    if stated:
        parts.append(tuple(token for word in stated for token in word.tokens))
        labels.append(f"diagnosis: {text[stated[0].start : stated[-1].end]}")
        spans.append(None)
    parts.append(tuple(range(len(token_ids))))
    labels.append(WHOLE_CAPTION)
    spans.append(None)
    return CaptionTarget(captioner, token_ids, parts, labels), spans


def diagnosis_words(text: str, words: Sequence[Word]) -> list[Word]:
    """The fewest neighbouring words that state the same diagnosis as the whole text; none where it states none."""
    diagnosis = read_diagnosis(text)
    if diagnosis is None:
        return []
    for length in range(1, len(words) + 1):
        for first in range(len(words) - length + 1):
            run = list(words[first : first + length])
            if read_diagnosis(text[run[0].start : run[-1].end]) == diagnosis:
                return run
    return list(words)


def _index_rows(
    photograph: Photograph, file: Path, answer: Answer, attribution: Any, geometry: Geometry
) -> list[dict[str, Any]]:
    """One row for each of the T maps (or rows of words) of a file."""
    common = {
        "image": photograph.name,
        "file": file.as_posix(),
        "method": attribution.method,
        "kind": attribution.kind,
        "text_dependent": attribution.text_dependent,
        "settings": json.dumps(dict(attribution.settings), ensure_ascii=False),
        **asdict(geometry),
    }
    return [
        {
            **common,
            "row": row,
            "label": item.label,
            "score": item.score,
            "score_name": item.score_name,
            "start": None if item.span is None else item.span[0],
            "end": None if item.span is None else item.span[1],
            "shape": list(attribution.values.shape[2:]),
            "tokens": None if attribution.tokens is None else list(attribution.tokens[row]),
        }
        for row, item in enumerate(answer.items)
    ]
