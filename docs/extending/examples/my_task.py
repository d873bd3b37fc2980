"""A task: how bright a photograph is, told by its frozen embedding."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule, LightningModule
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from clip_xai.data.images import read_image
from clip_xai.errors import UserError
from clip_xai.files import write_json, write_text
from clip_xai.metrics.intervals import mean_interval
from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.models.reading import read_json
from clip_xai.runs.instantiate import feature_table
from clip_xai.tasks.task import Judgement, Opened, Task, Training, tasks
from clip_xai.training.checkpoint_files import read_checkpoint


def brightness(records: list[Any]) -> Tensor:
    """Return the mean grey value of each photograph, 0 to 1."""
    values = [np.asarray(read_image(one.image).convert("L")).mean() / 255 for one in records]
    return torch.tensor(values, dtype=torch.float32)[:, None]


class Regression(LightningModule):
    """A linear layer on the embedding, by least squares."""

    def __init__(self, width: int, rate: float) -> None:
        super().__init__()
        self.head, self.rate = nn.Linear(width, 1), rate

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """Return the mean squared error."""
        return nn.functional.mse_loss(self.head(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        """Log it."""
        self.log("val/loss", nn.functional.mse_loss(self.head(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        """Take AdamW."""
        return torch.optim.AdamW(self.parameters(), self.rate)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was measured: the best epoch is chosen by it."""
        checkpoint["measured"] = {key: float(value) for key, value in self.trainer.callback_metrics.items()}


class Batches(LightningDataModule):
    """Embeddings and their brightness."""

    def __init__(self, train: TensorDataset, val: TensorDataset, size: int) -> None:
        super().__init__()
        self.train, self.val, self.size = train, val, size

    def train_dataloader(self) -> Any:
        """Shuffled."""
        return DataLoader(self.train, self.size, shuffle=True)

    def val_dataloader(self) -> Any:
        """In order."""
        return DataLoader(self.val, self.size)


class BrightnessTraining(Training):
    """One training run."""

    product = Path("export") / "config.json"

    def __init__(self, config: Any) -> None:
        self.config, self.backbone = config, build_backbone(**vars(config.backbone))

    def prepare(self, start: Any) -> None:
        """Read features; see the base class for what must be there afterwards."""
        told = self.config = start.config
        table = feature_table(self.backbone, "pooled", start.train + start.val, told.data, told.trainer)
        self.set_aside = {str(path): reason for path, reason in table.unreadable.items()}
        kept = [[one for one in part if one.image in table.rows] for part in (start.train, start.val)]
        sets = [TensorDataset(table.stack([one.image for one in part]), brightness(part)) for part in kept]
        self.learned, self.sizes = kept[0], {"train_photographs": len(kept[0]), "val_photographs": len(kept[1])}
        self.module = Regression(self.backbone.embed_dim, told.stage.learning_rate)
        self.data = Batches(*sets, told.stage.batch_size)

    def callbacks(self) -> list[Any]:
        """There are none of its own."""
        return []

    def strategy(self) -> str:
        """Run on one device."""
        return "auto"

    def finish(self, best: Path, provenance: Any, loggers: Any) -> dict[str, Any]:
        """Write the weights of the best epoch."""
        content, place = read_checkpoint(best), Path(self.config.run_dir) / "export"
        place.mkdir(exist_ok=True)
        save_file(content["state_dict"], place / "model.safetensors", provenance.after(content["global_step"]))
        write_json(place / "config.json", {"task": "brightness", "backbone": vars(self.config.backbone)})
        return {}


@tasks.register("brightness", title="Brightness")
class Brightness(Task):
    """How bright a photograph is."""

    def training(self, config: Any) -> Training:
        """Build the tower."""
        return BrightnessTraining(config)

    def evaluate(self, config: Any, on: Any) -> Judgement:
        """Measure the mean absolute error, beside that of the training photographs' mean."""
        backbone = build_backbone(**read_json(on.place / "config.json")["backbone"])
        table = feature_table(backbone, "pooled", on.records, on.data, config.trainer)
        head = load_file(on.place / "model.safetensors")
        found = table.stack([one.image for one in on.records]) @ head["head.weight"].T + head["head.bias"]
        truth = brightness(on.records)
        constant = brightness([one for one in on.manifest if one.split == "train"]).mean()
        groups = [one.group for one in on.records]
        scores = {
            name: mean_interval((values - truth).abs()[:, 0].numpy(), groups, config.bootstrap, config.seed)
            for name, values in (("error", found), ("error of the mean", constant.expand_as(truth)))
        }
        metrics = {name: {"value": one.value, "groups": one.groups} for name, one in scores.items()}
        run_dir = Path(config.run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        write_json(run_dir / "metrics.json", metrics)
        rows = "".join(
            f"<tr><td>{name}<td>{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" for name, one in scores.items()
        )
        write_text(run_dir / "index.html", f"<!doctype html><title>Brightness</title><table>{rows}</table>")
        return Judgement(metrics, {name: one.value for name, one in scores.items()})

    def opened(self, place: Path, vocabulary: str | None = None) -> Opened:
        """Refuse: there is nothing to explain in this example."""
        raise UserError("task=brightness has no explanation: choose another model")
