"""Trains a few steps on one or two processes and writes what came out; a program of its own, as its processes are.

python -m tests.training.distributed DIRECTORY caption|contrast auto|ddp|fsdp DEVICES
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from PIL import Image
from torch import nn

from clip_xai.data.record import Record
from clip_xai.tasks.captions.contrastive_module import ContrastiveModule, PairData
from clip_xai.tasks.captions.data import CaptionData
from clip_xai.tasks.captions.module import CaptionerModule
from clip_xai.tasks.captions.unfreezing import Unfreezing
from clip_xai.training.features import FeatureCache
from clip_xai.training.optimisation import Optimisation
from clip_xai.training.tower_plan import TowerPlan
from tests.support.small_captioner import COLOURS, SETTINGS, small_captioner


def pictures(directory: Path) -> list[Record]:
    """Twelve photographs of two sources with captions of different lengths."""
    directory.mkdir(parents=True, exist_ok=True)
    records = []
    for index in range(12):
        name, colour = list(COLOURS.items())[index % 4]
        noise = np.random.default_rng(index).integers(0, 40, (30, 40, 3))
        image = directory / f"{index}.png"
        if not image.is_file():
            Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(image)
        references = (f"a {name} spot" + ", a spot" * (index % 3), f"a spot of {name}")
        source = "skincap" if index < 7 else "ham10000"
        records.append(Record(image, source, image.name, str(index), None, None, references[0], references))
    return records


def main(directory: Path, what: str, strategy: str, devices: int) -> None:
    """Train and write ``<what>_<strategy>_<devices>.pt``."""
    records = pictures(directory / "pictures")
    captioner = small_captioner()
    for part in captioner.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0  # each process draws its own
    plan: Any
    module: Any
    data: Any
    told = Optimisation(learning_rate=3e-3, label_smoothing=0.1, seed=9)
    if what == "caption":
        table = FeatureCache(directory / "cache", captioner.backbone).table([r.image for r in records], captioner.reads)
        data = CaptionData(
            captioner, table, records, records, batch_size=5, max_tokens=30, seed=5, sources=["skincap"], replay=0.6
        )
        plan = Unfreezing(["mapper", "embeddings"], {0: 1, 2: 2})
        module = CaptionerModule(captioner, SETTINGS, told, plan)
    else:
        data = PairData(captioner.backbone, records, records, batch_size=6, seed=5)
        plan = TowerPlan(["image", "text", "temperature"], {0: 1, 1: 2})
        module = ContrastiveModule(captioner.backbone, told, plan)
    strategies: dict[str, Any] = {
        "auto": "auto",
        "ddp": DDPStrategy(find_unused_parameters=True),
        "fsdp": ModelParallelStrategy(devices, 1, save_distributed_checkpoint=False),
    }
    name = f"{what}_{strategy}_{devices}"
    keeper = ModelCheckpoint(directory / name, "best", monitor="val/loss", save_last=True, enable_version_counter=False)
    trainer = Trainer(
        accelerator="cpu", devices=devices, strategy=strategies[strategy], max_epochs=3, logger=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, gradient_clip_val=1.0,
        use_distributed_sampler=False, callbacks=[plan, keeper],
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    if trainer.is_global_zero:
        measured = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
        torch.save(measured, directory / f"{name}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
