"""One scene: what each part does to each word, by drawing it again, and how much of each map lies on each part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clip_xai.data.synthetic.parts import surroundings_anew
from clip_xai.explanations.causes.followed import Followed, WordFollower
from clip_xai.explanations.causes.games import Coalitions
from clip_xai.explanations.causes.maps import controls, explained, masses
from clip_xai.explanations.causes.scene_targets import Asker, SceneQuestion
from clip_xai.explanations.causes.scenes import FRESH, DrawnScene
from clip_xai.explanations.causes.weights import BLIND, RANDOM, TRAINED
from clip_xai.explanations.measures.pictures import MapMeasures, MeasuredPicture
from clip_xai.explanations.measures.scenes import asked_scene
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.report.ledger import Ledger
from clip_xai.xai.explainer import Explainer

_OTHER = FRESH // 2  # added to a scene's seed: what is drawn anew around its lesion


@dataclass(frozen=True)
class Verdicts:
    """Whether a scene is a clean case for one thing asked.

    Attributes:
        right: The scene shows what is stated.
        flips: It is no longer stated when the parts that it ought to rest on are gone.
        stays: It is stated all the same when everything but the lesion is drawn anew.
    """

    right: bool
    flips: bool
    stays: bool

    @property
    def passes(self) -> bool:
        """All three."""
        return self.right and self.flips and self.stays


@dataclass(frozen=True)
class SceneCauses:
    """Effects and masses of one scene with n parts and T things asked.

    Attributes:
        seed: The scene's.
        caption: What is written of it; empty for a CLIP by itself.
        parts: Names of the parts.
        kinds: Their kinds.
        hidden: Parts that the square does not show.
        names: What is asked: ``diagnosis``, ``structure``, ``contrast``.
        labels: The same for people.
        verdicts: For each of them.
        coalitions: The drawings.
        values: Score of each drawing, ``[C, T]``, in nats: log-odds on the fixed caption, or of the contrast's texts.
        anew: Log-odds in captions written anew, ``[C, T]``; NaN for the contrast.
        masses: (method, weights) -> how much of its map lies on each part, signed and positive, ``[T, n, 2]``.
        seconds: Method -> seconds for all that is asked.
        left_out: What could not be asked, with the reason.
        refused: Why a method has no map of something, or a map is not measured, a sentence each.
        measured: Label-free and region measures of the maps, a row for each thing asked, measure, method and weights;
            of none where the scene was not to be measured.
        curves: Their insertion and deletion curves, a row for each point.
        ledger: What the words of the caption rest on; None where that was not asked.
        followed: (method, variant) -> how much of its composed maps lies on each part, ``[T, n]``.
    """

    seed: int
    caption: str
    parts: tuple[str, ...]
    kinds: tuple[str, ...]
    hidden: tuple[str, ...]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    verdicts: tuple[Verdicts, ...]
    coalitions: Coalitions
    values: NDArray[np.float64]
    anew: NDArray[np.float64]
    masses: dict[tuple[str, str], NDArray[np.float64]]
    seconds: dict[str, float]
    left_out: dict[str, str]
    refused: tuple[str, ...]
    ledger: Ledger | None = None
    followed: Followed = field(default_factory=dict)
    measured: tuple[dict[str, Any], ...] = ()
    curves: tuple[dict[str, Any], ...] = ()

    @cached_property
    def effects(self) -> NDArray[np.float64]:
        """Each part's Shapley value on the fixed caption, ``[n, T]``."""
        return self.coalitions.shapley(self.values)

    @cached_property
    def effects_anew(self) -> NDArray[np.float64]:
        """The same in captions written anew; NaN for the contrast."""
        return self.coalitions.shapley(self.anew)

    @property
    def bare(self) -> NDArray[np.float64]:
        """Scores of the lesion without any part, ``[T]``."""
        return self.values[self.coalitions.rows(np.zeros((1, len(self.parts)), bool))[0]]

    @property
    def whole(self) -> NDArray[np.float64]:
        """Scores of the whole scene, ``[T]``."""
        return self.values[self.coalitions.rows(np.ones((1, len(self.parts)), bool))[0]]

    @property
    def unmoved(self) -> NDArray[np.bool_]:
        """What stays likelier than its rivals when all parts are gone, ``[T]``: its map ought to be blank."""
        return (self.whole > 0) & (self.bare > 0)


