"""Photographs that fit the small captioner, for every test of training."""

from __future__ import annotations

from tests.support.small_captioner import records

__all__ = ["records"]
