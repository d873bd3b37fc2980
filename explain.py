"""Explain a captioner: python explain.py xai=gradeclip (--help for everything else)."""

from __future__ import annotations

from pathlib import Path

from clip_xai.config.cli import run_job

if __name__ == "__main__":
    run_job("explain", Path(__file__).parent / "conf")