def drawn_again(question: SceneQuestion, seed: int = 0) -> tuple[Coalitions, NDArray[np.float64], NDArray[np.float64]]:
    """Draw a scene with sets of its parts and score every drawing, encoding each once.

    Returns:
        The sets, scores on the fixed caption ``[C, T]``, and in captions written anew ``[C, T]``.
    """
    coalitions = Coalitions.of(len(question.drawn.players), seed)
    pooled, read = question.asker.encoded([question.drawn.draw(present) for present in coalitions.present])
    values = question.scores(pooled, read)
    return coalitions, values, np.full_like(values, np.nan) if read is None else question.scores_anew(read)


def verdicts_of(question: SceneQuestion) -> tuple[Verdicts, ...]:
    """Tell for everything asked whether it is right, flips without its causes, and stays when all else changes."""
    drawn = question.drawn
    again = surroundings_anew(drawn.scene, drawn.scene.seed + _OTHER)
    pictures = [drawn.draw(drawn.without_names(one.causes)) for one in question.asked]
    held = question.holds([*pictures, drawn.drawn_as(again)])
    return tuple(
        Verdicts(one.right, bool(one.causes) and not held[number, number], bool(held[-1, number]))
        for number, one in enumerate(question.asked)
    )


def causes_of(
    asker: Asker,
    drawn: DrawnScene,
    methods: Sequence[Explainer],
    twin: VisionBackbone | None = None,
    seed: int = 0,
    follower: WordFollower | None = None,
    measures: MapMeasures | None = None,
) -> SceneCauses:
    """Measure one scene.

    Args:
        asker: The model.
        drawn: The scene.
        methods: What explains it.
        twin: The tower at random weights; None to leave it out.
        seed: Seed of random maps and orders.
        follower: What maps that follow the words are composed with; None for none.
        measures: What else is measured of every map; None for nothing.
    """
    question = SceneQuestion.of(asker, drawn)
    things, parts = len(question.asked), drawn.players
    coalitions, values, anew = drawn_again(question, seed)
    effects = coalitions.shapley(values)
    maps = explained(question, methods, asker.backbone)
    every = {(name, TRAINED): own for name, own in maps.values.items()}
    if twin is not None:
        every |= {(name, RANDOM): own for name, own in explained(question, methods, twin).values.items()}
    every |= {(name, BLIND): own for name, own in controls(question, effects, seed).items()}
    ledger, followed, lost = (None, {}, []) if follower is None else follower.masses(question, methods, maps.values)
    measured = MeasuredPicture() if measures is None else measures.of(asked_scene(question, measures.seed), every)
    return SceneCauses(
        seed=drawn.scene.seed,
        caption="" if question.caption is None else question.caption.text,
        parts=tuple(part.name for part in parts),
        kinds=tuple(part.kind for part in parts),
        hidden=drawn.hidden,
        names=tuple(one.name for one in question.asked),
        labels=tuple(one.label for one in question.asked),
        verdicts=verdicts_of(question),
        coalitions=coalitions,
        values=values,
        anew=anew,
        masses={method: masses(own, drawn.masks, things) for method, own in every.items()},
        seconds=maps.seconds,
        left_out=question.left_out,
        refused=tuple(dict.fromkeys((*maps.left_out, *lost, *measured.left_out))),
        ledger=ledger,
        followed=followed,
        measured=measured.rows,
        curves=measured.curves,
    )
