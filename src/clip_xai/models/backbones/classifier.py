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
    """A tower with a head: its own, the last layer of a network of timm or torchvision, or one that was trained on it.

    The embedding of a network is what its last layer reads.

    Attributes:
        library: Whose network it is; None where the head is not the network's own.
        classes: Names of the C classes.
        reads: What the head reads: ``pooled``, ``patches`` or ``tokens``.
        multilabel: Whether an image can show several classes at once, each with a probability of its own.
    """

    def __init__(
        self,
        model: Any,
        image_tower: ImageTower,
        preprocess: Preprocess,
        name: str,
        library: str | None = None,
        classes: Sequence[str] | None = None,
        source: str | None = None,
        head: nn.Module | None = None,
        reads: str = "pooled",
        multilabel: bool = False,
        variant: str = "",
    ) -> None:
        """Wrap a tower and its head.

        Raises:
            UserError: A network has no classifier of its own.
            ValueError: There are more or fewer names than classes, or neither a head nor a library's network.
        """
        super().__init__(model, image_tower, preprocess, name, source, variant)
        if library is None and head is None:
            raise ValueError("a classifier needs a head, or the library whose network brings one")
        self.library = library
        self.trained_head = head
        self.reads, self.multilabel = reads, multilabel
        if head is None:
            count = class_count(self.head)
            if classes is not None and len(classes) != count:
                raise ValueError(f"{len(classes)} names do not fit {count} classes")
            self.classes = [f"class {number}" for number in range(count)] if classes is None else list(classes)
        else:
            if classes is None:
                raise ValueError("a head of one's own needs the names of its classes")
            self.classes = list(classes)

    @classmethod
    def on(
        cls, backbone: VisionBackbone, head: nn.Module, classes: Sequence[str], reads: str, multilabel: bool
    ) -> VisionClassifier:
        """Put a head on a backbone, whose tower it shares.

        Args:
            backbone: Any vision backbone; a classifier's own head is left out of account.
            head: From what it reads, ``[B, D]`` or ``[B, N, W]``, to logits ``[B, C]``.
            classes: Names of the C classes.
            reads: What it reads.
            multilabel: Whether an image can show several classes at once.
        """
        made = cls(
            backbone.model,
            backbone.image_tower,
            backbone.preprocess,
            backbone.name,
            classes=classes,
            source=backbone.source,
            head=head,
            reads=reads,
            multilabel=multilabel,
            variant=backbone.variant,
        )
        made.blueprint = backbone.blueprint
        return made

    @property
    def head(self) -> nn.Module:
        """What gives the logits."""
        if self.trained_head is not None:
            return self.trained_head
        assert self.library is not None
        return classifier_of(self.library, self.model)[1]

    def logits_of(self, read: Tensor) -> Tensor:
        """Return the logits ``[B, C]`` of what the head reads, ``[B, D]`` or ``[B, N, W]``."""
        head = self.head
        return head(read[:, :, None, None]).flatten(1) if isinstance(head, nn.Conv2d) else head(read)

    def logits(self, pixels: Tensor) -> Tensor:
        """Return the logits ``[B, C]`` of images ``[B, 3, S, S]``; in evaluation mode."""
        if self.reads == "pooled":
            return self.logits_of(self.image_tower.encode(pixels))
        return self.logits_of(self.features(pixels).read(self.reads))


def class_count(head: nn.Module) -> int:
    """Return C of a classifier's last layer."""
    return int(head.out_features if isinstance(head, nn.Linear) else head.out_channels)  # type: ignore[arg-type]
