"""Two processes over gloo train what one process trains on the same steps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clip_xai.training.checkpoint_files import read_checkpoint
from tests.support.processes import environment_of_no_launcher, without_keys

ROOT = Path(__file__).resolve().parents[2]


def trained(
    directory: Path, what: str, strategy: str, devices: int
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.distributed", str(directory), what, strategy, str(devices)],
        cwd=ROOT,
        env=environment_of_no_launcher() | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    name = f"{what}_{strategy}_{devices}"
    state = read_checkpoint(directory / name / "last.ckpt")["state_dict"]
    return state, torch.load(directory / f"{name}.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize(("what", "strategies"), [("caption", ["ddp", "fsdp"]), ("contrast", ["ddp"])])
def test_two_processes_equal_one_on_the_same_steps(tmp_path: Path, what: str, strategies: list[str]) -> None:
    weights, measured = trained(tmp_path, what, "auto", 1)
    for strategy in strategies:
        shared, also = trained(tmp_path, what, strategy, 2)
        assert shared.keys() == weights.keys()
        for key, value in weights.items():
            torch.testing.assert_close(
                without_keys(key, shared[key]), without_keys(key, value), atol=2e-5, rtol=1e-4, msg=f"{strategy}: {key}"
            )
        assert also == pytest.approx(measured, rel=1e-4)
