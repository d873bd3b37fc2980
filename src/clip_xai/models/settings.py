"""Settings of models that are read before torch is: nothing here imports it."""

from __future__ import annotations

TEMPLATE = "Similar photographs show: {captions} This photograph shows:"  # of a prompt with retrieved captions
