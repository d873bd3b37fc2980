"""Prepare a data set: ``python -m clip_xai.jobs.prepare [data=...]`` says what was kept, left out and why."""

from __future__ import annotations

import sys
from pathlib import Path

from clip_xai.config.cli import compose_job, report_errors
from clip_xai.data.report import summary
from clip_xai.runs.records import prepare_manifest


def main(arguments: list[str]) -> None:
    """Prepare the data set that the settings of ``train`` name."""
    with report_errors("train"):
        print(*summary(prepare_manifest(compose_job("train", arguments, Path("runs")).data)), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
