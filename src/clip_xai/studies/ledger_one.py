"""One of the two captioners of the ledger's study: trained, judged on fresh scenes and measured, in its own process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.explanations.causes.followed import DIRECT, WordFollower
from clip_xai.explanations.causes.followed_measures import measure_followed
from clip_xai.explanations.causes.one_scene import causes_of
from clip_xai.explanations.causes.scene_targets import Asker
from clip_xai.explanations.causes.scenes import fresh_scenes
from clip_xai.explanations.ledger import LedgerSettings
from clip_xai.explanations.other_patients import drawn_statements
from clip_xai.files import replacing, write_text
from clip_xai.models.captioner import Captioner
from clip_xai.models.weights import load_captioner
from clip_xai.progress import track
from clip_xai.report.explained import title_of
from clip_xai.studies.ledger_captioners import LAST, Pictures, Recipe, pictures, trained, untrained
from clip_xai.studies.ledger_judged import Judged, judge, moved_by_swaps
from clip_xai.studies.ledger_measures import KINDS, calibrated, fitted_temperature, measured_of, measured_swaps
from clip_xai.xai.explainer import explainers
from clip_xai.xai.slots import DIAGNOSIS

FOLLOWED = ("saliency", "attention_gradient", "gradeclip")


@dataclass(frozen=True)
class Plan:
    """What is done with each of the two.

    Attributes:
        run_dir: Where everything is written.
        vocabulary: The file that captions are read with.
        recipe: How both are trained.
        scenes: Fresh scenes that the ledger is judged on, by order: the first so many of the same ones.
        validation: Other scenes, which a temperature is fitted on.
        followed: Of the fresh scenes so many have maps that follow the words.
        how: How ledgers are taken.
        seed: Of the scenes that captioners are judged on, and of all draws.
    """

    run_dir: Path
    vocabulary: Path
    recipe: Recipe
    scenes: Mapping[str, int]
    validation: int
    followed: int
    how: LedgerSettings
    seed: int

    def place(self, order: str) -> Path:
        """Where a captioner is kept."""
        return self.run_dir / order.replace(" ", "_")

    def result(self, order: str) -> Path:
        """Where what is measured of it is written."""
        return self.run_dir / f"{order.replace(' ', '_')}.json"

    def is_trained(self, order: str) -> bool:
        """Whether it was trained before."""
        return (self.place(order) / "model.safetensors").is_file()

    def learned(self, reader: Captioner) -> Pictures:
        """The scenes that captioners learn from."""
        return pictures(self.recipe.scenes, 3 * self.recipe.seed, reader, self.kept)

    def tested(self, reader: Captioner, order: str) -> Pictures:
        """The fresh scenes that a captioner is judged on."""
        found = pictures(max(self.scenes.values()), 3 * self.seed + 1, reader, self.kept)
        count = self.scenes[order]
        return Pictures(found.scenes[:count], found.read[:count])

    def checked(self, reader: Captioner) -> Pictures:
        """The scenes of the temperature."""
        return pictures(self.validation, 3 * self.seed + 2, reader, self.kept)

    @property
    def kept(self) -> Path:
        """Where what the tower reads is kept, until both captioners are measured."""
        return self.run_dir / "pictures"


def measure_captioner(plan: Plan, order: str) -> None:
    """Train one captioner, or load it, measure all that is known of it, and write that down.

    Args:
        plan: What is done.
        order: ``diagnosis first`` or ``diagnosis last``.
    """
    write_text(plan.result(order), json.dumps(_measured(plan, order)))


def _measured(plan: Plan, order: str) -> dict[str, Any]:
    vocabulary, seed = load_vocabulary(str(plan.vocabulary)), plan.seed
    reader = untrained(vocabulary)
    if plan.is_trained(order):
        captioner = load_captioner(plan.place(order))
    else:
        captioner = trained(plan.place(order), order, plan.learned(reader), plan.recipe, vocabulary)
    tested = plan.tested(reader, order)
    judged = judge(captioner, tested, plan.how, seed, plan.place(order) / "scenes")
    _write(judged, plan, order)
    found = measured_of(judged, seed)
    if order != LAST:
        return found | {"followed less direct": followed_less_direct(captioner, plan)}
    swaps = moved_by_swaps(captioner, tested, judged, seed)
    with replacing(plan.run_dir / "swaps.parquet") as unfinished:
        swaps.to_parquet(unfinished, index=False)
    found["swaps"] = measured_swaps(swaps, seed)
    checked, samples = plan.checked(reader), plan.how.samples
    drawn = [
        drawn_statements(captioner, checked.read[row : row + 1], samples, seed, [row])[0]
        for row in track(range(plan.validation), "Captions of validation scenes")
    ]
    temperature = fitted_temperature(drawn, checked, samples, vocabulary)
    at = partial(calibrated, judged.stated, tested, samples, vocabulary, seed=seed)
    before, after = at(temperature=1.0), at(temperature=temperature)
    found["calibration"] = {"temperature": temperature} | {
        kind: {"before": asdict(before[kind]), "after": asdict(after[kind])} for kind in KINDS
    }
    return found


def followed_less_direct(captioner: Captioner, plan: Plan, methods: Sequence[str] = FOLLOWED) -> dict[str, Any]:
    """Return how much better maps of the diagnosis that follow the words agree with its causes than direct ones do.

    Rank agreement of parts' shares of the map with their effects on captions written anew, paired by scene, by method.
    """
    seed = plan.seed
    asker = Asker(captioner.backbone, captioner, samples=plan.how.of_others, seed=seed)
    follower = WordFollower.of(asker, plan.how)
    scenes = fresh_scenes(plan.followed, captioner.backbone.preprocess, 3 * seed + 1)
    asked = [explainers[name]() for name in methods]
    causes = [
        causes_of(asker, scene, asked, seed=seed, follower=follower) for scene in track(scenes, "Maps that follow")
    ]
    measured = measure_followed(causes, DIAGNOSIS, seed)
    return {title_of(one.method): asdict(one.differences[DIRECT]) for one in measured}


def _write(judged: Judged, plan: Plan, order: str) -> None:
    with replacing(plan.run_dir / f"words_{order.replace(' ', '_')}.parquet") as unfinished:
        judged.words.to_parquet(unfinished, index=False)
