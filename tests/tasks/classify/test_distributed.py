"""Two processes of the command train, judge and export what one process does with the whole batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clip_xai.training.checkpoint_files import read_checkpoint
from tests.support.processes import environment_of_no_launcher, without_keys
from tests.support.small_classes import BRIEF, VIT, of_data, read, table_of_labels

ROOT = Path(__file__).resolve().parents[3]
# 19 photographs train in steps of 7, 6 and 6; 9 validate: no number is a multiple of the processes.
PHOTOGRAPHS, BATCH = 37, 8
FROZEN = ("task.head=attention_pool", "stage.epochs=3")
FINE = ("stage.trains=[head,image]", "stage.unfreeze=[1,2]", "task.layer_decay=0.7", "stage.epochs=3")
PROCESSES = ("trainer.strategy=ddp", "trainer.devices=2")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table_of_labels(tmp_path_factory.mktemp("data") / "labelled", PHOTOGRAPHS)


def ran(root: Path, run_dir: Path, *more: str) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Run the command; return the last weights and what was measured with them."""
    asked = [
        "task=classify", *BRIEF, *of_data(root), *VIT, f"stage.batch_size={BATCH}", "callbacks.progress_bar=false",
        "stage.learning_rate=0.01", f"hydra.run.dir={run_dir}", *more,
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *asked],
        cwd=run_dir.parent,
        env=environment_of_no_launcher() | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    content = read_checkpoint(run_dir / "checkpoints" / "last.ckpt")
    return content["state_dict"], content["measured"]


@pytest.mark.slow
@pytest.mark.parametrize("told", [FROZEN, FINE])
def test_two_processes_equal_one_with_the_whole_batch(table: Path, tmp_path: Path, told: tuple[str, ...]) -> None:
    weights, measured = ran(table, tmp_path / "one", *told)
    shared, also = ran(table, tmp_path / "two", *told, *PROCESSES)
    assert shared.keys() == weights.keys()
    for key, value in weights.items():
        torch.testing.assert_close(
            without_keys(key, shared[key]), without_keys(key, value), atol=2e-5, rtol=1e-4, msg=key
        )
    assert set(measured) == {"val/loss", "val/auroc"} and also == pytest.approx(measured, rel=1e-4)
    one, two = (read(tmp_path / name / "export" / "config.json") for name in ("one", "two"))
    assert one["settings"] == two["settings"]
