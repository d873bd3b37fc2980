"""What of a tower trains, and from which epoch on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import nn

from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone

# What stands before the blocks of a tower; all else outside the blocks stands behind them.
_ENTRANCE = re.compile(r"embed|conv|ln_pre|norm_pre|pre_layrnorm|stem|cls_token|latent")


class TowerPlan(Callback):
    """What of a backbone trains, and how many of its towers' last blocks from which epoch on."""

    def __init__(self, trains: Sequence[str], schedule: Mapping[int, int] | None = None) -> None:
        """Set the plan.

        Args:
            trains: ``image`` and ``text``, the towers, and ``temperature``.
            schedule: Epoch -> number of last blocks of the trained towers that train from then on, together with what
                stands behind them; empty trains the towers whole.
        """
        self.trains = frozenset(trains)
        self.schedule = dict(schedule or {})

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze for good what never trains."""
        backbone: Any = pl_module.backbone
        self._thaw(backbone, self.ever_trained(backbone))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Apply the plan for this epoch."""
        backbone: Any = pl_module.backbone
        self._thaw(backbone, self.trained(backbone, trainer.current_epoch))

    def trained(self, backbone: VisionBackbone, epoch: int) -> dict[str, nn.Parameter]:
        """Return the parameters that train in an epoch, by name.

        Raises:
            UserError: The plan counts blocks and a tower has none, or nothing trains.
        """
        parts = tower_parts(backbone)
        found: dict[str, nn.Parameter] = {}
        for part in ("image", "text", "temperature"):
            if part in self.trains:
                found |= parts[part] if part == "temperature" else self._last(parts[part], part, epoch, backbone.name)
        if not found:
            raise UserError(f"stage.trains: backbone {backbone.name} has none of {', '.join(sorted(self.trains))}")
        return found

    def ever_trained(self, backbone: VisionBackbone) -> dict[str, nn.Parameter]:
        """Return the parameters that train in any epoch of the plan, by name."""
        found: dict[str, nn.Parameter] = {}
        for epoch in (0, *self.schedule):
            found |= self.trained(backbone, epoch)
        return found

    @property
    def changes(self) -> bool:
        """Whether other parts train in one epoch than in another."""
        return len(set(self.schedule.values())) > 1

    def _last(self, tower: dict[str, nn.Parameter], part: str, epoch: int, name: str) -> dict[str, nn.Parameter]:
        if not self.schedule:
            return tower
        prefix, count = block_list(tower)
        if count < 2:
            raise UserError(f"stage.unfreeze: the {part} tower of backbone {name} has no list of blocks; set it to []")
        wanted = self.schedule[max(start for start in self.schedule if start <= epoch)]
        first = count - min(wanted, count)
        behind = {key: p for key, p in tower.items() if not key.startswith(prefix) and not is_entrance(key)}
        last = {key: p for key, p in tower.items() if key.startswith(prefix) and number_of_block(key, prefix) >= first}
        return last | behind

    def _thaw(self, backbone: VisionBackbone, wanted: dict[str, nn.Parameter]) -> None:
        backbone.eval().requires_grad_(False)
        for parameter in wanted.values():
            parameter.requires_grad_(True)


def tower_parts(backbone: VisionBackbone) -> dict[str, dict[str, nn.Parameter]]:
    """Return a backbone's parameters by name, as ``image`` tower, ``text`` tower and ``temperature``."""
    parts: dict[str, dict[str, nn.Parameter]] = {"image": {}, "text": {}, "temperature": {}}
    for name, parameter in backbone.named_parameters():
        if re.search(r"logit_(scale|bias)$", name):
            parts["temperature"][name] = parameter
        elif re.search(r"visual|vision", name):
            parts["image"][name] = parameter
        else:
            parts["text"][name] = parameter
    return parts


def block_list(tower: Mapping[str, Any]) -> tuple[str, int]:
    """Return where the blocks of a tower stand and how many there are, from the names of its parameters.

    >>> block_list(["visual.conv1.weight", "visual.blocks.0.w", "visual.blocks.1.w", "visual.blocks.1.mlp.0.w"])
    ('visual.blocks.', 2)
    """
    lists: dict[str, set[int]] = {}
    for name in tower:
        match = re.match(r"(.*?\.)(\d+)\.", name)  # the outermost list that a parameter stands in
        if match:
            lists.setdefault(match[1], set()).add(int(match[2]))
    if not lists:
        return "", 0
    prefix = max(lists, key=lambda key: len(lists[key]))
    return prefix, max(lists[prefix]) + 1


def number_of_block(name: str, prefix: str) -> int:
    """Return the number of the block that a parameter stands in, of the list that ``block_list`` found."""
    return int(name[len(prefix) :].partition(".")[0])


def is_entrance(name: str) -> bool:
    """Tell whether a parameter outside the blocks stands before them."""
    return _ENTRANCE.search(name) is not None
