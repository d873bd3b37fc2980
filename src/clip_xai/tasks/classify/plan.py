"""What of a classifier trains, and from which epoch on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.classifier_weights import HEAD
from clip_xai.training.tower_plan import TowerPlan, is_entrance, number_of_block

PARTS = ("head", "image")


class ClassifierPlan(TowerPlan):
    """Trains the head, and of the tower nothing, all, or the last blocks and what stands behind them.

    What trains is in training mode (dropout, batch statistics), all else in evaluation mode.
    """

    def __init__(self, trains: Sequence[str], schedule: Mapping[int, int] | None = None) -> None:
        """Set the plan.

        Args:
            trains: ``head``, and ``image`` for the tower.
            schedule: Epoch -> number of the tower's last blocks that train from then on; empty trains it whole.

        Raises:
            UserError: A part is unknown, or the head does not train.
        """
        unknown = sorted(set(trains) - set(PARTS))
        if unknown:
            raise UserError(f"stage.trains: {', '.join(unknown)} is not one of {', '.join(PARTS)}")
        if "head" not in trains:
            raise UserError("stage.trains must hold head: without it, nothing learns the classes")
        super().__init__(trains, schedule)

    @property
    def trains_tower(self) -> bool:
        """Whether the tower ever trains."""
        return "image" in self.trains

    def trained(self, backbone: Any, epoch: int) -> dict[str, nn.Parameter]:
        """Return the parameters that train in an epoch, by name."""
        named = dict(backbone.named_parameters())
        found = {name: parameter for name, parameter in named.items() if name.startswith(HEAD)}
        if self.trains_tower:
            found |= self._last(tower_of(backbone), "image", epoch, backbone.name)
        return found

    @staticmethod
    def depth(name: str, prefix: str, count: int) -> int:
        """Return where a weight of the tower stands: 0 before the blocks, 1 to L in them, L + 1 behind them."""
        if count and name.startswith(prefix):
            return number_of_block(name, prefix) + 1
        return 0 if is_entrance(name) else count + 1

    def _thaw(self, backbone: Any, wanted: dict[str, nn.Parameter]) -> None:
        backbone.requires_grad_(False)
        for parameter in wanted.values():
            parameter.requires_grad_(True)
        ids = {id(parameter) for parameter in wanted.values()}

        def set_mode(module: nn.Module, inherited: bool) -> None:
            own = list(module.parameters())
            module.training = all(id(parameter) in ids for parameter in own) if own else inherited
            for child in module.children():
                set_mode(child, module.training)

        set_mode(backbone, False)


def tower_of(backbone: VisionBackbone) -> dict[str, nn.Parameter]:
    """Return the parameters of the image tower by their names in the backbone: no text tower takes part, no head."""
    own = {id(parameter) for parameter in backbone.image_tower.module.parameters()}
    return {name: parameter for name, parameter in backbone.named_parameters() if id(parameter) in own}
