"""Judge the explainers of a model by causes that are known, and say what came out."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from clip_xai.config.schemas import EvaluateConfig
from clip_xai.data.synthetic.parts import sample_scene
from clip_xai.data.synthetic.profiles import PROFILES
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.errors import UserError
from clip_xai.explanations.carry_over import Predictor
from clip_xai.explanations.carry_over_tables import predictor_rows
from clip_xai.explanations.causes.choosing import Chosen, choice_table, chosen
from clip_xai.explanations.causes.maps import explained
from clip_xai.explanations.causes.measures import AGREEMENT, Measured, measure
from clip_xai.explanations.causes.scene_targets import TARGETS, SceneQuestion
from clip_xai.explanations.causes.scenes import DrawnScene
from clip_xai.explanations.causes.tables import ALL, counts, effect_table, map_table, rank_table, rankings
from clip_xai.explanations.causes.tone_summary import ToneMap, ToneWord, tone_maps, tone_words
from clip_xai.explanations.explainer_ranking import ExplainerRanking, MethodJudged
from clip_xai.explanations.measures.base import Measure
from clip_xai.explanations.measures.protocol import measures_of
from clip_xai.explanations.measures.summary import Summary, summarised, summary_rows
from clip_xai.explanations.measures.tables import measure_tables
from clip_xai.explanations.shortcuts_beside import tables_beside
from clip_xai.files import replacing, write_json
from clip_xai.models.backbones.clip import CLIPBackbone
from clip_xai.report.causes_page import write_causes_page
from clip_xai.runs.directories import claim, code_digest, plugin_digest
from clip_xai.runs.instantiate import device_of, explainers_of
from clip_xai.runs.judged import Judged, asked_of_model, noted_of_model
from clip_xai.tasks.explanations import carried, following, page, side_tables
from clip_xai.tasks.explanations.gathering import Gathered, asker_of, gather, prompted
from clip_xai.tasks.explanations.page import Rankings
from clip_xai.tasks.explanations.terminal import show
from clip_xai.tasks.task import Judgement, Opened, task_at
from clip_xai.text import counted
from clip_xai.xai.explainer import Explainer

log = logging.getLogger(__name__)
Logged = dict[str, tuple[Sequence[str], list[list[Any]]]]
WIDTH, HEIGHT = 256, 192  # of a drawn scene


def evaluate(config: EvaluateConfig, on: Judged | None) -> Judgement:
    """Judge explainers; write ``maps.parquet``, ``effects.parquet``, ``ranks.csv``, ``metrics.json``, ``index.html``.

    Args:
        config: All settings.
        on: The model; None for the CLIP that the settings choose, by itself.

    Raises:
        UserError: The model is of another field, or neither writes captions nor reads texts.
    """
    model = opened(config, on)
    require_askable(model)
    methods = [method for method in explainers_of(config.xai) if method.modality == "image"]
    if not methods:
        raise UserError("xai= names explainers of words alone, and maps of the picture are judged: add xai=gradcam")
    run_dir, measures = Path(config.run_dir), measures_of(config.protocol)
    claim(run_dir, "evaluate", asked_of_explanations(config, on, model, methods), noted_of(config, on))
    (model.captioner or model.backbone).to(device_of(config.trainer))
    gathered = gather(config, model, methods)
    found = Found.of(gathered, measures, config.seed)
    write_tables(found, run_dir)
    ranks = rank_table(found.rankings)
    seconds = {method.name: _mean([scene.seconds.get(method.name) for scene in gathered.scenes]) for method in methods}
    left_out = {said for scene in gathered.scenes for said in scene.refused}
    thresholds = found.measured.thresholds
    metrics: dict[str, Any] = {
        "model": model.words,
        "protocol": asdict(config.protocol),
        "counts": counts(gathered.scenes),
        "seconds": seconds,
        "thresholds": {f"{name} ({weights})": at for (name, weights), at in thresholds.items()},
        "left out": sorted(left_out),
        "ranks": plain_rows(ranks),
        "choices": plain_rows(side_tables.choice_rows(found.chosen)),
        "tones": {
            "left out": gathered.tones_left_out,
            "words": [side_tables.plain(asdict(one)) for one in found.tone_words],
            "maps": [side_tables.plain(asdict(one)) for one in found.tone_maps],
        },
        "mechanisms": side_tables.mechanism_rows(gathered.mechanisms),
        "measures": summary_rows(found.summaries),
        "predictors": predictor_rows(found.foretold),
    }
    metrics |= following.metrics(gathered.scenes, found.rankings, config.seed)
    following.write_ledger(gathered.scenes, run_dir)
    write_json(run_dir / "metrics.json", metrics)
    write_page(config, model, methods, found, metrics, None if on is None else on.place)
    if on is not None:  # a CLIP by itself has no directory that explain.py would look into
        kept = ranking_of(found.rankings, model, methods, seconds, len(gathered.scenes)).save(on.place)
        log.info("%s: explain.py orders methods by it, and xai=best chooses by it", kept)
    show(found.rankings, metrics["counts"], seconds, run_dir)
    return Judgement(metrics, {}, logged(found, ranks, metrics))


def opened(config: EvaluateConfig, on: Judged | None) -> Opened:
    """Return the trained model, or the CLIP that the settings choose, by itself."""
    if on is not None:
        return task_at(on.place).opened(on.place, on.data.vocabulary)
    assert config.backbone is not None
    return Opened.alone(config.backbone)


def noted_of(config: EvaluateConfig, on: Judged | None) -> dict[str, str]:
    """Where the model is from, for a reader."""
    if on is not None:
        return noted_of_model(on.place)
    return {} if config.backbone is None else {"model.backbone": config.backbone.name}


def ranking_of(
    found: Rankings, model: Opened, methods: Sequence[Explainer], seconds: Mapping[str, float | None], scenes: int
) -> ExplainerRanking:
    """Return what is kept beside the model: correctness on all scenes, by what is asked."""
    by_name, kinds = {method.name: method for method in methods}, {}
    for target in TARGETS:
        places = [one for one in found.get((AGREEMENT, target, ALL), ()) if one.rank is not None]
        judged = [
            MethodJudged(
                one.method[0], by_name[one.method[0]].settings, one.score.value, finite_or_none(one.score.low),
                finite_or_none(one.score.high), one.leads, seconds.get(one.method[0]),
            )
            for one in places
        ]  # fmt: skip
        if judged:
            kinds[target] = sorted(judged, key=lambda one: -(one.value if one.low is None else one.low))
    return ExplainerRanking(model.fingerprints, scenes, kinds)


@dataclass(frozen=True)
class Found:
    """What was gathered, held against the effects and summarised.

    Attributes:
        gathered: What was measured.
        measured: Every method on everything asked about scenes.
        rankings: Methods by criterion, target and scenes.
        choices: Words that compete, a row each with method and weights.
        chosen: The same, summarised.
        tone_words: What captions state on skin of every type.
        tone_maps: How the maps fare on the lightest and the darkest.
        summaries: Methods by label-free and region measures.
        foretold: How each measure foretells the methods' correctness.
    """

    gathered: Gathered
    measured: Measured
    rankings: Rankings
    choices: pd.DataFrame
    chosen: list[Chosen]
    tone_words: list[ToneWord]
    tone_maps: list[ToneMap]
    summaries: list[Summary]
    foretold: list[Predictor]

    @classmethod
    def of(cls, gathered: Gathered, measures: Sequence[Measure], seed: int) -> Found:
        """Hold what was gathered against the effects."""
        measured, choices = measure(gathered.scenes), choice_table(gathered.choices)
        words, maps = tone_words(gathered.tones, seed), tone_maps(gathered.tones, seed)
        summaries = summarised(gathered.measured, measures, seed)
        ranked = rankings(measured, seed)
        foretold = carried.foretold(map_table(measured), pd.DataFrame(gathered.measured), seed)
        return cls(gathered, measured, ranked, choices, chosen(choices, seed), words, maps, summaries, foretold)


def logged(found: Found, ranks: pd.DataFrame, metrics: Mapping[str, Any]) -> Logged:
    """Return the tables for the loggers; what holds a row for each map or part is in the files alone."""
    tables = {
        "ranks of explainers": ranks,
        "measures of maps": measure_table(found),
        "words that compete": side_tables.choice_rows(found.chosen),
        "known mechanisms": pd.DataFrame(metrics["mechanisms"]).astype(str),
        "measures that foretell": pd.DataFrame(metrics["predictors"]),
    }
    plain = {name: table.astype(object).where(table.notna(), None) for name, table in tables.items() if len(table)}
    return {name: (table.columns.tolist(), table.values.tolist()) for name, table in plain.items()}


def write_tables(found: Found, run_dir: Path) -> None:
    """Write ``maps``, ``effects``, ``choices``, ``measured`` and ``curves.parquet``; ``ranks``, ``measures.csv``."""
    tables = {"maps": map_table(found.measured), "effects": effect_table(found.gathered.scenes)}
    tables |= {"choices": found.choices, "measured": pd.DataFrame(found.gathered.measured)}
    tables["curves"] = pd.DataFrame(found.gathered.curves)
    for name, table in tables.items():
        with replacing(run_dir / f"{name}.parquet") as unfinished:
            table.to_parquet(unfinished, index=False)
    for name, table in {"ranks": rank_table(found.rankings), "measures": measure_table(found)}.items():
        with replacing(run_dir / f"{name}.csv") as unfinished:
            table.to_csv(unfinished, index=False)


def measure_table(found: Found) -> pd.DataFrame:
    """Return the methods by label-free and region measures, one row each."""
    return pd.DataFrame(summary_rows(found.summaries))


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as plain values, None for what is not a number."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]


def write_page(
    config: EvaluateConfig,
    model: Opened,
    methods: Sequence[Explainer],
    found: Found,
    metrics: Mapping[str, Any],
    place: Path | None,
) -> None:
    """Write ``index.html``; the maps of the shown cases are made again, planted shortcuts shown if known."""
    asker, scenes = asker_of(config, model), found.gathered.scenes
    by_name = {method.name: method for method in methods}

    def explain(scene: int, method: str, thing: int) -> Tensor | None:
        drawn = DrawnScene.of(sample_scene(scenes[scene].seed), model.backbone.preprocess)
        with prompted(model, drawn, asker):
            maps = explained(SceneQuestion.of(asker, drawn), [by_name[method]], model.backbone).values
        heat = maps.get(method, {}).get(thing)
        return None if heat is None else page.on_picture(heat, model.backbone.preprocess, WIDTH, HEIGHT)

    protocol = {f"protocol.{name}": value for name, value in metrics["protocol"].items()}
    write_causes_page(
        Path(config.run_dir) / "index.html",
        subtitle=f"{counted(len(scenes), 'fresh scene')} drawn again without their parts · {model.words}",
        verdicts=page.verdicts(found.rankings),
        tables=[page.count_table(metrics["counts"]), *following.tables(scenes, found.rankings, config.seed)],
        forests=page.forests(found.rankings),
        priced=page.priced(found.rankings, metrics["seconds"]),
        matrices=page.matrices(effect_table(scenes)),
        cases=page.cases(scenes, found.measured, found.rankings, explain),
        curves=carried.curve_pictures(found.gathered.curves, found.rankings),
        more=[
            *carried.tables(map_table(found.measured), found.foretold, config.seed),
            *measure_tables(found.summaries, measures_of(config.protocol), "scenes"),
            *side_tables.choice_tables(found.chosen),
            *side_tables.mechanism_table(found.gathered.mechanisms),
            *side_tables.tone_tables(found.tone_words, found.tone_maps, found.gathered.tones_left_out),
            *([] if place is None else tables_beside(place, model.fingerprints)),
        ],
        details=page.details(found.rankings),
        left_out=metrics["left out"],
        settings={"seed": config.seed, **protocol, "explainers": ", ".join(by_name)},
    )


def require_askable(model: Opened) -> None:
    """Refuse a model that the drawn scenes do not ask anything of.

    Raises:
        UserError: It is one.
    """
    if model.captioner is None and not isinstance(model.backbone, CLIPBackbone):
        raise UserError(
            "task=explanations asks about words of captions and about texts, and this model answers with labels: "
            "choose a captioner or a CLIP with ckpt="
        )
    drawn = load_vocabulary()
    if model.captioner is not None and not set(PROFILES) <= set(model.captioner.vocabulary.diagnoses):
        raise UserError(
            f"task=explanations draws scenes of {drawn.specialty}, and this model speaks of "
            f"{model.captioner.vocabulary.specialty} in other words: choose a model of {drawn.specialty} with ckpt="
        )


def asked_of_explanations(
    config: EvaluateConfig, on: Judged | None, model: Opened, methods: Sequence[Explainer]
) -> dict[str, Any]:
    """What decides the numbers."""
    settings = {name: asdict(getattr(config, name)) for name in ("protocol", "xai", "generation")}
    return {
        "settings": {"task": "explanations", "seed": config.seed, **settings},
        **({"model": model.fingerprints} if on is None else asked_of_model(on.place, model.fingerprints)),
        "code": code_digest("data", "models", "metrics", "xai", "explanations") + plugin_digest(methods),
    }


def finite_or_none(value: float) -> float | None:
    """Return a bound, or None where there were too few scenes for one."""
    return value if math.isfinite(value) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
