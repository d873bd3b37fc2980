"""Stage 0: a CLIP backbone of any family meets photographs and their captions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from lightning import LightningDataModule, LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from clip_xai.data.images import UnreadableImageError, read_image
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.models.backbones.clip import CLIPBackbone
from clip_xai.text import counted
from clip_xai.training.contrastive_losses import MAX_LOGIT_SCALE, multi_positive_loss
from clip_xai.training.loader_workers import keep_memory_flat
from clip_xai.training.optimisation import Optimisation, is_decayed, mean_metric, scheduled
from clip_xai.training.samplers import EpochSampler
from clip_xai.training.tower_plan import TowerPlan


class Pair(NamedTuple):
    """A photograph's place in an epoch; the epoch chooses its reference."""

    epoch: int
    row: int


class PairDataset(Dataset[dict[str, Any]]):
    """Preprocessed photographs with one of their references, drawn anew each epoch where there is a seed."""

    def __init__(self, records: Sequence[Record], backbone: CLIPBackbone, seed: int | None) -> None:
        self.records = records
        self.preprocess = backbone.preprocess
        self.seed = seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, pair: Pair) -> dict[str, Any]:
        """Return ``pixels [3, S, S]``, ``text`` and ``group``, the lesion or patient."""
        record = self.records[pair.row]
        references = record.references or (record.caption,)
        draw = 0 if self.seed is None else np.random.default_rng((self.seed, *pair)).integers(len(references))
        pixels = self.preprocess(read_image(record.image))
        return {"pixels": pixels, "text": references[int(draw)], "group": f"{record.source}/{record.group}"}


class PairSteps(Sampler[list[Pair]]):
    """The batches of an epoch; with several devices each takes its share of every batch."""

    def __init__(self, sampler: EpochSampler, batch_size: int, devices: int = 1, rank: int = 0) -> None:
        self.sampler = sampler
        self.devices, self.rank = devices, rank
        self.steps = -(-len(sampler) // batch_size)
        if len(sampler) // self.steps < 2 * devices:
            raise UserError(
                f"too few for a contrast: {counted(len(sampler), 'photograph')} on {counted(devices, 'device')}"
            )

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Pair]]:
        epoch = self.sampler.epoch
        for step in np.array_split(np.fromiter(self.sampler, dtype=np.int64), self.steps):
            share = step[: len(step) // self.devices * self.devices][self.rank :: self.devices]  # alike on all devices
            yield [Pair(epoch, int(index)) for index in share]


class PairData(LightningDataModule):
    """Photographs and captions of training and validation records, in batches that epoch and seed fix."""

    def __init__(
        self,
        backbone: CLIPBackbone,
        train: Sequence[Record],
        val: Sequence[Record],
        *,
        batch_size: int,
        seed: int,
        workers: int = 0,
    ) -> None:
        """Set aside what cannot be read (``unreadable`` names it).

        Args:
            backbone: Its preprocessing.
            train: Training records.
            val: Validation records.
            batch_size: Pairs a step, over all devices: each is contrasted with all others.
            seed: Seed of the order and the references.
            workers: Processes that read photographs beside the training.
        """
        super().__init__()
        self.unreadable: dict[str, str] = {}
        self.batch_size, self.workers = batch_size, workers
        self.train_set = PairDataset(self._readable(train), backbone, seed)
        self.val_set = PairDataset(self._readable(val), backbone, None)
        if len(self.train_set) < 2 or len(self.val_set) < 2:
            raise UserError(
                "a contrast needs two photographs at least, in training and in validation; widen data.limit"
            )
        self.sampler = EpochSampler(range(len(self.train_set)), [], 0.0, seed)

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """All training pairs, in an order that epoch and seed fix."""
        return self._loader(self.train_set, self._steps(self.sampler))

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """All validation pairs in one mixed order, first references.

        The batches are fixed, each a contrast of the same pairs in every epoch: Lightning cannot shuffle a list anew.
        """
        return self._loader(self.val_set, list(self._steps(EpochSampler(range(len(self.val_set)), [], 0.0, 0))))

    def _steps(self, sampler: EpochSampler) -> PairSteps:
        devices, rank = (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)
        return PairSteps(sampler, self.batch_size, devices, rank)

    def _loader(self, dataset: PairDataset, batches: PairSteps | list[list[Pair]]) -> DataLoader[dict[str, Any]]:
        return DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=self.workers,
            worker_init_fn=keep_memory_flat,
            generator=torch.Generator().manual_seed(0),
            pin_memory=torch.cuda.is_available(),
        )

    def _readable(self, records: Sequence[Record]) -> list[Record]:
        kept = []
        for record in records:
            try:
                read_image(record.image)
                kept.append(record)
            except UnreadableImageError as error:
                self.unreadable[str(record.image)] = str(error)
        return kept


