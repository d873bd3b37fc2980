"""Weights that are numbers: neither NaN nor infinite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.text import counted


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether every value is finite; one look at the device, however many tensors there are.

    Args:
        tensors: On one device. Of sharded ones the part on this device is looked at.
    """
    flags = [_local(tensor.detach()).isfinite().all() for tensor in tensors if tensor.is_floating_point()]
    return not flags or bool(torch.stack(flags).all())


def require_finite(weights: Mapping[str, Tensor], what: object) -> None:
    """Refuse weights that hold NaN or infinite values.

    Args:
        weights: The weights by name.
        what: What they are, for the message.

    Raises:
        UserError: One of them is not finite.
    """
    if not all_finite(weights.values()):
        lost = [name for name, tensor in weights.items() if not all_finite([tensor])]
        raise UserError(
            f"{what} holds NaN or infinite values in {len(lost)} of {counted(len(weights), 'tensor')}, such as "
            f"{lost[0]}: the training that it comes from diverged, and nothing can start from it"
        )


def _local(tensor: Any) -> Tensor:
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local
