"""Commands of training that take several processes or runs, typed as a user types them, on a small data set."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.jobs.test_commands import home, newest, typed, works

__all__ = ["home"]
pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "extending" / "examples"
FAST = "debug=fast logger=csv callbacks.progress_bar=false"


def metrics(run_dir: Path) -> dict[str, float]:
    return json.loads((run_dir / "metrics.json").read_text())


def test_two_processes_train_what_one_trains(home: Path) -> None:
    whole = f"{FAST} trainer.limit_val_batches=null"  # a number of batches is one on each device
    works(home, f"python train.py {whole} trainer=cpu")
    [alone] = newest(home, "train")
    works(home, f"python train.py {whole} trainer=ddp trainer.accelerator=cpu trainer.length_bucket=null")
    [together] = newest(home, "train")
    assert together != alone
    assert metrics(together)["val/loss"] == pytest.approx(metrics(alone)["val/loss"], rel=1e-5)
    weights = load_file(together / "export" / "model.safetensors")
    for key, value in load_file(alone / "export" / "model.safetensors").items():
        # Adam's first steps make much of little: where a gradient is next to rounding, so is its share of a weight.
        assert (weights[key] - value).norm() <= 1e-3 * value.norm(), key


@pytest.mark.parametrize("launcher", ["", "launcher=joblib", "launcher=submitit_local"])
def test_launchers_run_a_sweep(home: Path, launcher: str) -> None:
    (home / "own" / "experiment").mkdir(parents=True, exist_ok=True)
    # A number in the user's own YAML, and a mapper of the user's own, read in the launcher's processes.
    (home / "own" / "experiment" / "mine.yaml").write_text("# @package _global_\ndefaults: [override /stage: 1]\n")
    shutil.copy(EXAMPLES / "my_mapper.py", home)
    own = "plugins=[my_mapper] mapper=one_layer mapper.prefix_length=2,3"
    done = works(home, f"python train.py --config-dir own -m {launcher} {FAST} experiment=mine {own}")
    runs = [path for path in newest(home, "train", 3) if not path.name.startswith(".")][-2:]
    written = [json.loads((run / "export" / "config.json").read_text())["settings"] for run in runs]
    assert {one["mapper"] for one in written} == {"one_layer"}, done.stdout
    assert {one["mapper_settings"]["prefix_length"] for one in written} == {2, 3}
    assert all((run / "export" / "model.safetensors").is_file() for run in runs)


def test_a_search_goes_on_where_it_stopped(home: Path) -> None:
    command = f"python train.py hparams_search=optuna {FAST} hparams_search.startup_trials=2"
    works(home, f"{command} hparams_search.trials=2")
    [first] = newest(home, "train")
    assert {path.name for path in first.glob("trial_*")} == {"trial_000", "trial_001"}
    works(home, f"{command} hparams_search.trials=3")
    [second] = newest(home, "train")
    assert {path.name for path in second.glob("trial_*")} == {"trial_002"}
    found = json.loads((second / "search.json").read_text())
    assert found["trials"] == 3
    values = [metrics(path)["val/loss"] for run in (first, second) for path in run.glob("trial_*")]
    assert found["best_value"] == pytest.approx(min(values))


def test_a_backbone_is_trained_by_contrast_and_taken_up(home: Path) -> None:
    works(home, f"python train.py stage=0 {FAST} stage.learning_rate=1e-4")
    [contrasted] = newest(home, "train")
    assert metrics(contrasted)["val/loss"] != metrics(contrasted)["val/loss before"]
    weights = contrasted / "backbone" / "model.safetensors"
    works(home, f"python train.py stage=1 {FAST} backbone.pretrained={weights}")
    [run_dir] = newest(home, "train")
    named = json.loads((run_dir / "export" / "config.json").read_text())
    assert named["settings"]["backbone"]["pretrained"] == str(weights)


def test_four_photographs_are_learnt_by_heart(home: Path) -> None:
    works(home, "python train.py debug=overfit logger=csv callbacks.progress_bar=false")
    [run_dir] = newest(home, "train")
    with (run_dir / "csv" / "sample_captions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert all(row["caption"] == row["reference"] for row in rows)


def test_adapters_are_added_to_a_stage_1_without_them_and_the_time_is_profiled(home: Path) -> None:
    works(home, f"python train.py {FAST} trainer.profiler=simple")
    [run_dir] = newest(home, "train")
    assert "run_training_epoch" in next(run_dir.glob("*profile*.txt")).read_text()
    works(home, f"python train.py experiment=adapters stage=2 {FAST}")
    [adapted] = newest(home, "train")
    before = load_file(run_dir / "export" / "model.safetensors")
    after = load_file(adapted / "export" / "model.safetensors")
    base = "language_model.transformer.h.0.attn.c_attn"
    assert torch.equal(after[f"{base}.base_layer.weight"], before[f"{base}.weight"])
    assert any("lora_B" in key and value.abs().sum() > 0 for key, value in after.items())


def test_an_unknown_monitor_is_one_line(home: Path) -> None:
    done = typed(home, f"python train.py {FAST} callbacks.monitor=val/lss")
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1 and "callbacks.monitor=val/lss is not measured; choose one of val/loss" in lines[-1]


def test_what_stage_2_forgets_is_measured_in_every_way(home: Path) -> None:
    done = works(home, "python -m clip_xai.studies.forgetting debug=fast trainer=cpu")
    rows = [line for line in done.stdout.splitlines() if "replay" in line]
    assert len(rows) == 4, done.stdout
    for row in rows:
        *_, before, after, forgotten = row.split()
        assert float(after) - float(before) == pytest.approx(float(forgotten), abs=1.1e-3)
