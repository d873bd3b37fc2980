"""A backbone apart from its weights: what is built, how photographs and texts become its input."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import open_clip
from open_clip.transformer import VisionTransformer

from clip_xai.data.preprocess import Preprocess
from clip_xai.errors import UserError
from clip_xai.models.backbones import open_clip_models
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.classifier import VisionClassifier
from clip_xai.models.backbones.clip import CLIPBackbone
from clip_xai.models.backbones.families import REGISTERED, RegisteredPlan
from clip_xai.models.backbones.networks import LIBRARIES, build_network, tower_of
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.backbones.text_tokenizers import TextTokenizer, tokenizer_from_plain
from clip_xai.models.backbones.transformers_models import KINDS

OPEN_CLIP = "open_clip"
TOWER = "tower.json"  # beside a tower's weights: how it is built, its preprocessing and its tokenizer


@dataclass(frozen=True)
class Blueprint:
    """All but the weights, so that a tower can be built again where its publisher's files are not at hand.

    Attributes:
        family: ``open_clip``, a key of ``KINDS``, or ``timm`` or ``torchvision`` for a classifier.
        config: The model's configuration in that family's format.
        preprocess: Its preprocessing, apart from the image size.
        image_size: Side of the input in pixels if it is not the tower's own.
        text: Whether there is a text tower.
        tokenizer: The text tower's tokenizer.
    """

    family: str
    config: dict[str, Any]
    preprocess: Preprocess
    image_size: int | None = None
    text: bool = True
    tokenizer: TextTokenizer | None = None

    def build(self, name: str, source: str | None = None) -> VisionBackbone:
        """Build the backbone at random weights, in evaluation mode, frozen, in float32.

        Args:
            name: As in ``backbone=NAME``.
            source: Where weights will come from, None for random ones.

        Raises:
            UserError: The model is of a kind that is not known here.
        """
        backbone: VisionBackbone
        if self.family in LIBRARIES:
            backbone = self._network(name, source)
        else:
            backbone = (self._open_clip if self.family == OPEN_CLIP else self._transformers)(name, source)
        backbone.blueprint = self
        return backbone.float().eval().requires_grad_(False)

    def plain(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        return {
            "family": self.family,
            "config": self.config,
            "preprocess": asdict(self.preprocess),
            "image_size": self.image_size,
            "text": self.text,
            "tokenizer": None if self.tokenizer is None else self.tokenizer.plain(),
        }

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> Blueprint:
        """The blueprint that ``plain`` wrote."""
        tokenizer = values["tokenizer"]
        return cls(
            **{
                **values,
                "preprocess": Preprocess(**values["preprocess"]),
                "tokenizer": None if tokenizer is None else tokenizer_from_plain(tokenizer),
            }
        )

    def _open_clip(self, name: str, source: str | None) -> CLIPBackbone:
        model: Any = open_clip_models.build_model(self.config, self.text, name)
        image_tower, text_tower = open_clip_models.towers_of(model, self.image_size)
        preprocess = replace(self.preprocess, image_size=image_tower.image_size)
        if isinstance(model, open_clip.CLIP) and isinstance(model.visual, VisionTransformer):
            backbone: CLIPBackbone = OpenClipBackbone(model, self.tokenizer, preprocess, name, source)
        else:
            backbone = CLIPBackbone(model, image_tower, text_tower, self.tokenizer, preprocess, name, source)
        backbone.variant = "quick_gelu" if self.config.get("quick_gelu") else ""
        return backbone

    def _transformers(self, name: str, source: str | None) -> CLIPBackbone:
        kind = KINDS[self.family]
        model: Any = kind.build(self.config, self.text)
        image_tower, text_tower = kind.towers(model, self.image_size)
        preprocess = replace(self.preprocess, image_size=image_tower.image_size)
        activation = self.config.get("vision_config", {}).get("hidden_act", "")
        return CLIPBackbone(
            model, image_tower, text_tower, self.tokenizer, preprocess, name, source, variant=activation
        )

    def _network(self, name: str, source: str | None) -> VisionClassifier:
        network = build_network(self.family, self.config, self.image_size)
        tower = tower_of(self.family, network, self.image_size or self.preprocess.image_size)
        size, own = tower.image_size, self.preprocess
        scaled = own.scaled if own.scaled is None else round(own.scaled * size / own.image_size)
        preprocess = replace(own, image_size=size, scaled=scaled)
        return VisionClassifier(network, tower, preprocess, name, self.family, self.config.get("classes"), source)


def plan_from_plain(values: dict[str, Any]) -> Blueprint | RegisteredPlan:
    """Return the plan that ``plain`` wrote: of a family of this package, or of a plugin's."""
    return (RegisteredPlan if values["family"] == REGISTERED else Blueprint).from_plain(values)


def random_twin(backbone: VisionBackbone) -> VisionBackbone:
    """Return the same built architecture, with its preprocessing and tokenizer, at new random weights.

    Raises:
        UserError: Nobody noted how the backbone was built.
    """
    if backbone.blueprint is None:
        raise UserError(
            f"how backbone {backbone.name} was built is not recorded, so it has no twin at random weights: build it "
            "with build_backbone"
        )
    return backbone.blueprint.build(backbone.name)
