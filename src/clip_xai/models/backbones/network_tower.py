"""Convolutional networks and windowed transformers of timm and torchvision, opened between their stages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from clip_xai.errors import UserError
from clip_xai.models.backbones.network_stages import Chain, Cut, applied, cut_of
from clip_xai.models.backbones.recording import Point, Record, Recorder, evaluation_mode
from clip_xai.models.backbones.stages import StageTrace, keep_output
from clip_xai.models.backbones.timm_trunk import embedding_of, input_size, trunk_of
from clip_xai.models.backbones.torchvision_heads import pooled_by_torchvision
from clip_xai.models.backbones.tower import Features, ImageTower, known_read

IMAGENET_SIZE = 224  # torchvision's convolutional networks say nothing of their own


class NetworkTower(ImageTower):
    """A network that is a chain of stages, then pooling: ResNet, DenseNet, EfficientNet, ConvNeXt, Swin and others.

    Patches are the cells of what is pooled. See ``network_stages.py`` for what a stage is.
    """

    supports: ClassVar[frozenset[str]] = frozenset({"output_gradients"})  # type: ignore[misc]

    def __init__(self, module: nn.Module, image_size: int | None = None) -> None:
        """Wrap a network.

        Args:
            module: A network of timm or torchvision, or open_clip's ``TimmModel``.
            image_size: Side of the input if it is not the network's own.

        Raises:
            TypeError: Nobody told how networks of its class are cut.
            UserError: The network does not take images of that size.
        """
        self.module: Any = module
        cut = cut_of(trunk_of(module))
        if cut is None:
            raise TypeError(f"a {type(trunk_of(module)).__name__} has no stages that are known here")
        self.cut: Cut = cut
        self.family = "windowed" if cut.channels_last else "convolutional"
        self.image_size = image_size or (input_size(module) if self._of_timm else IMAGENET_SIZE)
        self._measure()

    def _measure(self) -> None:
        """Learn the grids, which paddings decide, from a pass of shapes alone: no number is computed."""
        try:
            with evaluation_mode(self.module), torch.no_grad():
                every = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
                shapes = {f"module.{name}": torch.empty_like(value, device="meta") for name, value in every.items()}
                dtype = next(self.module.parameters()).dtype
                pixels = torch.zeros(1, 3, self.image_size, self.image_size, device="meta", dtype=dtype)
                *stages, features, embedding = torch.func.functional_call(_Pass(self), shapes, (pixels,))
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
            raise UserError(
                f"backbone.image_size={self.image_size}: a {type(trunk_of(self.module)).__name__} does not take images "
                f"of that size ({reason}): choose another"
            ) from error
        self.grids = [self._grid_of(stage) for stage in stages]
        self.grid, self.embed_dim = self._grid_of(features), int(embedding.shape[1])
        self.width = int(features.shape[-1 if self.cut.channels_last else 1])

    @property
    def chain(self) -> Chain:
        """The network's steps."""
        return self.cut.chain(trunk_of(self.module))

    def features(self, pixels: Tensor) -> Features:
        """Encode images in one pass."""
        features = self._stages(0, applied(self.chain.stem, pixels), self._unwatched())
        return Features(self._embedding(features), self._tokens(features))

    def encode(self, pixels: Tensor) -> Tensor:
        """Return the embeddings alone."""
        return self.run(pixels, self._unwatched(), "pooled")

    def project(self, tokens: Tensor) -> Tensor:
        """Return what single tokens of the last stage would be as the embedding of a picture of one cell."""
        cells = tokens.flatten(0, -2)[:, None]  # [n, 1, C]
        features = applied(self.chain.tail, self._map(cells, (1, 1)))
        return self._embedding(features).unflatten(0, tokens.shape[:-1])

    def trace(
        self, pixels: Tensor, *, reads: str = "pooled", record: Record = (), watch: Iterable[Point] = ()
    ) -> StageTrace:
        """Run the tower once, opened up; see ``StageTrace``."""
        return StageTrace(self, pixels, reads=reads, record=record, watch=watch)

    def run(self, pixels: Tensor, recorder: Recorder, reads: str) -> Tensor:
        """Return what is read."""
        return self._read(self._stages(0, applied(self.chain.stem, pixels), recorder), reads)

    def behind(self, index: int, tokens: Tensor, reads: str) -> Tensor:
        """Return what is read once a stage has given these tokens; see ``StagedTower``."""
        return self._read(self._stages(index + 1, self._map(tokens, self.grids[index]), self._unwatched()), reads)

    def _stages(self, first: int, features: Tensor, recorder: Recorder) -> Tensor:
        chain = self.chain
        for index, stage in enumerate(chain.stages[first:], start=first):
            features = applied(stage, features)
            if index in recorder.opened:
                features = self._map(keep_output(recorder, index, self._tokens(features)), self.grids[index])
        return applied(chain.tail, features)

    def _read(self, features: Tensor, reads: str) -> Tensor:
        return self._embedding(features) if known_read(reads) == "pooled" else self._tokens(features)

    def _embedding(self, features: Tensor) -> Tensor:
        return (embedding_of if self._of_timm else pooled_by_torchvision)(self.module, features)

    @property
    def _of_timm(self) -> bool:
        return hasattr(trunk_of(self.module), "forward_head")

    def _unwatched(self) -> Recorder:
        return Recorder(len(self.grids), (), ())

    def _grid_of(self, features: Tensor) -> tuple[int, int]:
        rows, columns = features.shape[1:3] if self.cut.channels_last else features.shape[2:]
        return int(rows), int(columns)

    def _tokens(self, features: Tensor) -> Tensor:
        """Return a map's cells row by row, ``[B, h * w, C]``."""
        return features.flatten(1, 2) if self.cut.channels_last else features.flatten(2).transpose(1, 2)

    def _map(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return the map of cells; the inverse of ``_tokens``."""
        return tokens.unflatten(1, grid) if self.cut.channels_last else tokens.transpose(1, 2).unflatten(2, grid)


class _Pass(nn.Module):
    """All that a tower computes of images: each stage's output, what is pooled, and the embedding."""

    def __init__(self, tower: NetworkTower) -> None:
        super().__init__()
        self.module, self._tower = tower.module, tower

    def forward(self, pixels: Tensor) -> list[Tensor]:
        chain = self._tower.chain
        features, found = applied(chain.stem, pixels), []
        for stage in chain.stages:
            features = applied(stage, features)
            found.append(features)
        features = applied(chain.tail, features)
        return [*found, features, self._tower._embedding(features)]
