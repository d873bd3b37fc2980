"""The study of planted shortcuts: it goes on where it stopped to the same numbers, and says what it does not do."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch

from clip_xai.config.cli import compose_job
from clip_xai.config.schemas import ExplainConfig
from clip_xai.errors import UserError
from clip_xai.explanations.shortcuts_beside import FILE, save_tables, tables_beside
from clip_xai.models.captioner import Captioner
from clip_xai.report.pages import Table
from clip_xai.studies.shortcuts import Start, StudySettings, estimate, settings_of, study
from clip_xai.xai.methods import GradCam
from clip_xai.xai.targets.similarity import CutTextWarning
from tests.explanations.causes.test_shortcuts import captioner  # noqa: F401  a fixture


def settings(run_dir: Path) -> StudySettings:
    return StudySettings(scenes=12, training=8, epochs=1, first_epochs=1, artefacts=("letter",), run_dir=str(run_dir))


@pytest.mark.slow
def test_a_study_that_was_stopped_goes_on_to_the_same_numbers(captioner: Captioner, tmp_path: Path) -> None:  # noqa: F811
    torch.manual_seed(0)
    run_dir = tmp_path / "run"
    config: ExplainConfig = compose_job(
        "explain", ["xai=gradcam", "trainer=cpu", "generation=greedy", "generation.max_new_tokens=6"], run_dir
    )
    place = tmp_path / "model"
    place.mkdir()
    start = Start(captioner, "a small captioner", {"tower": "1234"}, place)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutTextWarning)
        metrics, text = study(settings(run_dir), start, [GradCam()], config)
        of_letter = run_dir / "seed_0" / "letter"
        (of_letter / "captioners" / "0.5.safetensors").unlink()
        for number in (3, 7):
            (of_letter / "scenes" / f"{number:06d}.json").unlink()
        again, _ = study(settings(run_dir), start, [GradCam()], config)
        with pytest.raises(UserError, match="epochs"):
            other = settings(run_dir)
            other.epochs = 2
            study(other, start, [GradCam()], config)
    assert json.dumps(again) == json.dumps(metrics)
    found = metrics["artefacts"]["letter"]
    assert found["scenes"] == 12 and len(found["captioners"]) == 6
    assert "Letter: does the captioner cheat?" in text and "Grad-CAM" in text
    scenes, maps = (pd.read_parquet(run_dir / f"{name}.parquet") for name in ("scenes", "maps"))
    assert len(scenes) == 6 * 12 and len(maps[maps["method"] == "gradcam"]) == 6 * 12
    summary = pd.read_csv(run_dir / "shortcuts.csv")
    of_method = summary[(summary["method"] == "gradcam") & (summary["heat"] == "absolute") & (summary["p"] == 0.8)]
    own = maps[maps["method"] == "gradcam"].pivot(index="scene", columns=["p", "again"], values="absolute")
    rise = own[0.8, False] - (own[0.0, False] + own[0.0, True]) / 2
    assert of_method["rise"].item() == pytest.approx(rise.mean())
    page = (run_dir / "index.html").read_text(encoding="utf-8")
    assert "Letter: one scene" in page and page.count("<figure>") == 3  # the scene, and a map at p = 0 and at 1
    kept = tables_beside(place, {"tower": "1234"})
    assert [table.title for table in kept] == ["Letter: does the captioner cheat?", "Letter: which methods show it"]
    shutil.rmtree(place)


def test_tables_beside_another_model_are_not_shown(tmp_path: Path) -> None:
    table = Table("A title", ("one", "two"), (("1", "2"),), "A note.")
    save_tables(tmp_path, {"tower": "1"}, [table])
    assert tables_beside(tmp_path, {"tower": "1"}) == [table]
    assert tables_beside(tmp_path, {"tower": "2"}) == []
    (tmp_path / FILE).write_text("{", encoding="utf-8")
    assert tables_beside(tmp_path, {"tower": "1"}) == [] == tables_beside(tmp_path / "nothing", {"tower": "1"})


def test_settings_are_read_as_they_are_typed() -> None:
    typed = [
        "scenes=20",
        "seeds=[1, 2]",
        "artefacts=[ruler,dark_corner]",
        "unclear=.25",
        "xai=[gradcam,rise]",
        "ckpt=x",
    ]
    found, rest = settings_of(typed)
    assert (found.scenes, found.seeds, found.artefacts) == (20, (1, 2), ("ruler", "dark corners"))
    assert found.unclear == 0.25 and rest == ["xai=[gradcam,rise]", "ckpt=x"]
    for wrong, said in {
        "scene=3": "choose one of scenes", "scenes=few": "whole number", "scenes=[1,2]": "one whole number",
        "scenes=3": "scenes", "artefacts=[stamp]": "choose one of ruler", "seeds=[1,1]": "different",
        "unclear=2": "unclear", "unclear=much": "unclear=.5",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=said):
            settings_of([wrong])


def test_what_is_going_to_be_done_is_said_before(captioner: Captioner) -> None:  # noqa: F811
    chosen = StudySettings(scenes=12, training=64, epochs=2, seeds=(0, 1), artefacts=("ruler", "ink"))
    said = estimate(chosen, Start(captioner, "", {}, Path("model")), [GradCam()])
    assert said.startswith("2 artefacts, 2 seeds: ") and f"{4 * (3 * 64 + 8 * 12):,}".replace(",", "") in said.replace(
        ",", ""
    )
    assert f"{4 * 2 * 6 * 2} training steps" in said and "minutes" not in said
    assert "minutes" in estimate(chosen, Start(captioner, "", {}), [GradCam()])
