"""What ``--help`` prints. Hydra's own text copies its whole configuration for every group that it lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import hydra
from omegaconf import OmegaConf

from clip_xai.config.plugins import options_of
from clip_xai.config.refusals import groups_of

TEXT = """{what}

Choose an option of a group with GROUP=OPTION, and change a setting with GROUP.SETTING=VALUE.

== Groups (GROUP=OPTION) ==

{groups}

== Settings (GROUP.SETTING=VALUE) ==

{settings}
--config-dir DIR adds groups and options of your own, -m A=1,2 runs a sweep, --cfg job prints the settings alone, and
--hydra-help says what else Hydra does.
"""
WHAT = {
    "train": "Train a captioner or its backbone: stage=contrastive (or 0), adaptation (1) or language (2).",
    "evaluate": "Judge a captioner: ckpt=latest, a run directory, a checkpoint or an exported model.",
    "explain": 'Explain a captioner, or a CLIP by itself: backbone=dermlip image=photo.jpg text="words to look for".',
}


def help_text(job: str, folders: Sequence[Path], overrides: Sequence[str]) -> str:
    """The groups of a job with their options, and its settings as the overrides leave them.

    Args:
        job: ``train``, ``evaluate`` or ``explain``.
        folders: The directories of YAML files, that of the job first.
        overrides: As Hydra reads them.
    """
    with hydra.initialize_config_dir(str(folders[0]), version_base="1.3"):
        settings = OmegaConf.to_yaml(hydra.compose(job, list(overrides)))
    lines = []
    for group in sorted(groups_of(folders[0] / f"{job}.yaml") - {"hydra"}):
        files = {file.stem for folder in folders for file in (folder / group).glob("*.yaml")}
        options = sorted(files | set(options_of(group)))
        if options:
            lines.append(f"{group}: {', '.join(options)}")
    return TEXT.format(what=WHAT[job], groups="\n".join(lines), settings=settings)
