"""Two processes over gloo train what one process trains on the same steps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clip_xai.training.checkpoint_files import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]


def trained(
    directory: Path, what: str, strategy: str, devices: int
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("LOCAL_", "GLOBAL_", "NODE_", "MASTER_", "WORLD_", "RANK", "PL_"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.distributed", str(directory), what, strategy, str(devices)],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    name = f"{what}_{strategy}_{devices}"
    state = read_checkpoint(directory / name / "last.ckpt")["state_dict"]
    return state, torch.load(directory / f"{name}.pt", weights_only=True)


def without_keys(bias: torch.Tensor) -> torch.Tensor:
    """The biases of queries and values, of those of queries, keys and values."""
    query, _, value = bias.chunk(3)
    return torch.cat([query, value])


@pytest.mark.slow
@pytest.mark.parametrize(("what", "strategies"), [("caption", ["ddp", "fsdp"]), ("contrast", ["ddp"])])
def test_two_processes_equal_one_on_the_same_steps(tmp_path: Path, what: str, strategies: list[str]) -> None:
    weights, measured = trained(tmp_path, what, "auto", 1)
    for strategy in strategies:
        shared, also = trained(tmp_path, what, strategy, 2)
        assert shared.keys() == weights.keys()
        for key, value in weights.items():
            if key.endswith("in_proj_bias"):
                # A key's bias moves all products of a query alike, which softmax does not see: its gradient is
                # rounding alone, and Adam makes whole steps of it.
                shared[key], value = (without_keys(bias) for bias in (shared[key], value))
            torch.testing.assert_close(shared[key], value, atol=2e-5, rtol=1e-4, msg=f"{strategy}: {key}")
        assert also == pytest.approx(measured, rel=1e-4)
