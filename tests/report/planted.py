"""Planted results: heat where we put it, on photographs that nobody needs to download."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from clip_xai.data.preprocess import Preprocess
from clip_xai.report.explained import LOG_PROBABILITY, ExplainedImage, Explanation, Item
from clip_xai.xai.explainer import explainers

CAPTION = "A brown melanoma with a blue-white veil in the upper left of the picture."
REFERENCE = "Melanoma, dark brown, upper left; blue-white veil."
HOSTILE = '"><script>alert(1)</script>.png'


def photograph(width: int = 256, height: int = 192, spot: tuple[float, float] = (0.35, 0.3)) -> Image.Image:
    """Skin-coloured noise with one dark spot at a fraction of width and height."""
    rng = np.random.default_rng(3)
    skin = np.array([214, 168, 142]) + rng.normal(0, 5, (height, width, 1))
    picture = Image.fromarray(np.clip(skin, 0, 255).astype(np.uint8))
    x, y, r = spot[0] * width, spot[1] * height, 0.1 * height
    ImageDraw.Draw(picture).ellipse((x - r, y - r, x + r, y + r), fill=(92, 56, 44))
    return picture


def mask(width: int = 256, height: int = 192, spot: tuple[float, float] = (0.35, 0.3)) -> np.ndarray:
    """The spot's own mask."""
    rows, columns = np.indices((height, width))
    return (columns + 0.5 - spot[0] * width) ** 2 + (rows + 0.5 - spot[1] * height) ** 2 < (0.1 * height) ** 2


def explained(name: str = "ISIC_0000001.jpg", width: int = 256, height: int = 192) -> ExplainedImage:
    """One photograph with a map for every method and word; word number t is hot in grid cell t."""
    found = [(match.group(), match.span()) for match in re.finditer(r"[\w-]+|\.", CAPTION)]
    words = [word for word, _ in found] + ["whole caption", "a photo of melanoma"]
    spans = [span for _, span in found] + [None, None]
    names = [LOG_PROBABILITY] * (len(words) - 1) + ["cosine"]
    rng = np.random.default_rng(5)
    scores = [-0.02 - 0.4 * float(rng.random()) ** 3 * len(word) / 3 for word in words]
    maps = np.zeros((len(words), 8, 8))
    for index in range(len(words)):
        maps[index].flat[index * 4 % 64] = 0.02 + 0.003 * index
    signed = rng.normal(0, 0.4, maps.shape) + 40 * maps
    tokens = ("[image]", *words[:-2])
    text = rng.normal(0, 1, (len(words), len(tokens)))
    for index in range(len(words) - 2):
        text[index, index + 1 :] = np.nan
    rollout = np.abs(signed[:1]).repeat(len(words), 0)
    every = tuple(range(len(words)))
    return ExplainedImage(
        name=name,
        photograph=photograph(width, height),
        geometry=Preprocess(96).geometry(width, height),
        items=tuple(Item(*item) for item in zip(words, scores, names, spans, strict=True)),
        explanations=(
            Explanation("gradeclip", {"blocks": [3], "heads": "mean"}, maps, every),
            Explanation("occlusion", {"window": 2, "stride": 1, "fill": "mean"}, signed, every),
            Explanation("attention_rollout", {"fusion": "mean"}, rollout, every, False),
            Explanation("token_gradxinput", {}, text, every, tokens=(tokens,) * len(words)),
        ),
        caption=CAPTION,
        references=(REFERENCE, "A melanoma <b>of the</b> skin & more."),
        mask=mask(width, height),
        facts={"source": "ham10000", "diagnosis": "melanoma"},
        measurements={"Grad-ECLIP": "pointing game hit, AUPRC 0.61"},
    )


def by_every_method() -> ExplainedImage:
    """The same photograph by all methods: number m is hot in cell m for anything but a single word, cold elsewhere."""
    image = explained()
    wholes = tuple(index for index, item in enumerate(image.items) if item.span is None)
    explanations = []
    for number, (name, method) in enumerate(explainers.items()):
        if method.modality == "text":
            values = np.zeros((len(wholes), 3))
            values[:, number % 3] = 1.0
            tokens = (("[image]", "brown", "melanoma"),) * len(wholes)
            explanations.append(Explanation(name, {"seed": number}, values, wholes, tokens=tokens))
        elif method.modality == "pair":
            values = np.zeros((len(wholes), 4, 8, 8))
            # Word by word, each in a place of its own; the last one is faint.
            values[:, [0, 1, 2, 3], [0, 3, 6, 7], [1, 4, 7, 0]] = [0.3, -0.2, 0.1, 0.01]
            tokens = (("brown", "melanoma", "upper", "of"),) * len(wholes)
            explanations.append(
                Explanation(name, {}, values.sum(axis=1), wholes, tokens=tokens, interactions=tuple(values))
            )
        else:
            values = np.zeros((len(wholes), 8, 8))
            values[:, number // 8, number % 8] = 1.0
            explanations.append(Explanation(name, {"seed": number}, values, wholes, method.text_dependent))
    return replace(image, explanations=tuple(explanations))
