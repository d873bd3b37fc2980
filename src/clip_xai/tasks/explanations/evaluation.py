"""Judge the explainers of a model by causes that are known, and say what came out."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip_xai.config.schemas import EvaluateConfig
from clip_xai.data.synthetic.parts import sample_scene
from clip_xai.data.synthetic.profiles import PROFILES
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.errors import UserError
from clip_xai.explanations.causes.followed import WordFollower
from clip_xai.explanations.causes.followed_measures import followed_rows, followed_table, measure_followed
from clip_xai.explanations.causes.maps import explained
from clip_xai.explanations.causes.measures import AGREEMENT, Measured, measure
from clip_xai.explanations.causes.one_scene import SceneCauses, causes_of
from clip_xai.explanations.causes.scene_targets import DIAGNOSIS, STRUCTURE, TARGETS, Asker, SceneQuestion
from clip_xai.explanations.causes.scenes import DrawnScene, fresh_seeds
from clip_xai.explanations.causes.store import load_scene, place_of, save_scene
from clip_xai.explanations.causes.tables import ALL, EVERY, counts, effect_table, map_table, rank_table, rankings
from clip_xai.explanations.explainer_ranking import ExplainerRanking, MethodJudged
from clip_xai.explanations.ledger import LedgerSettings
from clip_xai.explanations.ledger_plan import SAMPLES
from clip_xai.explanations.questions import with_prompt
from clip_xai.explanations.run_ledger import RunLedger
from clip_xai.files import replacing, write_json
from clip_xai.models.backbones.blueprint import random_twin
from clip_xai.models.backbones.clip import CLIPBackbone
from clip_xai.progress import track
from clip_xai.report.causes_page import write_causes_page
from clip_xai.report.pages import Table
from clip_xai.runs.directories import claim, code_digest, plugin_digest
from clip_xai.runs.instantiate import decoding, device_of, explainers_of
from clip_xai.runs.judged import Judged, asked_of_model, noted_of_model
from clip_xai.tasks.explanations import page
from clip_xai.tasks.explanations.page import Rankings
from clip_xai.tasks.explanations.terminal import show
from clip_xai.tasks.task import Judgement, Opened, task_at
from clip_xai.text import counted
from clip_xai.xai.explainer import Explainer

log = logging.getLogger(__name__)
WIDTH, HEIGHT = 256, 192  # of a drawn scene


def evaluate(config: EvaluateConfig, on: Judged) -> Judgement:
    """Judge explainers; write ``maps.parquet``, ``effects.parquet``, ``ranks.csv``, ``metrics.json``, ``index.html``.

    Args:
        config: All settings.
        on: The model.

    Raises:
        UserError: The model is of another field, or neither writes captions nor reads texts.
    """
    model = task_at(on.place).opened(on.place, on.data.vocabulary)
    require_askable(model)
    methods = [method for method in explainers_of(config.xai) if method.modality == "image"]
    if not methods:
        raise UserError("xai= names explainers of words alone, and maps of the picture are judged: add xai=gradcam")
    run_dir = Path(config.run_dir)
    claim(run_dir, "evaluate", asked_of_explanations(config, on, model, methods), noted_of_model(on.place))
    (model.captioner or model.backbone).to(device_of(config.trainer))
    scenes = measured_scenes(config, model, methods)
    measured = measure(scenes)
    found = rankings(measured, config.seed)
    ranks, asked = rank_table(found), counts(scenes)
    for name, table in {"maps": map_table(measured), "effects": effect_table(scenes)}.items():
        with replacing(run_dir / f"{name}.parquet") as unfinished:
            table.to_parquet(unfinished, index=False)
    with replacing(run_dir / "ranks.csv") as unfinished:
        ranks.to_csv(unfinished, index=False)
    seconds = {method.name: _mean([scene.seconds.get(method.name) for scene in scenes]) for method in methods}
    left_out = {said for scene in scenes for said in scene.refused}
    metrics: dict[str, Any] = {
        "model": model.words,
        "protocol": asdict(config.protocol),
        "counts": asked,
        "seconds": seconds,
        "thresholds": {f"{name} ({weights})": at for (name, weights), at in measured.thresholds.items()},
        "left out": sorted(left_out),
        "ranks": ranks.astype(object).where(ranks.notna(), None).to_dict("records"),
    }
    metrics |= followed_metrics(scenes, found, config.seed)
    taken = run_ledger_of(scenes)
    if taken.ledgers:
        with replacing(run_dir / "ledger.parquet") as unfinished:
            taken.table([str(scene.seed) for scene in scenes]).to_parquet(unfinished, index=False)
    write_json(run_dir / "metrics.json", metrics)
    write_page(config, model, methods, scenes, measured, found, metrics)
    file = ranking_of(found, model, methods, seconds, len(scenes)).save(on.place)
    log.info("%s: explain.py orders methods by it, and xai=best chooses by it", file)
    show(found, asked, seconds, run_dir)
    columns = ranks.columns.tolist()
    return Judgement(metrics, {}, {"ranks of explainers": (columns, ranks.astype(object).values.tolist())})


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


def words_leading(found: Rankings) -> list[str]:
    """Methods whose direct maps beat their random-weights twin on words of captions."""
    places = [one for target in (DIAGNOSIS, STRUCTURE) for one in found.get((AGREEMENT, target, ALL), ())]
    return [one.method[0] for one in places if one.leads]


def followed_metrics(scenes: Sequence[SceneCauses], found: Rankings, seed: int) -> dict[str, Any]:
    """Return what the words of captions rest on, and how maps that follow them do; nothing without a ledger."""
    taken = run_ledger_of(scenes)
    if not taken.ledgers:
        return {}
    leading = words_leading(found)
    by_target = {
        target or EVERY: followed_rows(measure_followed(scenes, target, seed), leading)
        for target in (None, DIAGNOSIS, STRUCTURE)
    }
    return {"ledger": taken.measured, "followed": by_target}


def ledger_tables(scenes: Sequence[SceneCauses], found: Rankings, seed: int) -> list[Table]:
    """The same for a reader."""
    taken = run_ledger_of(scenes)
    table = followed_table(measure_followed(scenes, None, seed), words_leading(found))
    return [*([taken.page_table] if taken.ledgers else []), *([] if table is None else [table])]


def run_ledger_of(scenes: Sequence[SceneCauses]) -> RunLedger:
    """The ledgers of the scenes' captions, each scene a patient of its own."""
    taken = {number: scene.ledger for number, scene in enumerate(scenes) if scene.ledger is not None}
    return RunLedger(taken, {number: str(scenes[number].seed) for number in taken}, ("scene", "scenes"))


