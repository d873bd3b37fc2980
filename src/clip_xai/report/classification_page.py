"""The page of a classifier's evaluation: what its answers are worth, label by label, beside what they have to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from clip_xai.data.images import read_image
from clip_xai.metrics.class_results import Bin, ClassificationResult, LabelResult
from clip_xai.metrics.results import OVERALL, RENDERED
from clip_xai.report.evaluation_page import PHOTOGRAPH, Chip, plot_of, scope_table
from clip_xai.report.figures import data_uri, fitted
from clip_xai.report.pages import Table, write_page
from clip_xai.text import counted

PANELS = 24  # curves on the page
ROWS = 6  # labels under a photograph
SIDE = 200  # of a chart, in its own units


@dataclass(frozen=True)
class Panel:
    """One square chart from 0 to 1.

    Attributes:
        title: What it is of.
        note: A number on it.
        across: What runs to the right.
        line: Points of a line as SVG has them; empty without one.
        dots: Circles as x, y and radius.
    """

    title: str
    note: str
    across: str
    line: str = ""
    dots: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class Odds:
    """One label under a photograph: its probability, and whether it is present (None: not known)."""

    name: str
    text: str
    width: float
    present: bool | None


@dataclass(frozen=True)
class ClassExample:
    """One photograph of the gallery with its answers."""

    name: str
    source: str
    photograph: str
    chips: tuple[Chip, ...]
    rows: tuple[Odds, ...]
    more: str
    wrong: bool


def write_classification_page(
    result: ClassificationResult,
    examples: Sequence[Mapping[str, Any]],
    path: Path,
    figures: Mapping[str, Image.Image] | None = None,
) -> Path:
    """Write the page of a classifier: verdicts, measures beside the baselines, labels, curves, photographs, notes.

    Args:
        result: A finished evaluation.
        examples: For each photograph of the gallery ``image`` (path), ``name``, ``source``, ``truth`` (by label: 1
            present, 0 absent, None or NaN not known) and ``probabilities`` (by label).
        path: Where to write, usually ``index.html``.
        figures: Further pictures by their titles.
    """
    judged = [metric for metric in result.metrics if metric.judged]
    measures = scope_table(result, OVERALL)
    head, rows = result.label_table()
    ranked = [one for one in result.labels if one.roc]
    shown = sorted(ranked, key=lambda one: -one.positives)[:PANELS]
    classes = [one.name for one in result.labels]
    return write_page(
        "classification.html.j2",
        path,
        title="Evaluation of a classifier",
        subtitle=f"{counted(result.photographs, 'photograph')}, {counted(len(classes), 'label')}"
        + (" of which several can be present at once" if result.multiple else ", one for each photograph"),
        notes=result.must_see,
        styles=("evaluation.css", "classification.css"),
        verdicts=result.verdicts,
        rendered=result.settings.get(RENDERED, ""),
        plots=[plot for metric in judged if (plot := plot_of(result, metric, OVERALL))],
        measures=Table("Measures", measures.head, measures.rows, measures.note),
        labels=Table("Labels", head, rows, "The model, value [95 % interval]; 'above .5' is corrected for all labels."),
        shortcuts=[_shortcut_table(result, number) for number in range(len(result.shortcuts))],
        reliability=_reliability(result, shown),
        curves=[_curve(result, one) for one in ranked if one in shown],
        curves_left=f"The {PANELS} labels that most photographs show." if len(ranked) > PANELS else "",
        confusion=[(name, _shares(row)) for name, row in zip(classes, result.confusion, strict=False)],
        classes=classes,
        figures=[(title, data_uri(picture, "PNG")) for title, picture in (figures or {}).items()],
        multiple=result.multiple,
        examples=[_example(result, example) for example in examples],
        skipped=result.skipped,
        left_out=result.left_out(),
        set_aside=result.set_aside,
        settings=result.settings,
        group_words=result.group_words,
    )


def _shortcut_table(result: ClassificationResult, number: int) -> Table:
    audit = result.shortcuts[number]
    head, rows = audit.table()
    note = (
        "AUROC of the model among all photographs and among those that agree in the attribute. A model that looks at "
        "the finding does not fall there; an attribute that goes with the severity of a finding lowers it, too."
    )
    left = "".join(f" {label} was not audited: {reason}." for label, reason in audit.left_out.items())
    return Table(f"Shortcut: {audit.attribute}", head, rows, note + left)


def _reliability(result: ClassificationResult, shown: Sequence[LabelResult]) -> list[Panel]:
    error = result.score("ece")
    note = "" if error is None else f"calibration error {error.value:.3f}"
    panels = [_bins("all labels" if result.multiple else "answers", note, result.reliability)]
    if result.multiple:
        for one in result.labels:
            score = result.label_score("ece", one.name)
            if one in shown and score is not None:
                panels.append(_bins(one.name, f"{score.value:.3f}", one.reliability))
    return panels


def _bins(title: str, note: str, bins: Sequence[Bin]) -> Panel:
    most = max((one.n for one in bins), default=1)
    points = [(SIDE * one.confidence, SIDE * (1 - one.share), 2 + 6 * (one.n / most) ** 0.5) for one in bins]
    dots = tuple((round(x, 1), round(y, 1), round(radius, 1)) for x, y, radius in points)
    return Panel(title, note, "probability", _line(dots), dots)


def _curve(result: ClassificationResult, label: LabelResult) -> Panel:
    score = result.label_score("auroc", label.name)
    points = [(SIDE * wrong, SIDE * (1 - right), 0.0) for wrong, right in label.roc]
    return Panel(label.name, "" if score is None else f"{score.value:.3f}", "false positives", _line(points))


def _line(points: Sequence[tuple[float, float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)


def _shares(row: Sequence[int]) -> list[dict[str, float]]:
    total = max(1, sum(row))
    return [{"count": count, "percent": round(100 * count / total)} for count in row]


def _example(result: ClassificationResult, example: Mapping[str, Any]) -> ClassExample:
    probabilities = {str(name): float(value) for name, value in example["probabilities"].items()}
    truth = {name: _state(example["truth"].get(name)) for name in probabilities}
    chips = _chips(probabilities, truth, result.multiple)
    # What is present is always shown, however little of it the model sees.
    order = sorted(probabilities, key=lambda name: (-probabilities[name], name))
    kept = [name for name in order if truth[name]]
    kept += [name for name in order if not truth[name]][: max(0, ROWS - len(kept))]
    left = len(order) - len(kept)
    return ClassExample(
        name=str(example["name"]),
        source=str(example["source"]),
        photograph=data_uri(fitted(read_image(example["image"]), PHOTOGRAPH, PHOTOGRAPH), quality=82),
        chips=chips,
        rows=tuple(
            Odds(name, f"{probabilities[name]:.2f}", round(1000 * probabilities[name], 1), truth[name])
            for name in order
            if name in kept
        ),
        more=f"{counted(left, 'label')} of lower probability not shown" if left else "",
        wrong=any(chip.kind == "wrong" for chip in chips),
    )


def _state(value: Any) -> bool | None:
    return None if value is None or value != value else bool(value)


def _chips(probabilities: Mapping[str, float], truth: Mapping[str, bool | None], multiple: bool) -> tuple[Chip, ...]:
    """Right or wrong: the class, or each label that is present or answered."""
    if not multiple:
        said = max(probabilities, key=lambda name: probabilities[name])
        true = next((name for name, present in truth.items() if present), None)
        if true is None:
            return (Chip(f"{said}: truth not known", "unknown"),)
        return (Chip(said, "right") if said == true else Chip(f"{said}, truly {true}", "wrong"),)
    chips = []
    for name, present in truth.items():
        said_so = probabilities[name] >= 0.5
        if present is None and said_so:
            chips.append(Chip(f"{name}: truth not known", "unknown"))
        elif present and said_so:
            chips.append(Chip(name, "right"))
        elif present is not None and present != said_so:
            chips.append(Chip(f"{name} {'missed' if present else 'is absent'}", "wrong"))
    if not chips and all(present is False for present in truth.values()):
        chips.append(Chip("no finding", "right"))
    return tuple(chips)
