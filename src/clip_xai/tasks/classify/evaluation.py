"""Classify photographs, and judge that beside what it has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray

from clip_xai.config.schemas import EvaluateConfig
from clip_xai.data.images import UnreadableImageError
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.files import replacing, write_json, write_text
from clip_xai.metrics.class_results import ClassificationResult
from clip_xai.metrics.classification import evaluate_classes
from clip_xai.metrics.shortcuts import ShortcutAudit, shortcut
from clip_xai.models.backbones.classifier import VisionClassifier
from clip_xai.progress import track
from clip_xai.report.classification_page import write_classification_page
from clip_xai.report.terminal import show
from clip_xai.runs.directories import claim, code_digest
from clip_xai.runs.judged import Judged, asked_of_data, asked_of_model, noted_of_model
from clip_xai.runs.notes import data_notes, few_steps, training_records
from clip_xai.runs.records import evenly
from clip_xai.tasks.classify.attributes import attributes_of, known_of
from clip_xai.tasks.classify.labels import Question, group_words, say_left_out
from clip_xai.tasks.classify.opened import fingerprints_of, open_classifier
from clip_xai.tasks.task import Judgement
from clip_xai.text import counted

EXAMPLES = 24


def evaluate(config: EvaluateConfig, on: Judged) -> Judgement:
    """Judge a trained classifier; write ``predictions.parquet``, ``metrics.json``, ``evaluation.md``, ``index.html``.

    Args:
        config: All settings.
        on: The classifier and the photographs.

    Raises:
        UserError: No photograph can be read or states what is classified, or the directory holds something else.
    """
    _refuse_settings_of_captions(config)
    classifier, settings = open_classifier(on.place)
    device = Fabric(accelerator=config.trainer.accelerator, devices=1).device
    classifier.to(device)
    run_dir = Path(config.run_dir)
    claim(run_dir, "evaluate", asked_of_evaluation(config, on, classifier), noted_of_model(on.place))
    question = Question(settings.classes, settings.multilabel, settings.of, settings.uncertain)
    answered = question.answered(on.records)
    say_left_out(question, config.split, on.records, answered)
    if not answered:
        raise UserError(f"split={config.split}: no photograph states any of {', '.join(settings.classes)}")
    logits, unreadable = classified(classifier, answered, config.trainer.feature_batch_size)
    records = [record for record in answered if record.image not in unreadable]
    if not records:
        raise UserError(
            f"none of {counted(len(answered), 'photograph')} can be read: {next(iter(unreadable.values()), '')}"
        )
    train = question.answered(training_records(on))
    truth = question.truth(records)
    result = evaluate_classes(
        logits,
        truth,
        settings.classes,
        [record.group for record in records],
        multiple=settings.multilabel,
        train=question.truth(train) if train else None,
        sources=[record.source for record in records],
        train_sources=[record.source for record in train] if train else None,
        notes={
            "classifier": str(on.place),
            "classifier's fingerprint": classifier.fingerprint[:12],
            **data_notes(config, on, records),
        },
        cautions=few_steps(on.place),
        group_words=group_words(settings.of, on.data.vocabulary),
        set_aside={f"{r.source}/{r.name}": unreadable[r.image] for r in answered if r.image in unreadable},
        samples=config.bootstrap,
        seed=config.seed,
    )
    result = result.with_shortcuts(*audits(config, records, logits, truth, settings.classes))
    probabilities = probabilities_of(logits, settings.multilabel)
    metrics = write_evaluation(result, records, truth, probabilities, settings.classes, run_dir)
    show(result, run_dir)
    summary = {f"{config.split}/{key}": value for key, value in result.summary().items()}
    return Judgement(metrics, summary)


@torch.inference_mode()
def classified(
    classifier: VisionClassifier, records: Sequence[Record], batch_size: int
) -> tuple[NDArray[np.float64], dict[Path, str]]:
    """Return the logits ``[n, C]`` of the records whose photographs can be read, and why the others cannot."""
    device = next(classifier.parameters()).device
    unreadable: dict[Path, str] = {}
    found: list[NDArray[np.float64]] = []
    for start in track(range(0, len(records), batch_size), "Classifying"):
        pixels = []
        for record in records[start : start + batch_size]:
            try:
                pixels.append(classifier.preprocess.read(record.image))
            except UnreadableImageError as error:
                unreadable[record.image] = str(error)
        if pixels:
            found.append(classifier.logits(torch.stack(pixels).to(device)).double().cpu().numpy())
    return np.concatenate(found) if found else np.empty((0, len(classifier.classes))), unreadable


def probabilities_of(logits: NDArray[np.float64], multilabel: bool) -> NDArray[np.float64]:
    """Return each class's probability ``[n, C]``: of labels one by one, of one class together."""
    values = torch.from_numpy(logits)
    return (values.sigmoid() if multilabel else values.softmax(dim=1)).numpy()


