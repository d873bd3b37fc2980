"""Train a captioner: python train.py backbone=tiny stage=1 (--help for everything else)."""

from __future__ import annotations

from pathlib import Path

from clip_xai.config.cli import run_job

if __name__ == "__main__":
    run_job("train", Path(__file__).parent / "conf")
