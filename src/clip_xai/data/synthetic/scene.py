"""Synthetic pictures of skin lesions: a scene from a seed, and its rendering with exact masks.

>>> scene = sample_scene(7, diagnosis="melanoma", position="upper left")
>>> rendering = render(scene, height=192, width=256)
>>> rendering.image.shape, rendering.lesion_mask.dtype
((192, 256, 3), dtype('bool'))
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from clip_xai.data.synthetic.composition import VIEWS, Mark, Scene, sample_scene
from clip_xai.data.synthetic.distractors import ON_SKIN, ON_TOP, paint_distractors, paint_marks
from clip_xai.data.synthetic.fields import Canvas
from clip_xai.data.synthetic.lesion import lay_out, paint_body
from clip_xai.data.synthetic.profiles import COLOURS, PROFILES
from clip_xai.data.synthetic.skin import dark_corners, light_picture, paint_hair, paint_skin, shade
from clip_xai.data.synthetic.structures import paint_structures

__all__ = ["COLOURS", "MINIMUM_SIDE", "PROFILES", "VIEWS", "Mark", "Rendering", "Scene", "render", "sample_scene"]

MINIMUM_SIDE = 64
LESION, HAIR = "lesion", "hair"
_VISIBLE = 0.03  # Of white, in any channel: a pixel that an artefact changes less does not belong to its mask.


@dataclass(frozen=True)
class Rendering:
    """A drawn scene.

    Attributes:
        image: uint8 [H, W, 3], sRGB.
        lesion_mask: bool [H, W], inside the lesion's border (for a ring, what it encloses belongs to it).
        structure_masks: name -> bool [H, W]; a mask shows where a structure was painted, before hair lay over it.
        part_masks: name of any part -> bool [H, W], where it can be seen; empty unless it was asked for.
        touched: name of any part -> bool [H, W], every pixel that painting it changed at all.
    """

    image: np.ndarray
    lesion_mask: np.ndarray
    structure_masks: dict[str, np.ndarray]
    part_masks: dict[str, np.ndarray] = field(default_factory=dict)
    touched: dict[str, np.ndarray] = field(default_factory=dict)


def render(scene: Scene, height: int = 192, width: int = 256, parts: bool = False) -> Rendering:
    """Draw a scene; the composition is the same at every size, relative to the shorter side.

    Args:
        scene: what to draw.
        height: rows in pixels, at least 64.
        width: columns in pixels, at least 64.
        parts: whether to keep the masks of all parts, and not of the structures alone.

    Raises:
        ValueError: a side is below 64 pixels.
    """
    if min(height, width) < MINIMUM_SIDE:
        raise ValueError(f"{height} x {width} pixels are too few: both sides need at least {MINIMUM_SIDE}")
    canvas = Canvas((height, width), watched=parts)
    paint_skin(canvas, scene)
    paint_marks(canvas, scene)
    paint_distractors(canvas, scene, ON_SKIN)
    plot = lay_out(canvas, scene)
    windows: dict[str, np.ndarray] = {}
    if scene.body:
        with canvas.painting(LESION):
            paint_body(plot)
        windows = paint_structures(canvas, plot)
    shade(canvas, scene)
    paint_distractors(canvas, scene, ON_TOP)
    if scene.hair != "none":
        with canvas.painting(HAIR):
            paint_hair(canvas, scene)
    light_picture(canvas, scene)
    if "dark corners" in scene.distractors:
        with canvas.painting("dark corners"):
            dark_corners(canvas, scene)
    image = (np.clip(canvas.colour, 0, 1) * 255 + 0.5).astype(np.uint8)

    def placed(window: np.ndarray) -> np.ndarray:
        mask = np.zeros((height, width), bool)
        mask[plot.rows, plot.columns] = window
        return mask

    masks = {name: placed(window) for name, window in windows.items()}
    lesion = placed(plot.depth < 1) if scene.body else np.zeros((height, width), bool)
    visible = {name: change >= _VISIBLE for name, (change, _) in canvas.painted.items()}
    if LESION in visible:
        visible[LESION] = lesion
    touched = {name: changed for name, (_, changed) in canvas.painted.items()}
    return Rendering(image, lesion, masks, visible | masks if parts else {}, touched)
