"""Weights that are numbers, and learned ones: neither NaN nor infinite, neither quantised nor zeros of a cut file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.text import counted

_EXACT = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


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


def require_trained(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], what: object) -> None:
    """Refuse weights that load without an error and mean nothing: quantised ones, and matrices of zeros alone.

    Args:
        own: The model's, by name.
        weights: Those that are to take their place.
        what: What they are, for the message.

    Raises:
        UserError: A weight is quantised, or a matrix holds zeros alone, as in a file of which a part is missing.
    """
    matrices = {name: weights[name] for name, tensor in own.items() if tensor.is_floating_point() and name in weights}
    for name, tensor in matrices.items():
        if tensor.dtype not in _EXACT:
            raise UserError(
                f"{what} holds {name} as {str(tensor.dtype).removeprefix('torch.')}: quantised weights are not read; "
                "give them as float32, float16 or bfloat16"
            )
    # A vector may have learned nothing; no matrix of a trained tower has.
    empty = [
        name for name, tensor in matrices.items() if sum(side > 1 for side in tensor.shape) > 1 and not tensor.any()
    ]
    if empty:
        raise UserError(
            f"{what} holds zeros alone in {len(empty)} of {counted(len(matrices), 'tensor')}, such as {empty[0]}: a "
            "part of it was never written; download it again"
        )


def _local(tensor: Any) -> Tensor:
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local
