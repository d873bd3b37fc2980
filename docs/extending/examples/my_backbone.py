"""A backbone: two convolutions, a vision tower without texts."""

from collections.abc import Iterable

from torch import Tensor, nn

from clip_xai.data.preprocess import Preprocess
from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.families import backbones
from clip_xai.models.backbones.recording import Point, Record, VisualTrace
from clip_xai.models.backbones.source import BackboneSource
from clip_xai.models.backbones.tower import Features, ImageTower


class TwoConvolutions(ImageTower):
    """An adapter that encodes; methods that mask the image explain it."""

    family, supports = "convolutional", frozenset()
    image_size, grid, width, embed_dim = 32, (4, 4), 8, 8

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def features(self, pixels: Tensor) -> Features:
        """Encode images ``[B, 3, 32, 32]``."""
        tokens = self.module(pixels).flatten(2).transpose(1, 2)
        return Features(tokens.mean(dim=1), tokens)

    def project(self, tokens: Tensor) -> Tensor:
        """Return tokens as they are: this tower has no projection."""
        return tokens

    def trace(
        self, pixels: Tensor, *, reads: str = "pooled", record: Record = (), watch: Iterable[Point] = ()
    ) -> VisualTrace:
        """Refuse to be opened."""
        raise UserError("two_convolutions cannot be traced: choose occlusion")


@backbones.register("two_convolutions")
def two_convolutions(source: BackboneSource) -> VisionBackbone:
    """Build it at random weights; one with a file would load it from ``source.pretrained``."""
    network = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.GELU(), nn.Conv2d(8, 8, 2, stride=2))
    return VisionBackbone(network, TwoConvolutions(network), Preprocess(image_size=32), source.name)
