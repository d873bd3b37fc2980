"""Which explainers can be believed for one model: what judging them came to, kept beside its checkpoint.

``explainer_ranking.json`` holds, for each kind of thing that is explained, the correctness of every method, whether it
is above the same method at random weights, and its seconds. ``xai=best`` chooses by it, and pages order methods by it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from clip_xai.errors import UserError
from clip_xai.explanations.evidence_calibration import folder_of
from clip_xai.files import write_json
from clip_xai.text import counted, with_bounds
from clip_xai.xai.explainer import Explainer, explainers
from clip_xai.xai.targets.base import CAPTION, needing

log = logging.getLogger(__name__)
FILE = "explainer_ranking.json"
DIAGNOSIS, STRUCTURE, CONTRAST = "diagnosis", "structure", "contrast"
JUDGE = "python evaluate.py task=explanations ckpt=..."


@dataclass(frozen=True)
class MethodJudged:
    """One method on one kind of thing.

    Attributes:
        method: Its name.
        settings: Its settings.
        value: Its correctness: agreement of its maps with the true effects of parts, .5 for a map that knows nothing.
        low: Lower bound of the 95 % interval over scenes; None where there are too few.
        high: Upper bound.
        leads: Whether it is above itself at random weights, corrected for all methods.
        seconds: For one photograph; None where that was not measured.
    """

    method: str
    settings: Mapping[str, Any]
    value: float
    low: float | None
    high: float | None
    leads: bool
    seconds: float | None


@dataclass(frozen=True)
class ExplainerRanking:
    """What judging the explainers of a model came to.

    Attributes:
        model: Fingerprints of the model, by part.
        scenes: On how many fresh scenes.
        kinds: The methods of each kind, the best lower bound first.
        file: Its name beside a checkpoint.
        measure: By what methods are ranked, in words.
        picture: What they were judged on.
        fails: What a method does not do that cannot be believed.
    """

    file: ClassVar[str] = FILE
    measure: ClassVar[str] = "correctness"
    picture: ClassVar[str] = "scene"
    fails: ClassVar[str] = "agrees with the true effects better than at random weights"

    model: Mapping[str, str]
    scenes: int
    kinds: Mapping[str, Sequence[MethodJudged]]

    @staticmethod
    def kinds_asked(targets: Collection[str]) -> list[str]:
        """Return the kinds that targets are of: words of a caption, and what a text has to do with the picture.

        Args:
            targets: Names of targets.

        Raises:
            UserError: One is of neither.
        """
        found: dict[str, None] = {}
        for name in targets:
            if name not in {*needing(CAPTION), "similarity", "contrast", "class"}:
                raise UserError(f"xai=best: target={name} was not judged; choose xai=NAME, or another target")
            of_caption = STRUCTURE if name == "caption_word" else DIAGNOSIS
            found[of_caption if name in needing(CAPTION) else CONTRAST] = None
        return list(found)

    def best(self, kind: str) -> MethodJudged:
        """Return the method to be believed: the cheapest of those that cannot be told from the best.

        Those are counted that are above themselves at random weights. The best has the highest lower bound; a cheaper
        one is taken whose interval overlaps its own.

        Raises:
            UserError: Nothing was judged of this kind, or no method is above itself at random weights.
        """
        judged = self.kinds.get(kind, ())
        if not judged:
            raise UserError(
                f"xai=best: no map of the {kind} was judged: run {JUDGE} on more scenes, or choose xai=NAME"
            )
        able = [one for one in judged if one.leads and one.low is not None and one.high is not None]
        if not able:
            raise UserError(
                f"xai=best: of the {kind} none of {counted(len(judged), 'method')} {self.fails}, on "
                f"{counted(self.scenes, self.picture)}: choose xai=NAME and believe no map, or judge on more "
                f"{self.picture}s"
            )
        top = max(able, key=lambda one: one.low or 0.0)
        alike = [one for one in able if (one.high or 0.0) >= (top.low or 0.0)]
        return min(alike, key=lambda one: float("inf") if one.seconds is None else one.seconds)

    def save(self, place: Path) -> Path:
        """Write it beside a model.

        Args:
            place: The exported model's directory, or a ``.ckpt`` file.
        """
        file = folder_of(place) / self.file
        kinds = {kind: [asdict(one) for one in judged] for kind, judged in self.kinds.items()}
        write_json(file, {"model": dict(self.model), "scenes": self.scenes, "kinds": kinds})
        return file


Kept = TypeVar("Kept", bound=ExplainerRanking)


def ranking_beside(place: Path | None, model: Mapping[str, str]) -> ExplainerRanking | None:
    """Return the ranking beside a checkpoint if it is of this very model.

    Args:
        place: The exported model's directory, or a ``.ckpt`` file; None where a tower is explained by itself.
        model: Fingerprints of the model.
    """
    return read_beside(ExplainerRanking, place, model)


def read_beside(what: type[Kept], place: Path | None, model: Mapping[str, str]) -> Kept | None:
    """Return a ranking of some class beside a checkpoint if it is of this very model; see :func:`ranking_beside`."""
    file = None if place is None else folder_of(place) / what.file
    if file is None or not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        kinds = {kind: tuple(MethodJudged(**one) for one in judged) for kind, judged in found["kinds"].items()}
        ranking = what(found["model"], int(found["scenes"]), kinds)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s cannot be read and is skipped: %s", file, error)
        return None
    if dict(ranking.model) != dict(model):
        log.warning("%s is of another model and is skipped: judge again with %s", file, JUDGE)
        return None
    return ranking


def in_order(
    methods: Sequence[Explainer], ranking: ExplainerRanking | None, targets: Collection[str]
) -> tuple[list[Explainer], str]:
    """Return methods by their correctness on the first kind that is asked, those that were not judged last.

    Args:
        methods: The methods.
        ranking: Of the model; None where it was not judged: then they stay as they are.
        targets: Names of targets.

    Returns:
        The methods, and what a reader has to know of their order; nothing where they were not judged.
    """
    asked = [name for name in targets if name in {*needing(CAPTION), "similarity", "contrast", "class"}]
    if ranking is None or not asked:
        return list(methods), ""
    kind = ranking.kinds_asked(asked)[0]
    judged = {one.method: one for one in ranking.kinds.get(kind, ()) if one.settings == _plain(one.method, methods)}
    if not judged:
        return list(methods), ""
    order = {name: number for number, name in enumerate(judged)}
    said = f"methods by their {ranking.measure} for the {kind}, judged on {counted(ranking.scenes, ranking.picture)}"
    if not any(one.leads for one in judged.values()):
        said = f"of the {kind} no method {ranking.fails}, judged on {counted(ranking.scenes, ranking.picture)}"
    return sorted(methods, key=lambda method: order.get(method.name, len(order))), said


def _plain(name: str, methods: Sequence[Explainer]) -> Any:
    """The settings of a method as the file has them."""
    return next((json.loads(json.dumps(dict(one.settings), default=str)) for one in methods if one.name == name), None)


def best_explainers(ranking: ExplainerRanking | None, targets: Collection[str]) -> list[Explainer]:
    """Return the methods to be believed of what is asked, and say in the log which and why.

    Args:
        ranking: Of the model.
        targets: Names of targets.

    Raises:
        UserError: The model was not judged, or no method can be believed.
    """
    if ranking is None:
        raise UserError(
            f"xai=best: the explainers of this model were not judged: run {JUDGE} first, or choose xai=NAME"
        )
    chosen: dict[str, Explainer] = {}
    for kind in ranking.kinds_asked(targets):
        one = ranking.best(kind)
        said = f"{ranking.measure} {with_bounds(one.value, one.low, one.high)}"
        log.info("xai=best: %s for the %s, %s on %s", one.method, kind, said, counted(ranking.scenes, ranking.picture))
        chosen[one.method] = explainers.named(one.method, "explainer")(**one.settings)
    return list(chosen.values())
