"""``python -m clip_xai.explanations.measures``: the names of all measures, as protocols take them."""

from __future__ import annotations

from clip_xai.explanations.measures.table import MEASURES

for key, measure in MEASURES.items():
    better = "lower is better" if measure.falling else "higher is better"
    print(f"{key:40} {measure.title}; {better if measure.ranked else 'shown, not ranked by'}")
