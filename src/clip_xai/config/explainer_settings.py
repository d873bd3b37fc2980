"""The settings of every explainer, without importing one: a mistyped setting is refused before torch is loaded.

Each line holds the names and defaults of an explainer's fields, in the order of ``clip_xai.xai.methods.METHODS``; a
test compares the two. What a setting means stands with the explainer's class.
"""

from __future__ import annotations

from copy import copy
from dataclasses import field, make_dataclass
from functools import partial
from typing import Any, Optional


def _settings(name: str, **defaults: Any) -> type:
    """Return a dataclass with these fields; the type of each is that of its default."""
    items = []
    for key, value in defaults.items():
        if isinstance(value, (list, dict)):
            kind = list[type(value[0])] if isinstance(value, list) else dict[str, Any]  # type: ignore[misc]
            items.append((key, kind, field(default_factory=partial(copy, value))))
        else:
            items.append((key, type(value), field(default=value)))
    title = "".join(part.capitalize() for part in name.split("_"))
    return make_dataclass(f"{title}Settings", items, namespace={"__module__": __name__, "__doc__": f"xai.{name}."})


_DEFAULTS: dict[str, dict[str, Any]] = {
    "gradcam": {"layer": -1},
    "gradcam_plusplus": {"layer": -1, "epsilon": 1e-06},
    "layercam": {"layer": -1},
    "hirescam": {"layer": -1},
    "scorecam": {"layer": -1, "weighting": "softmax", "temperature": 0.0, "fill": 0.0, "chunk_size": 64},
    "ablationcam": {"layer": -1, "ablation": "zero", "chunk_size": 64},
    "abscam_init": {"layer": -1},
    "abscam_final": {"layer": -1, "fill": 0.0, "chunk_size": 64},
    "attention_rollout": {"head_fusion": "mean"},
    "attention_gradient": {"start_layer": 0},
    "gradeclip": {"layer": -1, "layers": 1, "heads": "per_head"},
    "legrad": {"layers": 2},
    "clip_surgery": {"layers": 6, "redundancy": "empty"},
    "saliency": {"resolution": "patches"},
    "input_x_gradient": {"resolution": "patches"},
    "smoothgrad": {
        "samples": 32,
        "noise": 0.15,
        "squared": False,
        "seed": 0,
        "resolution": "patches",
        "chunk_size": 16,
    },
    "integrated_gradients": {"steps": 32, "baseline": "mean", "resolution": "patches", "chunk_size": 16},
    "gradient_shap": {
        "samples": 32,
        "noise": 0.0,
        "baseline": "all",
        "seed": 0,
        "resolution": "patches",
        "chunk_size": 16,
    },
    "guided_backprop": {"resolution": "patches"},
    "embedding_space": {"method": "input_x_gradient", "mode": "collapsed", "options": {}, "chunk_size": 64},
    "occlusion": {"window": 2, "stride": 1, "fill": 0.0, "chunk_size": 64},
    "rise": {
        "masks": 1000,
        "cells": 7,
        "keep": 0.5,
        "kind": "bernoulli",
        "spread": 0.25,
        "normalisation": "centred",
        "fill": 0.0,
        "seed": 0,
        "chunk_size": 64,
    },
    "kernelshap": {"players": "grid", "cells": 7, "samples": 1000, "fill": 0.0, "seed": 0, "chunk_size": 64},
    "extremal_perturbation": {
        "areas": [0.1],
        "variant": "preserve",
        "perturbation": "blur",
        "iterations": 200,
        "cells": 32,
        "smoothing": 3.0,
        "blur": 0.09,
        "scale": 0.0,
        "jitter": True,
        "chunk_size": 16,
    },
    "cci": {"clusters": 7, "seed": 0, "chunk_size": 64},
    "m2ib": {"layer": -3, "beta": 0.1, "steps": 10, "rate": 1.0, "draws": 10, "seed": 0, "chunk_size": 64},
    "fixlip": {
        "index": "banzhaf",
        "presence": 0.5,
        "cells": 7,
        "images": 500,
        "texts": 256,
        "nodes": 4,
        "absent": "delete",
        "fill": 0.0,
        "seed": 0,
        "chunk_size": 64,
    },
    "token_gradxinput": {},
    "token_integrated_gradients": {"steps": 50},
    "token_occlusion": {"absent": "delete", "chunk_size": 64},
    "token_kernelshap": {"samples": 512, "absent": "delete", "seed": 0, "chunk_size": 64},
    "token_gradeclip": {"layers": 8},
    "token_attention_gradient": {"start_layer": 0},
}

SETTINGS: dict[str, type] = {name: _settings(name, **defaults) for name, defaults in _DEFAULTS.items()}
EXPLAINERS: tuple[str, ...] = tuple(SETTINGS)

# Null: the method is not asked for. ``xai=[gradcam,gradeclip]`` fills in two of the fields.
XaiConfig: Any = make_dataclass(
    "XaiConfig",
    [(name, Optional[settings], field(default=None)) for name, settings in SETTINGS.items()],  # noqa: UP045
    namespace={
        "__module__": __name__,
        "__doc__": "Which explainers, each with its settings.",
    },
)
