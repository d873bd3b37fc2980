"""The families of backbones, by what ``backbone.architecture`` or ``backbone.library`` names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.source import BackboneSource
from clip_xai.registry import Registry, load_plugins

Builder = Callable[[BackboneSource], VisionBackbone]
# Builds the backbone that a source describes; what no name stands for is an architecture of open_clip.
backbones: Registry[Builder] = Registry("backbone", "backbones", "clip_xai.models.backbones")
REGISTERED = "registered"  # the family of a plan that is built by a plugin


@dataclass(frozen=True)
class RegisteredPlan:
    """How the backbone of a plugin is built again.

    Attributes:
        source: What it was built from.
        module: The module that registered its builder.
    """

    source: BackboneSource
    module: str = ""

    def build(self, name: str, source: str | None = None) -> VisionBackbone:
        """Build it at random weights.

        Raises:
            UserError: The module that registers it is not there.
        """
        if self.module and self.source.architecture not in backbones:
            load_plugins([self.module])
        return built_by(replace(self.source, name=name, pretrained=None))

    def plain(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        return {"family": REGISTERED, "source": asdict(self.source), "module": self.module}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> RegisteredPlan:
        """The plan that ``plain`` wrote."""
        return cls(BackboneSource(**values["source"]), values["module"])


def built_by(source: BackboneSource) -> VisionBackbone:
    """Build what a plugin's architecture names, in evaluation mode, frozen, in float32.

    Raises:
        UserError: There is no such architecture.
    """
    backbone = backbones.named(source.architecture, "backbone.architecture")(source)
    backbone.source = source.pretrained
    if backbone.blueprint is None:
        backbone.blueprint = RegisteredPlan(source, backbones.module_of(source.architecture))
    return backbone.float().eval().requires_grad_(False)
