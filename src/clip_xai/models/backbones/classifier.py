"""A vision backbone that ends in a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from clip_xai.data.preprocess import Preprocess
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.networks import classifier_of
from clip_xai.models.backbones.tower import ImageTower


class VisionClassifier(VisionBackbone):
    """A network of timm or torchvision: its embedding is what its last layer reads, and that layer gives the logits.

    Attributes:
        library: Whose network it is.
        classes: Names of the C classes.
    """

    def __init__(
        self,
        model: Any,
        image_tower: ImageTower,
        preprocess: Preprocess,
        name: str,
        library: str,
        classes: Sequence[str] | None = None,
        source: str | None = None,
    ) -> None:
        """Wrap a network.

        Raises:
            UserError: It has no classifier.
            ValueError: There are more or fewer names than classes.
        """
        super().__init__(model, image_tower, preprocess, name, source)
        self.library = library
        count = class_count(self.head)
        if classes is not None and len(classes) != count:
            raise ValueError(f"{len(classes)} names do not fit {count} classes")
        self.classes = [f"class {number}" for number in range(count)] if classes is None else list(classes)

    @property
    def head(self) -> nn.Module:
        """The network's last layer."""
        return classifier_of(self.library, self.model)[1]

    def logits_of(self, pooled: Tensor) -> Tensor:
        """Return the logits ``[B, C]`` of embeddings ``[B, D]``."""
        head = self.head
        return head(pooled[:, :, None, None]).flatten(1) if isinstance(head, nn.Conv2d) else head(pooled)

    def logits(self, pixels: Tensor) -> Tensor:
        """Return the logits ``[B, C]`` of images ``[B, 3, S, S]``; in evaluation mode."""
        return self.logits_of(self.image_tower.encode(pixels))


def class_count(head: nn.Module) -> int:
    """Return C of a classifier's last layer."""
    return int(head.out_features if isinstance(head, nn.Linear) else head.out_channels)  # type: ignore[arg-type]
