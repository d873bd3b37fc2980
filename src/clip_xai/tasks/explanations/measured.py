"""Label-free and region measures in ``task=explanations``: what is measured, and the tables of what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from clip_xai.config.protocol_settings import ProtocolConfig
from clip_xai.data.synthetic.parts import sample_scene
from clip_xai.explanations.causes.scenes import DrawnScene, fresh_seeds
from clip_xai.explanations.causes.weights import BLIND, RANDOM
from clip_xai.explanations.measures.base import Measure
from clip_xai.explanations.measures.faithfulness import FFidelityGain
from clip_xai.explanations.measures.scenes import SceneMeasures
from clip_xai.explanations.measures.summary import EVERY, Summary
from clip_xai.explanations.measures.table import measures_named
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.report.pages import Table
from clip_xai.tasks.explanations.page import cell, title
from clip_xai.training.dropped_tokens import tuned_to_dropped_tokens
from clip_xai.xai.curve_protocols import REMOVALS
from clip_xai.xai.explainer import Explainer

F_FIDELITY = "f_fidelity"
TUNED_ON = 256  # scenes that no other part of a run draws
_DRAWS, _SIZES = 10, 10  # a fiftieth of what is published costs a hundred pictures a map
_TUNING = 2**18  # added to the number of a fresh scene

_TABLES = (
    ("Does the score follow the heat?", ("relevance_gain", "insertion", "deletion", "sensitivity_n", "infidelity")),
    ("Does the heat lie where it ought to?", ("pointing", "auprc", "energy", "mass", "rank", "overlap_otsu")),
    (
        "Does the map need the model and the question, and what does it cost?",
        ("randomised", "emprt", "bottom_up", "smprt", "random_text", "run_to_run", "completeness", F_FIDELITY,
         "sensitivity_max", "seconds", "forwards", "backwards", "memory"),
    ),
)  # fmt: skip
_NOTES = (
    "Relevance gain (SRG): the area under the score while the coldest places go first, less that while the hottest do; "
    "insertion is better where it is higher, deletion where it is lower. Sensitivity-n: correlation of the heat of "
    "random sets of cells with what taking them away does; infidelity: the share of it that their heat does not "
    "foresee. In nats, but for shares and correlations.",
    "On the structure that is named, else on the lesion.",
    "Likeness is rank correlation, of maps as they are; a map that stays at random parameters, or whatever is asked, "
    "does not show what the model knows. eMPRT: relative rise of the map's entropy over 100 bins at random parameters, "
    "higher is better. For bottom-up checks maps are divided by the root of their mean square and compared by SSIM.",
)


def scene_measures(
    protocol: ProtocolConfig, methods: Sequence[Explainer], backbone: VisionBackbone, seed: int
) -> tuple[SceneMeasures, SceneMeasures]:
    """Return what is measured of a scene whose methods are asked again, and of one whose maps are measured alone.

    Args:
        protocol: Its settings.
        methods: What explains.
        backbone: The tower; a copy of it is fine-tuned where F-Fidelity is asked for.
        seed: Seed of orders, sets and noise.

    Raises:
        UserError: There is no measure of a name.
    """
    every = measures_named(protocol.measures)
    asked = [name for name in protocol.again_measures if name != F_FIDELITY]
    again = measures_named(asked)
    if protocol.again and F_FIDELITY in protocol.again_measures:
        again.append(FFidelityGain(_tuned(backbone, seed), _DRAWS, _SIZES))
    by_name = {method.name: method for method in methods}
    marks = tuple(protocol.curve_shares)
    return SceneMeasures(every, again, by_name, marks, seed), SceneMeasures(every, (), by_name, marks, seed)


def _tuned(backbone: VisionBackbone, seed: int) -> VisionBackbone:
    seeds = fresh_seeds(TUNED_ON + _TUNING, seed)[_TUNING:]
    pictures: list[Tensor] = [DrawnScene.of(sample_scene(one), backbone.preprocess).pixels for one in seeds]
    with torch.random.fork_rng(devices=[]):
        return tuned_to_dropped_tokens(backbone, pictures, held_out=32, seed=seed).backbone


def measures_of(protocol: ProtocolConfig) -> list[Measure]:
    """Return all measures of a protocol, for their titles and directions.

    Raises:
        UserError: There is no measure of a name.
    """
    named = [*protocol.measures, *protocol.again_measures]
    return [_FFidelity() if name == F_FIDELITY else measures_named([name])[0] for name in named]


class _FFidelity(FFidelityGain):
    """Its title and direction alone."""

    def __init__(self) -> None:
        pass


def measure_tables(found: Sequence[Summary], measures: Sequence[Measure]) -> list[Table]:
    """Return the tables of the page: methods, their twins and controls, by every measure over all that was asked."""
    by_key = {measure.key: measure for measure in measures}
    tables = []
    for (name, kinds), note in zip(_TABLES, _NOTES, strict=True):
        keys = [key for key, measure in by_key.items() if measure.name in kinds]
        chosen = {
            (one.measure, one.method): one for one in found if one.target == EVERY and one.measure in keys
        }  # fmt: skip
        keys = [key for key in keys if any(measure == key for measure, _ in chosen)]
        methods = list(dict.fromkeys(method for _, method in chosen))
        if not keys or not methods:
            continue
        methods.sort(key=lambda method, first=keys[0]: _order(method, chosen, first))  # type: ignore[misc]
        rows = tuple(
            (
                title(method[0]) + (" (random weights)" if method[1] == RANDOM else ""),
                *(_cell(chosen.get((key, method))) for key in keys),
            )
            for method in methods
        )
        head = ("method", *(_head(by_key[key]) for key in keys))
        groups = max(one.mean.groups for one in chosen.values())
        said = (
            f"{note} Mean over {groups} scenes and all that was asked [95 % interval over scenes]; in brackets the "
            "rank among the methods with 95 % of its ranks on resampled scenes; * better than the method itself at "
            "random weights for sure, corrected for all methods (Holm). Maps at random weights are held against the "
            "trained model."
        )
        tables.append(Table(name, head, rows, said))
    return tables


def _order(
    method: tuple[str, str], chosen: Mapping[tuple[str, tuple[str, str]], Summary], first: str
) -> tuple[bool, bool, float]:
    summary = chosen.get((first, method))
    rank = float(summary.rank[0]) if summary is not None and summary.rank is not None else float("inf")
    return method[1] == BLIND, method[1] == RANDOM, rank


def _cell(summary: Summary | None) -> str:
    if summary is None or not summary.mean.n:
        return "–"
    sure = " *" if summary.above_random is not None and summary.above_random[1] else ""
    rank = "" if summary.rank is None else f" ({summary.rank[0]}; {summary.rank[1]}–{summary.rank[2]})"
    return f"{cell(summary.mean)}{sure}{rank}"


def _head(measure: Measure) -> str:
    removal = getattr(measure, "removal", None)
    if removal is None:
        return measure.title
    return f"{measure.title}, {removal.replace('_', ' ') if removal in REMOVALS else removal}"
