"""Checkpoints on disk: whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from clip_xai.files import reading, replacing


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there.

    Lightning's own writes it into the directory for temporary files. Where that is another disk, moving it copies it,
    and a full disk or a kill then leaves a part of it in the place of the one before.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: The disk is full; the earlier checkpoint stays.
        """
        place, buffer = Path(path), io.BytesIO()
        place.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, buffer)
        with replacing(place) as unfinished:
            unfinished.write_bytes(buffer.getbuffer())


def read_checkpoint(path: Any) -> dict[str, Any]:
    """Load a checkpoint's plain containers and tensors onto the CPU; nothing in it can run code.

    Raises:
        UserError: The file is empty or damaged.
    """
    with reading(Path(path), "name another checkpoint"):
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content
