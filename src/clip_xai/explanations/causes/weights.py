"""The weights that a map was made with."""

from __future__ import annotations

TRAINED, RANDOM, BLIND = "trained", "random", "none"
