"""Every way in which one weight of a file can be damaged, for readers that must name it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def damages(state: dict[str, Tensor]) -> Iterator[tuple[str, str, dict[str, Tensor]]]:
    """Yield a key, what was done to it, and the state with that one damage."""
    for key, value in state.items():
        yield key, "missing", {name: one for name, one in state.items() if name != key}
        for what, changed in _reshaped(value).items():
            # A square matrix does not tell that it was transposed; a mask does.
            if changed.shape != value.shape or not (value.is_floating_point() or torch.equal(changed, value)):
                yield key, what, {**state, key: changed}
        if value.is_floating_point():
            lost = value.clone()
            lost.view(-1)[-1] = torch.nan
            yield key, "nan", {**state, key: lost}


def _reshaped(value: Tensor) -> dict[str, Tensor]:
    row = value[-1:] if value.ndim else value.reshape(1)
    return {
        "one more row": torch.cat([value if value.ndim else row, row]),
        "transposed": value.transpose(-1, -2).contiguous() if value.ndim > 1 else value,
        "0-d": value.reshape(-1)[0].clone(),
    }