class ContrastiveModule(LightningModule):
    """CLIP's training (arXiv 2103.00020) of any backbone.

    ``loss = (CE over texts + CE over images) / 2`` of ``tau cos(image, text)``, where a text fits every photograph of
    the same lesion or patient and every photograph with the same words: several positives share the target as in
    supervised contrastive learning. The towers stand in evaluation mode: no dropout, fixed statistics of batch norms.
    """

    def __init__(self, backbone: CLIPBackbone, optimisation: Optimisation, plan: TowerPlan) -> None:
        """Wrap a backbone with a text tower.

        Args:
            backbone: Its weights are changed.
            optimisation: How to optimise.
            plan: The callback that decides what trains.
        """
        super().__init__()
        self.backbone = backbone
        self.optimisation = optimisation
        self.plan = plan
        self.val_loss, self.found = mean_metric(), mean_metric()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the contrastive loss of the batches of all devices together."""
        similarities, positives = self._similarities(batch)
        loss = multi_positive_loss(similarities, positives)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(similarities))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Add a batch to the mean loss and to the share of photographs whose nearest text fits."""
        similarities, positives = self._similarities(batch)
        self.val_loss.update(multi_positive_loss(similarities, positives), len(similarities))
        self.found.update(positives.gather(1, similarities.argmax(1, keepdim=True)).float())

    def on_validation_epoch_end(self) -> None:
        """Log ``val/loss`` and ``val/found``, the share of photographs whose nearest text in the batch fits."""
        for name, metric in (("val/loss", self.val_loss), ("val/found", self.found)):
            self.log(name, metric.compute(), prog_bar=name == "val/loss")
            metric.reset()

    def on_train_epoch_start(self) -> None:
        """Start the epoch's random numbers from seed and epoch alone."""
        lightning.seed_everything((self.optimisation.seed + 1_000_003 * self.current_epoch) % 2**31, verbose=False)

    @torch.no_grad()
    def on_train_batch_end(self, *args: Any) -> None:
        """Keep the temperature within CLIP's bound."""
        for name, parameter in self.backbone.named_parameters():
            if name.endswith("logit_scale"):
                parameter.clamp_(max=MAX_LOGIT_SCALE)

    def configure_optimizers(self) -> Any:
        """AdamW over all that will ever train, with warm-up and cosine per step."""
        wanted = self.plan.ever_trained(self.backbone)
        told = self.optimisation
        groups = [
            {"params": [p for name, p in wanted.items() if is_decayed(name, p)], "weight_decay": told.weight_decay},
            {"params": [p for name, p in wanted.items() if not is_decayed(name, p)], "weight_decay": 0.0},
        ]
        kept = [group for group in groups if group["params"]]
        return scheduled(kept, told, int(self.trainer.estimated_stepping_batches), betas=(0.9, 0.98))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what was measured last."""
        measured = self.trainer.callback_metrics
        checkpoint["measured"] = {key: float(value) for key, value in measured.items() if key.startswith("val/")}

    def _similarities(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return scaled cosines ``[B, B]`` of the pairs of all devices, and which of them fit."""
        tokens = self.backbone.tokenize(batch["text"]).to(self.device)
        embeddings = torch.stack([self.backbone.encode_image(batch["pixels"]), self.backbone.encode_tokens(tokens)])
        keys = [list(batch["text"]), list(batch["group"])]
        if self.trainer.world_size > 1:
            # The backward of gathering sums over devices, and the strategy divides by their number again.
            shared: Any = self.all_gather(embeddings, sync_grads=True)
            embeddings = shared.transpose(0, 1).flatten(1, 2)
            gathered: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(gathered, keys)
            keys = [[key for part in gathered for key in part[kind]] for kind in range(2)]
        images, texts = F.normalize(embeddings, dim=-1)
        fits = [torch.tensor([[one == other for other in kind] for one in kind]) for kind in keys]
        scale = self.backbone.logit_scale.clamp(max=math.exp(MAX_LOGIT_SCALE))
        return scale * images @ texts.T, (fits[0] | fits[1]).to(self.device)
