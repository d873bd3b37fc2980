from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from clip_xai.data.record import Record
from clip_xai.metrics.results import Comparison, EvaluationResult, MetricInfo, Score
from clip_xai.metrics.verdicts import verdicts
from clip_xai.report.demo_page import Link, read_curves, write_index
from clip_xai.report.evaluation_page import write_evaluation_page
from clip_xai.report.pages import Table, script_json
from clip_xai.runs.notes import rendered_note
from tests.report.planted import HOSTILE, photograph

RECORD = Record(Path("a.jpg"), "ddi", "a.jpg", "1", None, None, "A nevus.", ("A nevus.",))
METRICS = (
    MetricInfo("bleu", "BLEU", 1, span=(0.0, 100.0)),
    MetricInfo("diagnosis", "diagnosis"),
    MetricInfo("diagnosis_answered", "diagnosis answered", judged=False),
)
VALUES = {
    "model": (78.0, 0.85, 0.98),
    "blind": (40.0, 0.3, 1.0),
    "nearest": (60.0, 0.5, 1.0),
    "shuffled": (0.69, 0.2, 1.0),
}


@pytest.fixture()
def result() -> EvaluationResult:
    scores, comparisons = [], []
    for scope in ("overall", "ham10000", HOSTILE):
        for system, values in VALUES.items():
            for metric, value in zip(METRICS, values, strict=True):
                nan = scope == HOSTILE
                low, high = (float("nan"), float("nan")) if nan else (value * 0.9, value * 1.1)
                scores.append(Score(system, scope, metric.key, 90, 60, value, low, high))
                if system != "model":
                    gap = VALUES["model"][METRICS.index(metric)] - value
                    comparisons.append(Comparison(system, scope, metric.key, 90, 60, gap, gap - 0.1, gap + 0.1))
    return EvaluationResult(
        verdicts=verdicts(comparisons, METRICS),
        scores=tuple(scores),
        comparisons=tuple(comparisons),
        metrics=METRICS,
        systems=tuple(VALUES),
        scopes=("overall", "ham10000", HOSTILE),
        skipped={"BERTScore": "no scorer was chosen"},
        settings={"BLEU": "nrefs:3|case:mixed"},
        set_aside={HOSTILE: "truncated"},
    )


@pytest.fixture()
def examples(tmp_path):
    photograph().save(tmp_path / "photo.jpg")
    common = {"image": tmp_path / "photo.jpg", "source": "ham10000", "references": ["A melanoma.", "Melanoma."]}
    captions = {"model": HOSTILE, "blind": "A nevus."}
    return [
        {**common, "name": HOSTILE, "captions": captions, "diagnosis_true": "melanoma", "diagnosis_read": "nevus",
         "scores": {"bleu": 10.0, "diagnosis": 0.0, "diagnosis_answered": 1.0}},
        {**common, "name": "b.jpg", "captions": captions, "diagnosis_true": "melanoma", "diagnosis_read": "melanoma",
         "scores": {"bleu": 90.0, "diagnosis": 1.0, "diagnosis_answered": 1.0}},
        {**common, "name": "c.jpg", "captions": captions, "diagnosis_true": "melanoma", "diagnosis_read": None,
         "scores": {"bleu": 9.0, "diagnosis": 0.0, "diagnosis_answered": 0.0}},
        {**common, "name": "d.jpg", "captions": captions, "diagnosis_true": None, "diagnosis_read": "melanoma",
         "scores": {"bleu": 9.0, "diagnosis": None, "diagnosis_answered": None}},
    ]  # fmt: skip


def test_the_verdict_stands_on_top_and_every_number_below(tmp_path, result, examples):
    text = write_evaluation_page(result, examples, tmp_path / "index.html").read_text()
    assert text.index("beats a caption that never saw the image") < text.index("<h2>")
    for cell in ("78.0 [70.2, 85.8]", "0.850 [0.765, 0.935]", "0.200 [0.180, 0.220]"):
        assert cell in text
    for words in ("no scorer was chosen", "nrefs:3|case:mixed", "truncated", "not a medical device"):
        assert words in text


