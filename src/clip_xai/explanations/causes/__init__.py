"""Causes that are known: scenes drawn again without a part, what each does to a score, and maps held against it."""
