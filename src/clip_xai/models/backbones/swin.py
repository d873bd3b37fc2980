"""transformers' Swin as MedCLIP uses it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from transformers import SwinModel

from clip_xai.models.backbones.recording import Point, Record, Recorder
from clip_xai.models.backbones.stages import StageTrace, keep_output
from clip_xai.models.backbones.tower import Features, ImageTower, known_read
from clip_xai.models.backbones.transformer import whole_grid


class MedClipVision(nn.Module):
    """A Swin with a projection, under the names that the medclip package gives its weights."""

    def __init__(self, swin: SwinModel, embed_dim: int) -> None:
        super().__init__()
        self.model = swin
        self.projection_head = nn.Linear(int(swin.num_features), embed_dim, bias=False)


class SwinTower(ImageTower):
    """transformers' ``SwinModel`` behind MedCLIP's projection: windowed blocks, then the mean of the last tokens."""

    family = "windowed"
    supports = frozenset({"output_gradients"})

    def __init__(self, module: MedClipVision, image_size: int | None = None) -> None:
        """Wrap a tower.

        Raises:
            UserError: The image size is not a multiple of the last stage's steps.
        """
        self.module: Any = module
        config: Any = module.model.config
        self.image_size = int(config.image_size) if image_size is None else image_size
        stages = len(config.depths)
        self.grid = whole_grid(self.image_size, config.patch_size * 2 ** (stages - 1))
        first = self.image_size // config.patch_size
        self.grids = [
            (first // 2**stage, first // 2**stage) for stage, depth in enumerate(config.depths) for _ in range(depth)
        ]
        self.width = int(module.model.num_features)
        self.embed_dim = int(module.projection_head.out_features)

    def features(self, pixels: Tensor) -> Features:
        """Encode images in one pass."""
        patches = self.run(pixels, Recorder(len(self.grids), (), ()), "patches")
        return Features(self.module.projection_head(patches.mean(dim=1)), patches)

    def project(self, tokens: Tensor) -> Tensor:
        """Normalise and project."""
        return self.module.projection_head(self.module.model.layernorm(tokens))

    def trace(
        self, pixels: Tensor, *, reads: str = "pooled", record: Record = (), watch: Iterable[Point] = ()
    ) -> StageTrace:
        """Run the tower once, opened up; see ``StageTrace``."""
        return StageTrace(self, pixels, reads=reads, record=record, watch=watch)

    def run(self, pixels: Tensor, recorder: Recorder, reads: str) -> Tensor:
        """Return what is read."""
        return self._blocks(0, self.module.model.embeddings(pixels)[0], recorder, reads)

    def behind(self, index: int, tokens: Tensor, reads: str) -> Tensor:
        """Return what is read once a block has given these tokens; see ``StagedTower``."""
        return self._blocks(index + 1, tokens, Recorder(len(self.grids), (), ()), reads)

    def _blocks(self, first: int, tokens: Tensor, recorder: Recorder, reads: str) -> Tensor:
        swin, index = self.module.model, 0
        for stage in swin.encoder.layers:
            dimensions = self.grids[index]
            for block in stage.blocks:
                if index >= first:
                    tokens = keep_output(recorder, index, block(tokens, dimensions)[0])
                index += 1
            if stage.downsample is not None and index >= first:  # the tokens are of this stage, or came out of it
                tokens = stage.downsample(tokens, dimensions)
        patches = swin.layernorm(tokens)
        return self.module.projection_head(patches.mean(dim=1)) if known_read(reads) == "pooled" else patches
