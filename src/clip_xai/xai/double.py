"""A tower and a target in double precision, for what single precision cannot tell."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.xai.target import Target

T = TypeVar("T", bound=Target)


def in_double(backbone: VisionBackbone, target: T) -> tuple[VisionBackbone, T]:
    """Return copies in float64, which take as much memory again twice over; what was given is left as it was.

    A device that has no such numbers (``mps``) is left for the CPU.
    """
    known: dict[int, object] = {}  # a captioner holds the tower, too: one copy of it serves both
    with torch.inference_mode(False):  # gradients go through the copies, whoever asks for them
        tower, asked = copy.deepcopy(backbone, known), copy.deepcopy(target, known)
        device = "cpu" if next(backbone.parameters()).device.type == "mps" else None
        _convert(tower.image_tower, device)  # adapters are not modules, and what they wrap may be more than the model
        _convert(asked, device)
        return tower.to(device=device, dtype=torch.float64), asked


def _convert(holder: object, device: str | None) -> None:
    for name, value in vars(holder).items():
        if isinstance(value, nn.Module) or (isinstance(value, Tensor) and value.is_floating_point()):
            setattr(holder, name, value.to(device=device, dtype=torch.float64))
