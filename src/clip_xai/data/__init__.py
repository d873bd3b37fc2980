"""Photographs, captions, groups and splits: from publishers' folders to one manifest."""
