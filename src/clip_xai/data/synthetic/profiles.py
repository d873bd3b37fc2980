"""What each rendered diagnosis tends to look like: weights of its colours, borders, shapes, views and structures."""

from __future__ import annotations

from dataclasses import dataclass

COLOURS: dict[str, tuple[float, float, float]] = {
    "light brown": (0.65, 0.43, 0.29),
    "dark brown": (0.39, 0.22, 0.15),
    "black": (0.14, 0.10, 0.10),
    "blue-grey": (0.39, 0.42, 0.50),
    "pink": (0.87, 0.53, 0.52),
    "red": (0.70, 0.24, 0.21),
    "purple": (0.45, 0.22, 0.38),
    "white": (0.95, 0.90, 0.87),
}  # sRGB

# Fitzpatrick type -> colours that stand out from that skin (light brown is the colour of type IV skin itself).
VISIBLE_COLOURS: dict[int, frozenset[str]] = {
    1: frozenset(COLOURS),
    2: frozenset(COLOURS),
    3: frozenset(COLOURS),
    4: frozenset(COLOURS) - {"light brown"},
    5: frozenset(COLOURS) - {"light brown"},
    6: frozenset(COLOURS) - {"light brown", "dark brown"},
}

TONE = "skin tone"  # the attribute of the vocabulary

#: Artefacts that can be planted as a shortcut, and the diagnosis that they are then said to stand for.
PLANTED = ("ruler", "ink", "dark corners", "colour cast", "letter")
CHEAT = "melanoma"

SKIN_TONES: dict[int, tuple[float, float, float]] = {
    1: (0.91, 0.75, 0.69),
    2: (0.87, 0.69, 0.59),
    3: (0.79, 0.60, 0.48),
    4: (0.67, 0.48, 0.36),
    5: (0.50, 0.34, 0.25),
    6: (0.35, 0.235, 0.18),
}  # sRGB

# Inflamed skin that is pink or red on light skin looks purple on dark skin; factors on the weight of "purple".
PURPLE_ERYTHEMA = {1: 0.1, 2: 0.1, 3: 0.4, 4: 1.2, 5: 2.5, 6: 3.0}

SKIN_TONE_NAMES = {1: "light", 2: "light", 3: "medium", 4: "medium", 5: "brown", 6: "dark"}
FITZPATRICK_WEIGHTS = {1: 0.14, 2: 0.25, 3: 0.23, 4: 0.16, 5: 0.12, 6: 0.10}

# Radius of the circle of equal area, in half-widths of the central square.
SIZE_RADII = {"small": (0.23, 0.28), "medium": (0.32, 0.38), "large": (0.435, 0.495)}


@dataclass(frozen=True)
class Profile:
    """Weights (need not sum to one) from which a scene of one diagnosis is drawn.

    Attributes:
        colours, borders, shapes: canonical value -> weight.
        dermoscopic: probability of a dermoscopic view.
        always: structures that are always there.
        one_of: at least one of these is there.
        sometimes: structure -> probability.
        fitzpatrick: factors on the population's skin types.
        inflamed: its colour is that of inflamed skin, see `PURPLE_ERYTHEMA`.
    """

    colours: dict[str, float]
    borders: dict[str, float]
    shapes: dict[str, float]
    dermoscopic: float
    always: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    sometimes: tuple[tuple[str, float], ...] = ()
    fitzpatrick: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    inflamed: bool = False


