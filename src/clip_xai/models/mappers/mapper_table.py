"""The table of mappers, from the code that builds them."""

from __future__ import annotations

import torch

from clip_xai.models.mappers.base import mappers
from clip_xai.models.mappers.mapper_builder import build_mapper

# DermLIP's ViT-B/16 beside GPT-2 small, and beside GPT-2 medium as in the original.
TOWER = {"embed_dim": 512, "width": 768, "grid": (14, 14)}
LANGUAGE_MODELS = {"GPT-2": (768, 12), "GPT-2 medium": (1024, 24)}


def mapper_table() -> str:
    """Return a Markdown table of every mapper at its default settings; weights are counted without being made."""
    head = [
        "`mapper=`",
        "reads",
        "what it does",
        "slots",
        "memory",
        *(f"parameters, {name}" for name in LANGUAGE_MODELS),
    ]
    rows = [head, ["---"] * 3 + ["---:"] * (len(head) - 3)]
    for name, cls in mappers.items():
        counts = []
        for width, blocks in LANGUAGE_MODELS.values():
            with torch.device("meta"):
                mapper = build_mapper(name, embedding_dim=width, blocks=blocks, **TOWER)  # type: ignore[arg-type]
            counts.append(f"{sum(p.numel() for p in mapper.parameters()) / 1e6:.1f} M")
        slots = mapper.prefix_length - mapper.memory_length
        rows.append([f"`{name}`", cls.reads, cls.idea, str(slots), str(mapper.memory_length or "–"), *counts])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
