"""Measures of heat maps on any model and any photograph, with or without a mask."""
