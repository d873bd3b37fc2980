"""The renderer of chest radiographs and of a small image folder, and the writers of their layouts."""