def test_bars_are_as_long_as_their_values(tmp_path, result, examples):
    text = write_evaluation_page(result, examples, tmp_path / "index.html").read_text()
    widths = [float(width) for width in re.findall(r'class="fill"[^>]*width="([\d.]+)"', text)]
    # A BLEU of .69 of 100 fills .69 % of its bar.
    assert widths == [780.0, 400.0, 600.0, 6.9, 850.0, 300.0, 500.0, 200.0]
    low = replace(result, scores=tuple(replace(s, value=0.69, low=0.1, high=0.9) for s in result.scores[:1]))
    text = write_evaluation_page(low, examples, tmp_path / "low.html").read_text()
    assert re.findall(r'class="fill"[^>]*width="([\d.]+)"', text) == ["6.9"]


def test_chips_say_right_wrong_and_unsaid(tmp_path, result, examples):
    text = write_evaluation_page(result, examples, tmp_path / "index.html").read_text()
    assert "✗ diagnosis: nevus, truly melanoma" in text
    assert "✓ diagnosis<" in text and "– diagnosis not stated<" in text
    assert "? diagnosis: truth not known<" in text and text.count("✓") == 1
    assert text.count('<article class="all-right"') == 2


def test_rendered_photographs_are_said_to_be_before_any_verdict(tmp_path, result, examples):
    [record] = [replace(RECORD, rendered=True)]
    said = rendered_note([record, record])["rendered"]
    assert said == "All photographs are rendered, of no person: numbers on them say nothing of real photographs."
    assert rendered_note([record, RECORD])["rendered"].startswith("1 of 2 photographs is rendered")
    assert rendered_note([RECORD]) == {}
    drawn = replace(result, settings={**result.settings, "rendered": said})
    text = write_evaluation_page(drawn, examples, tmp_path / "index.html").read_text()
    assert text.index(said) < text.index('class="verdicts"')
    assert drawn.to_markdown().index("of no person") < drawn.to_markdown().index(result.verdicts[0].text[:20])
    assert 'alt="Photograph b.jpg"' in text  # what the model wrote is no description of a photograph


def test_a_colour_means_the_same_on_every_axis(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text("step,val/loss,train/loss,val/common_loss\n0,3,,1\n1,2,2.5,2\n2,1,2,3\n")
    loss, common = read_curves(file, "Stage 2")
    assert (loss.title, common.title) == ("Stage 2: loss", "Stage 2: common loss")
    colours = {line.name: curve.colour(line) for curve in (loss, common) for line in curve.lines}
    assert colours["val/loss"] == colours["val/common_loss"] != colours["train/loss"]


def test_pages_escape_everything(tmp_path, result, examples):
    text = write_evaluation_page(result, examples, tmp_path / "index.html").read_text()
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text


def test_the_front_page_links_relatively_and_draws_the_curves(tmp_path):
    target = tmp_path / "explain me" / "index.html"
    target.parent.mkdir()
    target.write_text("x")
    csv = tmp_path / "metrics.csv"
    csv.write_text("epoch,step,train/loss,val/loss\n0,10,2.0,\n0,20,,1.5\n1,30,1.0,\n1,40,,0.5\n")
    curves = read_curves(csv, "Stage 1")
    (curve,) = curves
    assert [line.name for line in curve.lines] == ["train/loss", "val/loss"]
    assert curve.path(curve.lines[0]) == "0.0,0.0 666.7,200.0"
    assert curve.path(curve.lines[1]) == "333.3,100.0 1000.0,300.0"
    table = Table("Localisation", ("method", "AUPRC"), (("Grad-ECLIP", "0.61"),))
    page = tmp_path / "index.html"
    write_index(page, [Link("Explanations", HOSTILE, target)], tables=[table], curves=curves)
    text = page.read_text()
    assert 'href="explain%20me/index.html"' in text and "<script" not in text
    assert "0.61" in text and "Stage 1: loss" in text


def test_the_front_page_refuses_a_dead_link(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        write_index(tmp_path / "index.html", [Link("Nothing", "", tmp_path / "gone.html")])


def test_json_cannot_close_its_script_element():
    assert str(script_json({"a": "</script><!--&"})) == r'{"a":"\u003c/script\u003e\u003c!--\u0026"}'
