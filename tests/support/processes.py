"""What tests of two processes share."""

from __future__ import annotations

import os

import torch
from torch import Tensor

OF_A_LAUNCHER = ("LOCAL_", "GLOBAL_", "NODE_", "MASTER_", "WORLD_", "RANK", "PL_")


def environment_of_no_launcher() -> dict[str, str]:
    """The environment without what would make a new program one of several processes."""
    return {key: value for key, value in os.environ.items() if not key.startswith(OF_A_LAUNCHER)}


def without_keys(name: str, value: Tensor) -> Tensor:
    """A weight; of the biases of queries, keys and values in one, those of queries and values.

    A key's bias moves all products of a query alike, which softmax does not see: its gradient is rounding alone, and
    Adam makes whole steps of it.
    """
    if not name.endswith(("in_proj_bias", "qkv.bias")):
        return value
    query, _, values = value.chunk(3)
    return torch.cat([query, values])
