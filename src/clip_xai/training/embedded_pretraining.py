"""Contrastive training of the embedded CLIP on rendered photographs and their captions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.utils.data import IterableDataset

from clip_xai.data.synthetic.rendered import CaptionBatch, RenderedScenes
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.training.contrastive_losses import MAX_LOGIT_SCALE, multi_positive_loss, paraphrase_loss


class EmbeddedPretraining(LightningModule):
    """CLIP's training: images against whole captions, and against short captions that name one or two facts.

    A short caption is true of many images of a batch, so its loss has many positives. Each kind of short caption is a
    contrast of its own; their losses are averaged and added to that of the whole captions. Nothing but pictures and
    texts is used: neither masks nor labels.
    """

    def __init__(
        self,
        backbone: OpenClipBackbone,
        *,
        learning_rate: float,
        weight_decay: float,
        steps: int,
        warmup: int,
        paraphrases: float = 0.0,
        position_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.steps = steps
        self.warmup = warmup
        self.paraphrases = paraphrases
        self.position_weight = position_weight

    def training_step(self, batch: tuple[Tensor, CaptionBatch], batch_index: int) -> Tensor:
        """Return the loss of a batch of pixels ``[B, 3, S, S]`` and its captions."""
        pixels, captions = batch
        images = F.normalize(self.backbone.model.encode_image(pixels), dim=-1)
        scale = self.backbone.logit_scale
        whole = scale * images[captions.whole_rows] @ self._encode(captions.whole).T
        loss = multi_positive_loss(whole, torch.eye(len(whole), dtype=torch.bool))
        short_texts = [text for facet in captions.short.values() for text in facet.texts]
        texts = self._encode(short_texts)
        short = scale * images @ texts.T
        parts, start = [], 0
        for kind, facet in captions.short.items():
            columns = slice(start, start + len(facet.texts))
            part = multi_positive_loss(short[:, columns], torch.from_numpy(facet.positives))
            if self.paraphrases:
                among = scale * texts[columns] @ texts[columns].T
                part = part + self.paraphrases * paraphrase_loss(among, torch.from_numpy(facet.same))
            parts.append(part * self.position_weight if "position" in kind else part)
            start = columns.stop
        loss = loss + torch.stack(parts).mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(pixels))
        return loss

    def transfer_batch_to_device(
        self, batch: tuple[Tensor, CaptionBatch], device: torch.device, dataloader_idx: int
    ) -> tuple[Tensor, CaptionBatch]:
        """Move the pixels alone: captions are texts."""
        return batch[0].to(device), batch[1]

    def on_train_batch_end(self, *args: Any) -> None:
        """Keep the temperature within CLIP's bound."""
        with torch.no_grad():
            self.backbone.model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW without decay on gains, biases, embeddings and the temperature; cosine with warm-up."""
        decayed = [p for p in self.backbone.parameters() if p.ndim >= 2]
        others = [p for p in self.backbone.parameters() if p.ndim < 2]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=self.learning_rate,
            betas=(0.9, 0.98),
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def _encode(self, texts: list[str]) -> Tensor:
        """Encode texts with the context cut to the longest: what stands behind the end marker is never seen."""
        model = self.backbone.model
        ids = self.backbone.tokenize(texts)
        length = int((ids != 0).sum(1).max())
        ids = ids[:, :length]
        tokens = model.token_embedding(ids) + model.positional_embedding[:length]
        tokens = model.ln_final(model.transformer(tokens, attn_mask=model.attn_mask[:length, :length]))
        pooled = tokens[torch.arange(len(ids)), ids.argmax(1)] @ model.text_projection
        return F.normalize(pooled, dim=-1)


class RenderedBatches(IterableDataset[tuple[Tensor, CaptionBatch]]):
    """An endless, seeded stream of augmented pictures with fresh captions."""

    def __init__(
        self, scenes: RenderedScenes, backbone: OpenClipBackbone, batch_size: int, whole: int, seed: int
    ) -> None:
        self.scenes = scenes
        self.batch_size = batch_size
        self.whole = whole
        self.seed = seed
        self.mean = torch.tensor(backbone.preprocess.mean).view(1, 3, 1, 1)
        self.std = torch.tensor(backbone.preprocess.std).view(1, 3, 1, 1)

    def __iter__(self) -> Iterator[tuple[Tensor, CaptionBatch]]:
        """Yield normalised pixels ``[B, 3, S, S]`` and captions for ever."""
        rng = np.random.default_rng(self.seed)
        while True:
            pixels, captions = self.scenes.batch(rng, self.batch_size, self.whole)
            yield (torch.from_numpy(pixels).float() / 255 - self.mean) / self.std, captions