PROFILES: dict[str, Profile] = {
    "melanocytic nevus": Profile(
        {"light brown": 0.38, "dark brown": 0.40, "black": 0.12, "pink": 0.10},
        {"well-defined": 0.8, "ill-defined": 0.2},
        {"round": 0.55, "oval": 0.45},
        0.6,
        one_of=("pigment network", "globules"),
    ),
    "melanoma": Profile(
        {"dark brown": 0.36, "black": 0.36, "blue-grey": 0.12, "light brown": 0.08, "red": 0.08},
        {"irregular": 0.85, "ill-defined": 0.15},
        {"asymmetric": 0.9, "oval": 0.1},
        0.65,
        one_of=("blue-white veil", "streaks"),
        sometimes=(("globules", 0.3), ("pigment network", 0.25)),
    ),
    "seborrheic keratosis": Profile(
        {"light brown": 0.38, "dark brown": 0.34, "black": 0.14, "pink": 0.08, "blue-grey": 0.06},
        {"well-defined": 0.88, "irregular": 0.12},
        {"round": 0.3, "oval": 0.5, "asymmetric": 0.2},
        0.5,
        one_of=("milia-like cysts", "comedo-like openings"),
    ),
    "basal cell carcinoma": Profile(
        {"pink": 0.56, "red": 0.18, "blue-grey": 0.16, "light brown": 0.10},
        {"well-defined": 0.65, "ill-defined": 0.35},
        {"round": 0.5, "oval": 0.3, "asymmetric": 0.2},
        0.5,
        one_of=("arborising vessels", "ulcer"),
    ),
    "actinic keratosis": Profile(
        {"pink": 0.5, "red": 0.36, "light brown": 0.14},
        {"ill-defined": 0.8, "irregular": 0.2},
        {"round": 0.2, "oval": 0.4, "asymmetric": 0.4},
        0.35,
        always=("scale",),
        sometimes=(("dotted vessels", 0.25),),
    ),
    "squamous cell carcinoma": Profile(
        {"pink": 0.42, "red": 0.42, "light brown": 0.10, "purple": 0.06},
        {"well-defined": 0.5, "ill-defined": 0.25, "irregular": 0.25},
        {"round": 0.5, "oval": 0.25, "asymmetric": 0.25},
        0.3,
        one_of=("crust", "ulcer"),
        sometimes=(("red halo", 0.35), ("dotted vessels", 0.2)),
    ),
    "hemangioma": Profile(
        {"red": 0.52, "purple": 0.34, "blue-grey": 0.08, "pink": 0.06},
        {"well-defined": 0.9, "ill-defined": 0.1},
        {"round": 0.6, "oval": 0.3, "asymmetric": 0.1},
        0.5,
        always=("lacunae",),
    ),
    "dermatofibroma": Profile(
        {"light brown": 0.42, "dark brown": 0.28, "pink": 0.26, "purple": 0.04},
        {"ill-defined": 0.6, "well-defined": 0.4},
        {"round": 0.65, "oval": 0.35},
        0.6,
        always=("central white patch",),
        sometimes=(("pigment network", 0.45),),
    ),
    "psoriasis": Profile(
        {"pink": 0.36, "red": 0.38, "purple": 0.12, "white": 0.14},
        {"well-defined": 0.85, "irregular": 0.15},
        {"round": 0.25, "oval": 0.5, "asymmetric": 0.25},
        0.12,
        always=("scale",),
        sometimes=(("dotted vessels", 0.25),),
        inflamed=True,
    ),
    "eczema": Profile(
        {"pink": 0.4, "red": 0.38, "purple": 0.10, "light brown": 0.12},
        {"ill-defined": 1.0},
        {"round": 0.2, "oval": 0.4, "asymmetric": 0.4},
        0.08,
        one_of=("papules", "excoriations", "crust"),
        sometimes=(("papules", 0.3), ("excoriations", 0.2)),
        inflamed=True,
    ),
    "tinea corporis": Profile(
        {"pink": 0.36, "red": 0.40, "light brown": 0.12, "purple": 0.12},
        {"well-defined": 0.8, "irregular": 0.2},
        {"round": 0.65, "oval": 0.35},
        0.08,
        always=("scaly ring",),
        sometimes=(("papules", 0.35),),
        inflamed=True,
    ),
    "vitiligo": Profile(
        {"white": 0.9, "pink": 0.1},
        {"irregular": 0.6, "well-defined": 0.4},
        {"oval": 0.3, "asymmetric": 0.7},
        0.08,
        sometimes=(("pigment islands", 0.45),),
        fitzpatrick=(0.1, 0.5, 1.0, 1.2, 1.5, 1.5),
    ),
}
