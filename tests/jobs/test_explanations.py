"""``evaluate.py task=explanations``: from a trained run to tables and page, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from clip_xai.config.chosen import settings_typed
from clip_xai.config.protocol_settings import ProtocolConfig
from clip_xai.errors import UserError
from clip_xai.explanations.explainer_ranking import FILE
from clip_xai.explanations.gain_ranking import FILE as GAINS
from clip_xai.explanations.store import ResultStore
from clip_xai.jobs.evaluate import evaluate
from clip_xai.jobs.explain import explain
from clip_xai.jobs.train import train
from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.runs.instantiate import require_usable
from clip_xai.tasks.explanations.gathering import estimate
from clip_xai.tasks.task import tasks
from clip_xai.xai.explainer import explainers
from tests.support.small_runs import draw, of_data, settings

ASKED = (
    "task=explanations",
    "protocol.scenes=2",
    "protocol.samples=2",
    "protocol.several=1",
    "protocol.tones=1",
    "protocol.measured=1",
    "protocol.measures=[relevance_gain/token_drop,auprc]",
    "protocol.again_measures=[randomised]",
    "xai=[gradcam,saliency]",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs") / "train" / "skin"
    train(settings("train", place.parents[1], place, *of_data(root)))
    return place


def test_a_run_writes_tables_and_page(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = settings("evaluate", run.parents[1], tmp_path / "judged", f"ckpt={run}", *ASKED)
    metrics = evaluate(told)
    assert metrics == json.loads((tmp_path / "judged" / "metrics.json").read_text())
    assert metrics["counts"]["contrast"]["asked"] == 2 and set(metrics["seconds"]) == {"gradcam", "saliency"}
    maps = pd.read_parquet(tmp_path / "judged" / "maps.parquet")
    effects = pd.read_parquet(tmp_path / "judged" / "effects.parquet")
    weights = maps.groupby("method")["weights"].agg(lambda one: sorted(set(one)))
    assert weights["gradcam"] == ["random", "trained"] and weights["control: constant"] == ["none"]
    contrast = effects[effects["target"] == "contrast"]
    assert contrast["scene"].nunique() == 2 and contrast["effect"].notna().all()
    assert contrast["effect_anew"].isna().all()
    ranks = pd.read_csv(tmp_path / "judged" / "ranks.csv")
    assert {"agreement", "completeness"} & set(ranks["criterion"])
    assert "control: true effects" in set(ranks["method"])
    assert "Which explainer can be believed" in (tmp_path / "judged" / "index.html").read_text()
    choices = pd.read_parquet(tmp_path / "judged" / "choices.parquet")
    assert set(choices["kind"]) == {"several lesions", "mosaic"} and set(choices["weights"]) == {
        "trained", "random", "none",
    }  # fmt: skip
    assert {row["mechanism"] for row in metrics["mechanisms"]} == {"linear", "and", "or", "constant"}
    measured = pd.read_parquet(tmp_path / "judged" / "measured.parquet")
    assert set(measured["measure"]) == {"relevance_gain/token_drop", "auprc", "randomised"}
    assert measured["picture"].nunique() == 1 and {"saliency", "control: true effects"} <= set(measured["method"])
    summary = pd.read_csv(tmp_path / "judged" / "measures.csv")
    assert len(summary) == len(metrics["measures"]) and set(summary["weights"]) == {"trained", "random", "none"}
    page = (tmp_path / "judged" / "index.html").read_text()
    assert "Does the score follow the heat?" in page and "Places are replaced by token drop" in page
    curves = pd.read_parquet(tmp_path / "judged" / "curves.parquet")
    assert set(curves["removal"]) == {"token_drop"} and {"saliency", "control: constant"} <= set(curves["method"])
    assert all(
        (own["value"] == 0).any() for _, own in curves.groupby(["curve", "method", "label"])
    )  # the whole picture
    assert "Saliency" in capsys.readouterr().out
    assert (run / "export" / FILE).is_file()
    (tmp_path / "judged" / "scenes" / "000001.npz").unlink()  # as if it had been stopped in the second scene
    next((tmp_path / "judged" / "several").iterdir()).unlink()
    next((tmp_path / "judged" / "tones").iterdir()).unlink()
    again = evaluate(told)
    assert {**again, "seconds": None} == {**metrics, "seconds": None}


def test_xai_best_takes_what_was_judged_and_refuses_where_nothing_can_be_believed(run: Path, tmp_path: Path) -> None:
    evaluate(settings("evaluate", run.parents[1], tmp_path / "judged", f"ckpt={run}", *ASKED))
    file = run / "export" / FILE
    known = json.loads(file.read_text())
    asked = (f"ckpt={run}", "xai=best", "target=contrast", "text=melanoma", "target.against=[nevus]")
    with pytest.raises(UserError, match=r"xai=best: .*the contrast"):
        explain(settings("explain", run.parents[1], tmp_path / "no", *asked, "samples=1"))
    known["kinds"]["contrast"] = [_planted("saliency", 0.9), _planted("gradcam", 0.6)]
    file.write_text(json.dumps(known))
    explain(settings("explain", run.parents[1], tmp_path / "yes", *asked, "samples=1"))
    [(_, result)] = ResultStore(tmp_path / "yes").results()
    assert [one.method for one in result.answers["contrast"].attributions] == ["saliency"]
    file.unlink()  # nobody judged: by relevance gain on validation photographs, of which these data have two patients
    with pytest.raises(UserError, match="in the validation split are too few to choose by"):
        explain(settings("explain", run.parents[1], tmp_path / "few", *asked, "samples=1"))
    gains = run / "export" / GAINS
    gains.write_text(json.dumps({**known, "scenes": 32, "kinds": {"contrast": [_planted("gradcam", 0.9)]}}))
    explain(settings("explain", run.parents[1], tmp_path / "gains", *asked, "samples=1"))
    [(_, result)] = ResultStore(tmp_path / "gains").results()
    assert [one.method for one in result.answers["contrast"].attributions] == ["gradcam"]
    with pytest.raises(UserError, match="xai=best is of explain"):
        require_usable(settings("evaluate", run.parents[1], tmp_path / "w", f"ckpt={run}", *ASKED, "xai=best"))


def test_a_clip_by_itself_is_judged_on_the_contrast_and_writes_nothing_beside_any_model(tmp_path: Path) -> None:
    alone = ("backbone=tiny", *ASKED, "protocol.tones=0", "protocol.several=0", "protocol.measured=0")
    told = settings("evaluate", tmp_path / "runs", tmp_path / "judged", *alone)
    metrics = evaluate(told)
    assert set(metrics["counts"]) == {"contrast"} and metrics["counts"]["contrast"]["asked"] == 2
    tower = build_backbone("tiny", "tiny", "embedded:tiny")
    assert tower.fingerprint[:12] in metrics["model"] and "captioner" not in metrics["model"]
    effects = pd.read_parquet(tmp_path / "judged" / "effects.parquet")
    assert set(effects["target"]) == {"contrast"} and effects["effect"].abs().max() > 0
    assert not (tmp_path / "runs").exists() and not list(tmp_path.rglob(FILE))
    random = settings("evaluate", tmp_path / "runs", tmp_path / "judged", *alone, "backbone.pretrained=null")
    with pytest.raises(UserError, match="another directory"):  # other weights, into the same place
        evaluate(random)


def test_a_backbone_by_itself_is_refused_where_it_cannot_be_judged(tmp_path: Path) -> None:
    for overrides, reason in (
        (("backbone=tiny",), "add task=explanations"),
        (("backbone=tiny", "task=captions"), "task=captions judges trained models"),
        (("backbone=torchvision", "backbone.pretrained=null", *ASKED), "answers with labels"),
    ):
        with pytest.raises(UserError, match=reason):
            evaluate(settings("evaluate", tmp_path, tmp_path / "no", *overrides))
    for typed in ("ckpt=latest", "data=dermacap", "data.root=elsewhere", "generation=greedy"):
        told = settings("evaluate", tmp_path, tmp_path / "no", "backbone=tiny", *ASKED)
        with settings_typed([typed]), pytest.raises(UserError, match="backbone=NAME by itself does not use"):
            evaluate(told)


def test_what_is_left_is_said_from_the_first_scene() -> None:
    protocol = ProtocolConfig(name="full", scenes=300, several=60, tones=120)
    said = estimate(protocol, 99, 30.0, 5.0)  # 200 scenes, 120 pictures at two towers, 120 scenes on two skins
    assert said.startswith(f"protocol=full: about {(200 * 30 + 240 * 5 + 240 * 5) / 60:.0f} minutes at most are left")
    assert "200 more scenes, 120 pictures of several lesions and mosaics, 120 scenes in six tones" in said


def _planted(method: str, value: float) -> dict[str, object]:
    bounds = {"value": value, "low": value - 0.1, "high": value + 0.1}
    return {"method": method, "settings": explainers[method]().settings, "leads": True, "seconds": 1.0} | bounds


def test_what_it_does_not_read_is_refused_and_so_is_training(run: Path, root: Path, tmp_path: Path) -> None:
    told = settings("evaluate", run.parents[1], tmp_path / "judged", f"ckpt={run}", *ASKED)
    with (
        settings_typed(["clip_score=own"]),
        pytest.raises(UserError, match="task=explanations does not use clip_score"),
    ):
        evaluate(told)
    told = settings("evaluate", run.parents[1], tmp_path / "captions", f"ckpt={run}")
    with settings_typed(["protocol=full"]), pytest.raises(UserError, match="task=captions does not use protocol"):
        evaluate(told)
    task = tasks["explanations"]()
    with pytest.raises(UserError, match="trains nothing"):
        task.training(settings("train", tmp_path, tmp_path / "run", *of_data(root)))
    with pytest.raises(UserError, match="words alone"):
        evaluate(settings("evaluate", run.parents[1], tmp_path / "w", f"ckpt={run}", *ASKED, "xai=token_gradxinput"))
