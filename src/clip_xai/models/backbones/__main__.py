"""Print the table of backbones: ``python -m clip_xai.models.backbones``."""

from clip_xai.models.backbones.backbone_table import markdown

print(markdown())
