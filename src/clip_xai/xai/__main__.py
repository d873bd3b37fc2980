"""Print the table of explainers: ``python -m clip_xai.xai``."""

from clip_xai.xai.explainer_table import markdown

print(markdown())
