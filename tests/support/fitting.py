"""A captioner's epochs without the job around them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning import Callback
from lightning.pytorch.loggers import Logger

from clip_xai.config.schemas import TrainConfig
from clip_xai.models.captioner import Captioner
from clip_xai.models.weights import CaptionerSettings
from clip_xai.runs.instantiate import decoding
from clip_xai.tasks.captions.callbacks import SCORES, ScoreCaptions, strategy_of
from clip_xai.tasks.captions.data import CaptionData
from clip_xai.tasks.captions.module import CaptionerModule
from clip_xai.tasks.captions.training import optimisation
from clip_xai.tasks.captions.unfreezing import Unfreezing
from clip_xai.training.trainer import build_trainer, run_epochs


def fit(
    captioner: Captioner,
    settings: CaptionerSettings,
    data: CaptionData,
    config: TrainConfig,
    loggers: Sequence[Logger],
    resumed: Path | None,
    extra: Sequence[Callback] = (),
) -> tuple[Path, float | None]:
    """Train a captioner that is built already; return its best checkpoint and ``val/common_loss`` before."""
    unfreezing = Unfreezing(config.stage.trains, dict(enumerate(config.stage.unfreeze)))
    module = CaptionerModule(captioner, settings, optimisation(config), unfreezing)
    told = config.callbacks
    scoring = [] if told.score_captions is None else [ScoreCaptions(data, told, decoding(config.generation))]
    every = (told.score_captions or 1) if told.monitor in SCORES else 1
    used = [unfreezing, *extra, *scoring]
    trainer, keeper = build_trainer(config, loggers, used, strategy_of(config, unfreezing), resumed, every)
    before = run_epochs(trainer, module, data, config, resumed, judge_first=data.common_set is not None)
    return keeper.best(), before.get("val/common_loss")
