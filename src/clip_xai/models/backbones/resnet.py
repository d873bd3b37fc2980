"""open_clip's ``ModifiedResNet``, such as OpenAI's RN50."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from torch import Tensor

from clip_xai.models.backbones.recording import Point, Record, Recorder
from clip_xai.models.backbones.stages import StageTrace, keep_output
from clip_xai.models.backbones.tower import Features, ImageTower, known_read
from clip_xai.models.backbones.transformer import (
    AttentionPool,
    open_pool,
    resample_positions,
    split_heads,
    whole_grid,
)


class ResNetPool(AttentionPool):
    """ModifiedResNet's attention pool: the mean of the last map asks, itself and all cells are asked."""

    def __init__(self, pool: AttentionPool2d, grid: tuple[int, int]) -> None:
        self.module, self.grid = pool, grid

    def normed(self, tokens: Tensor) -> Tensor:
        """Return the mean in front of the cells ``[B, 1 + h * w, C]``, positions added (there is no norm)."""
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
        return tokens + resample_positions(self.module.positional_embedding, self.grid, 1).to(tokens)

    def query_key_value(self, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project with ``q_proj``, ``k_proj`` and ``v_proj``."""
        pool = self.module
        parts = (pool.q_proj(normed[:, :1]), pool.k_proj(normed), pool.v_proj(normed))
        query, key, value = (split_heads(part, pool.num_heads) for part in parts)
        return query, key, value

    def project(self, context: Tensor) -> Tensor:
        """Apply ``c_proj``."""
        return self.module.c_proj(context)

    def finish(self, attended: Tensor) -> Tensor:
        """Return the one row."""
        return attended[:, 0]


class ResNetTower(ImageTower):
    """open_clip's ``ModifiedResNet``: four convolutional stages, then an attention pool.

    The attention pool's sequence has one token in front, the mean.
    """

    family = "convolutional"
    supports = frozenset({"output_gradients"})

    def __init__(self, visual: ModifiedResNet, image_size: int | None = None) -> None:
        """Wrap a tower.

        Raises:
            UserError: The image size is not a multiple of the stages' steps.
        """
        self.module: Any = visual
        self.image_size = int(visual.image_size) if image_size is None else image_size
        self.grid = whole_grid(self.image_size, 32)
        side = self.grid[0]
        self.grids = [(side * step, side * step) for step in (8, 4, 2, 1)]
        self.width = int(visual.attnpool.positional_embedding.shape[1])
        self.embed_dim = int(visual.output_dim)

    @property
    def pool(self) -> ResNetPool:
        """The attention pool."""
        return ResNetPool(self.module.attnpool, self.grid)

    def features(self, pixels: Tensor) -> Features:
        """Encode images in one pass; patches are the cells of the last map, which no norm follows."""
        recorder = Recorder(4, (), ())
        patches = self.run(pixels, recorder, "patches")
        return Features(open_pool(recorder, self.pool, patches), patches)

    def project(self, tokens: Tensor) -> Tensor:
        """Project values without attending, as MaskCLIP does for this tower."""
        return self.module.attnpool.c_proj(self.module.attnpool.v_proj(tokens))

    def trace(
        self, pixels: Tensor, *, reads: str = "pooled", record: Record = (), watch: Iterable[Point] = ()
    ) -> StageTrace:
        """Run the tower once, opened up; see ``StageTrace``."""
        return StageTrace(self, pixels, reads=reads, record=record, watch=watch)

    def run(self, pixels: Tensor, recorder: Recorder, reads: str) -> Tensor:
        """Return what is read."""
        return self._stages(0, self.module.stem(pixels), recorder, reads)

    def behind(self, index: int, tokens: Tensor, reads: str) -> Tensor:
        """Return what is read once a stage has given these tokens; see ``StagedTower``."""
        features = tokens.transpose(1, 2).unflatten(2, self.grids[index])
        return self._stages(index + 1, features, Recorder(4, (), ()), reads)

    def _stages(self, first: int, features: Tensor, recorder: Recorder, reads: str) -> Tensor:
        visual = self.module
        stages = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
        for index, stage in enumerate(stages[first:], start=first):
            features = stage(features)
            if index in recorder.opened:
                tokens = keep_output(recorder, index, features.flatten(2).transpose(1, 2))
                features = tokens.transpose(1, 2).unflatten(2, self.grids[index])
        patches = features.flatten(2).transpose(1, 2)
        return open_pool(recorder, self.pool, patches) if known_read(reads) == "pooled" else patches
