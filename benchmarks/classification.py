"""What Lightning costs a classifier: python -m benchmarks.classification [--rounds 9] [--photographs 128].

An epoch of the task's own module, with augmentation, schedule, clipping, loggers and checkpoints, against a bare
PyTorch loop with the same loader, model, loss and optimiser. The sides take turns, epoch by epoch, in one run. The
ratio of time is the median over the rounds, with a 95 % interval of it from resampled rounds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from benchmarks.common import machine, markdown
from benchmarks.training import Clock, step
from clip_xai.data.record import Record
from clip_xai.models.backbones.backbone_builder import BackboneSource, build_backbone
from clip_xai.models.classifier_weights import ClassifierSettings, put_head_on
from clip_xai.tasks.classify.data import LabelData, LabelDataset
from clip_xai.tasks.classify.module import ClassifierModule
from clip_xai.tasks.classify.plan import ClassifierPlan
from clip_xai.training.optimisation import Optimisation
from clip_xai.training.trainer import quiet_lightning

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIDE, CLASSES, TARGET = 64, 4, 1.15


class Drawn:
    """Pixels of noise that stay in memory, as photographs do that were read once."""

    def __init__(self, count: int) -> None:
        """Draw them."""
        self.pixels = torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))

    def stack(self, images: Sequence[Path]) -> Tensor:
        """Return pixels ``[B, 3, S, S]``."""
        return torch.stack([self.pixels[int(image.stem)] for image in images])


def module_of(architecture: str) -> ClassifierModule:
    """Return a classifier whose tower trains."""
    torch.manual_seed(0)
    source = BackboneSource("timm", architecture, image_size=SIDE, library="timm", text=False, crop_pct=1.0)
    settings = ClassifierSettings(source, tuple(f"class {number}" for number in range(CLASSES)), False)
    classifier = put_head_on(build_backbone(**vars(source)), settings).to(DEVICE)
    return ClassifierModule(classifier, settings, Optimisation(learning_rate=1e-3), ClassifierPlan(["head", "image"]))


def fine_tuning(architecture: str, rounds: int, count: int, batch_size: int) -> str:
    """Lightning against the bare loop, as a table."""
    records = [Record(Path(f"{number}.png"), "s", "n", str(number), None, None, "", ()) for number in range(count)]
    truth = np.eye(CLASSES, dtype=np.float32)[np.arange(count) % CLASSES]
    held = LabelDataset(records, truth, Drawn(count))
    data = LabelData(
        held, LabelDataset(records[:8], truth[:8], held.images), batch_size=batch_size, multilabel=False, seed=0
    )
    loader = LabelData(held, held, batch_size=batch_size, multilabel=False, seed=0).train_dataloader()
    module, twin = module_of(architecture), module_of(architecture)
    model = twin.backbone
    twin.plan._thaw(model, twin.plan.trained(model, 0))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3)

    def bare() -> None:
        for batch in loader:
            pixels, wanted = batch["read"].to(DEVICE), batch["truth"].to(DEVICE)
            step(F.cross_entropy(model.logits(pixels), wanted.argmax(1)), optimiser, trained)

    clock = Clock(bare)
    with tempfile.TemporaryDirectory() as folder, quiet_lightning():
        Trainer(
            accelerator="auto", devices=1, max_epochs=rounds + 1, gradient_clip_val=1.0, num_sanity_val_steps=0,
            logger=CSVLogger(folder), callbacks=[module.plan, clock, ModelCheckpoint(folder, monitor="val/loss")],
            enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=10,
        ).fit(module, datamodule=data)  # fmt: skip
    # The first round warms up.
    ratios = np.array(clock.lightning_seconds[1:]) / np.array(clock.bare_seconds[1:])
    middle, low, high = median_interval(ratios)
    rows = [
        ["bare PyTorch loop", count / float(np.median(clock.bare_seconds[1:])), "1"],
        [
            "Lightning, validation included",
            count / float(np.median(clock.lightning_seconds[1:])),
            f"{middle:.3f} [{low:.3f}, {high:.3f}]",
        ],
    ]
    title = f"An epoch of {architecture}, {count} photographs at {SIDE} pixels by {batch_size}"
    said = f"{'within' if middle <= TARGET else 'above'} {TARGET} times the bare loop, median of {len(ratios)} rounds"
    return markdown(title, ["loop", "photographs/s", "time, bare = 1"], rows) + f"\n{said}\n"


def median_interval(ratios: np.ndarray, samples: int = 2000) -> tuple[float, float, float]:
    """Return the median of ratios and its 95 % interval from resampled rounds."""
    drawn = np.random.default_rng(0).choice(ratios, (samples, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", nargs="+", default=["test_resnet", "resnet18"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--photographs", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    told = parser.parse_args()
    print(machine(), "\n")
    for architecture in told.architectures:
        print(fine_tuning(architecture, told.rounds, told.photographs, told.batch_size))


if __name__ == "__main__":
    main()