def write_page(
    config: EvaluateConfig,
    model: Opened,
    methods: Sequence[Explainer],
    scenes: Sequence[SceneCauses],
    measured: Measured,
    found: Rankings,
    metrics: Mapping[str, Any],
) -> None:
    """Write ``index.html``; the maps of the shown cases are made again."""
    asker = asker_of(config, model)
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
        verdicts=page.verdicts(found),
        tables=[page.count_table(metrics["counts"]), *ledger_tables(scenes, found, config.seed)],
        forests=page.forests(found),
        priced=page.priced(found, metrics["seconds"]),
        matrices=page.matrices(effect_table(scenes)),
        cases=page.cases(scenes, measured, found, explain),
        details=page.details(found),
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


def measured_scenes(config: EvaluateConfig, model: Opened, methods: Sequence[Explainer]) -> list[SceneCauses]:
    """Measure fresh scenes, one by one; those that the run's directory holds are not measured again."""
    asker = asker_of(config, model)
    follower = None
    if config.protocol.ledger and model.captioner is not None and model.retrieval is None:
        follower = WordFollower.of(asker, LedgerSettings(config.protocol.ledger, SAMPLES, seed=config.seed))
    torch.manual_seed(config.seed)
    twin = random_twin(model.backbone).to(asker.device) if config.protocol.twin else None
    found = []
    seeds = fresh_seeds(config.protocol.scenes, config.seed)
    for number, seed in enumerate(track(seeds, "Drawing scenes again")):
        place = place_of(Path(config.run_dir), number)
        known = load_scene(place)
        if known is not None:
            found.append(known)
            continue
        drawn = DrawnScene.of(sample_scene(seed), model.backbone.preprocess)
        with prompted(model, drawn, asker):
            found.append(causes_of(asker, drawn, methods, twin, config.seed, follower))
        save_scene(found[-1], place)
    return found


def asker_of(config: EvaluateConfig, model: Opened) -> Asker:
    """Return how scenes are put to the model."""
    return Asker(model.backbone, model.captioner, decoding(config.generation), config.protocol.samples, config.seed)


def prompted(model: Opened, drawn: DrawnScene, asker: Asker) -> AbstractContextManager[None]:
    """Return the block in which the captioner has the prompt that is retrieved for a scene, if it retrieves any."""
    return with_prompt(model.captioner, model.retrieval, drawn.pixels[None].to(asker.device), None)


def asked_of_explanations(
    config: EvaluateConfig, on: Judged, model: Opened, methods: Sequence[Explainer]
) -> dict[str, Any]:
    """What decides the numbers."""
    settings = {name: asdict(getattr(config, name)) for name in ("protocol", "xai", "generation")}
    return {
        "settings": {"task": "explanations", "seed": config.seed, **settings},
        **asked_of_model(on.place, model.fingerprints),
        "code": code_digest("data", "models", "metrics", "xai", "explanations") + plugin_digest(methods),
    }


def finite_or_none(value: float) -> float | None:
    """Return a bound, or None where there were too few scenes for one."""
    return value if math.isfinite(value) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