def audits(
    config: EvaluateConfig,
    records: Sequence[Record],
    logits: NDArray[np.float64],
    truth: NDArray[np.float32],
    classes: Sequence[str],
) -> list[ShortcutAudit]:
    """Return what each named field of the records, or column of the table, has to do with the labels.

    Raises:
        UserError: No photograph has such a field, or all have the same.
    """
    if not config.shortcuts:
        if config.attributes is not None:
            raise UserError("attributes= is a table for shortcuts=[...]: name its columns there, or leave it out")
        return []
    known = known_of(records, config.attributes)
    groups = [record.group for record in records]
    found = []
    for name in config.shortcuts:
        for attribute, column in attributes_of(known, name).items():
            how = {"samples": config.bootstrap, "seed": config.seed}
            found.append(shortcut(logits, truth, classes, column, groups, attribute, **how))
    return found


def asked_of_evaluation(config: EvaluateConfig, on: Judged, classifier: VisionClassifier) -> dict[str, Any]:
    """What decides the numbers of an evaluation."""
    return {
        "settings": {name: getattr(config, name) for name in ("split", "bootstrap", "seed", "shortcuts", "attributes")},
        **asked_of_model(on.place, fingerprints_of(classifier)),
        **asked_of_data(on.data, on.manifest),
        "code": code_digest("data", "models", "metrics"),
    }


def write_evaluation(
    result: ClassificationResult,
    records: Sequence[Record],
    truth: NDArray[np.float32],
    probabilities: NDArray[np.float64],
    classes: Sequence[str],
    run_dir: Path,
) -> dict[str, Any]:
    """Write the tables and the page of an evaluation; return what ``metrics.json`` holds."""
    run_dir.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame({key: [getattr(record, key) for record in records] for key in ("name", "source", "group")})
    columns: dict[str, Any] = {f"true {name}": truth[:, index] for index, name in enumerate(classes)}
    columns |= {f"probability of {name}": probabilities[:, index] for index, name in enumerate(classes)}
    with replacing(run_dir / "predictions.parquet") as unfinished:
        pd.concat([table, pd.DataFrame(columns)], axis=1).to_parquet(unfinished, index=False)
    metrics = result.to_dict()
    write_json(run_dir / "metrics.json", metrics)
    write_text(run_dir / "evaluation.md", result.to_markdown())
    chosen = evenly(range(len(records)), EXAMPLES)
    write_classification_page(
        result,
        [example(records[row], truth[row], probabilities[row], classes) for row in chosen],
        run_dir / "index.html",
    )
    return metrics


def example(
    record: Record, truth: NDArray[np.float32], probabilities: NDArray[np.float64], classes: Sequence[str]
) -> dict[str, Any]:
    """What the page shows of one photograph."""
    return {
        "image": record.image,
        "name": record.name,
        "source": record.shown_source,
        "group": record.group,
        "truth": {name: None if np.isnan(value) else bool(value) for name, value in zip(classes, truth, strict=True)},
        "probabilities": dict(zip(classes, map(float, probabilities), strict=True)),
    }


def _refuse_settings_of_captions(config: EvaluateConfig) -> None:
    """Refuse what is of captions and would be passed over."""
    defaults = {item.name: item.default for item in fields(EvaluateConfig)}
    for name in ("bert_score", "tokenizer", "clip_score"):
        if getattr(config, name) != defaults[name]:
            raise UserError(f"{name}= is of captions, and this model classifies: leave it out")
