"""What can be seen in a scene, in words: canonical facets, full captions and partial captions.

Every caption of a scene states the same facts; nothing is said that the picture does not show, except the diagnosis.
The words are chosen so that the reading rule of `clip_xai.data.vocabulary` recovers exactly these facts: colours stand
next to "lesion" or "in colour" and no structure is named by a bare colour, and skin tones always come with "skin".
"""

from __future__ import annotations

import re

import numpy as np

from clip_xai.data.synthetic.composition import Scene, stream
from clip_xai.data.synthetic.profiles import SKIN_TONE_NAMES

_BORDER_WORDS = {
    "well-defined": ("well-defined border", "sharp border"),
    "ill-defined": ("ill-defined border", "blurred border"),
    "irregular": ("irregular border", "notched border"),
}
_SINGULAR = {"pigment network", "blue-white veil", "ulcer", "central white patch", "red halo", "scaly ring"}

_DIAGNOSIS_CLAUSES = (
    "This is consistent with {dx}.",
    "This is most likely {dx}.",
)

# {border} comes with its article; {and} is the structures as the end of a phrase, {see} as a sentence; {dx} is the
# sentence with the diagnosis.
_TEMPLATES = (
    "a {view} photo of {tone} skin shows a {size}, {shape}, {colour} lesion in the {position} with {border}{and}. {dx}",
    "{view} image of {tone} skin: a {shape} {colour} lesion of {size} size lies in the {position}. "
    "it has {border}. {see}{dx}",
    "a {size} lesion in the {position} of the {view} photo is {colour} and {shape}, with {border}, "
    "on {tone} skin. {see}{dx}",
    "this {view} photo of {tone} skin shows a {shape} lesion with {border}. "
    "it is {size}, {colour} and in the {position}. {see}{dx}",
)


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _noun(structure: str) -> str:
    return _with_article(structure) if structure in _SINGULAR else structure


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _sentence_case(text: str) -> str:
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    return re.sub(r"(^|[.] )([a-z])", lambda match: match.group(1) + match.group(2).upper(), text)


def facets(scene: Scene) -> dict[str, str]:
    """Canonical value of every described fact; "structures" is a comma-separated list, or "none"."""
    return {
        "diagnosis": scene.diagnosis,
        "colour": scene.colour,
        "position": scene.position,
        "size": scene.size,
        "border": scene.border,
        "shape": scene.shape,
        "skin tone": SKIN_TONE_NAMES[scene.fitzpatrick],
        "structures": ", ".join(scene.structures) or "none",
        "view": scene.view,
    }


def _caption(scene: Scene, template: str, rng: np.random.Generator) -> str:
    values = facets(scene)
    nouns = [_noun(name) for name in scene.structures]
    see = f"it shows {_joined(nouns)}. " if nouns else ""
    and_ = f", showing {_joined(nouns)}" if nouns else ""
    clause = _DIAGNOSIS_CLAUSES[int(rng.integers(len(_DIAGNOSIS_CLAUSES)))].format(dx=scene.diagnosis)
    text = template.format(
        view=values["view"],
        tone=values["skin tone"],
        position=values["position"],
        size=values["size"],
        shape=values["shape"],
        colour=values["colour"],
        border=_with_article(_BORDER_WORDS[scene.border][0]),
        see=see,
        dx=clause,
        **{"and": and_},
    )
    return _sentence_case(text)


def describe(scene: Scene, count: int = 3) -> tuple[str, ...]:
    """`count` different captions of one scene, all with the same facts (deterministic; a longer list starts the same).

    Raises:
        ValueError: count is below 1, or there are not so many ways to say it.
    """
    ways = len(_TEMPLATES) * len(_DIAGNOSIS_CLAUSES)
    if not 1 <= count <= ways:
        raise ValueError(f"count must be at least 1 and at most {ways}, not {count}")
    rng = stream(scene.seed, "captions")
    captions: dict[str, None] = {}
    while len(captions) < count:
        for template in rng.permutation(len(_TEMPLATES)):
            captions.setdefault(_caption(scene, _TEMPLATES[int(template)], rng))
    return tuple(captions)[:count]


def facet_captions(scene: Scene, rng: np.random.Generator) -> dict[str, str]:
    """One short caption per facet (and for two pairs of facets) from which the facet's value can be read.

    Returns:
        Keys of `facets` plus "diagnosis+colour", "colour+position", "size+position" and "diagnosis+structures";
        every value is a function of those facets and of the variant drawn.
    """
    value = facets(scene)
    border = _BORDER_WORDS[scene.border]
    nouns = _joined([_noun(name) for name in scene.structures]) if scene.structures else "no visible structures"
    variants: dict[str, tuple[str, ...]] = {
        "diagnosis": (
            "a photo of {diagnosis}",
            "this is most likely {diagnosis}",
            "the findings suggest {diagnosis}",
            "a lesion typical of {diagnosis}",
        ),
        "colour": ("a {colour} lesion", "a photo of a {colour} lesion", "the lesion is {colour}"),
        "position": (
            "a lesion in the {position}",
            "the lesion is in the {position}",
            "in the {position} there is a lesion",
        ),
        "size": ("a {size} lesion", "a lesion of {size} size", "the lesion is {size}"),
        "border": (f"a lesion with {_with_article(border[0])}", f"the lesion has {_with_article(border[1])}"),
        "shape": ("a lesion, {shape} in shape", "a {shape} lesion", "the lesion is {shape}"),
        "skin tone": ("a lesion on {skin tone} skin", "a photo of {skin tone} skin"),
        "structures": (f"a lesion with {nouns}", f"the lesion shows {nouns}"),
        "view": ("a {view} photo", "a {view} image of skin"),
        "diagnosis+colour": ("a photo of {diagnosis}, {colour} in colour", "a {colour} lesion typical of {diagnosis}"),
        "colour+position": ("a {colour} lesion in the {position}", "in the {position} there is a {colour} lesion"),
        "size+position": ("a {size} lesion in the {position}", "in the {position} there is a {size} lesion"),
        "diagnosis+structures": (f"a lesion typical of {{diagnosis}} with {nouns}", f"{{diagnosis}} with {nouns}"),
    }
    captions = {}
    for facet, templates in variants.items():
        text = templates[int(rng.integers(len(templates)))].format(**value)
        captions[facet] = re.sub(r"\ba (?=[aeiou])", "an ", text)
    return captions
