"""Where a training run stands before its first step: its photographs, what it starts from, or what it goes on with."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from clip_xai.config.schemas import TrainConfig
from clip_xai.data.manifest import load_manifest
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.runs.checkpoints import (
    CAPTIONS,
    LAST,
    RunCard,
    checkpoint_to_resume,
    described,
    newest_export,
    resolve_checkpoint,
)
from clip_xai.runs.directories import claim, code_digest, differences, is_under, look
from clip_xai.runs.judged import (
    decisive,
    lineage_of,
    other_vocabulary,
    overlap_with,
    require_vocabulary,
    tower_weights,
    with_absolute_places,
)
from clip_xai.runs.lineage import Lineage, lineage_in
from clip_xai.runs.lineage_callback import ASKED_KEY
from clip_xai.runs.records import digest_of, of_split, prepare_manifest
from clip_xai.text import counted
from clip_xai.training.checkpoint_files import read_checkpoint

log = logging.getLogger(__name__)
MAY_CHANGE = ("stage.epochs", "stage.name", "trainer", "logger", "callbacks")  # a name alone changes no weight
METRICS = "metrics.json"


@dataclass(frozen=True)
class Start:
    """Where a training run stands.

    Attributes:
        config: The settings, with the sources that the stage is about.
        train: The training records.
        val: What chooses the checkpoint.
        card: What the run is.
        asked: What decides it.
        lineage: What it and all that it starts from learn from.
        origin: The model it starts from; None for none, and where it resumes.
        resumed: The checkpoint that it goes on from, or None.
        stored: What a finished run of the same command stored; then nothing is left to do.
    """

    config: TrainConfig
    train: list[Record]
    val: list[Record]
    card: RunCard
    asked: dict[str, Any]
    lineage: Lineage
    origin: Path | None
    resumed: Path | None
    stored: dict[str, Any] | None


def begin(config: TrainConfig, backbone: VisionBackbone, product: Path) -> Start:
    """Take the run directory, or find out how far an earlier call of the same command came.

    Args:
        config: The settings.
        backbone: The tower as it is before the first step.
        product: What a finished run has in its directory.

    Raises:
        UserError: The directory holds something else, there is nothing to start from or to resume, what there is was
            trained on this run's validation or test photographs, or was asked something else.
    """
    run_dir = Path(config.run_dir)
    require_stage_before(config)
    manifest = load_manifest(prepare_manifest(config.data))
    train = of_split(manifest, "train", config.data.limit)
    val = of_split(manifest, config.trainer.validate_on, config.data.limit)
    config = with_sources(config, train, val)
    asked = asked_of_training(config, backbone, [*train, *val])
    stored = _stored(run_dir, product)
    may_change = () if stored else MAY_CHANGE
    before = look(run_dir, "train", asked, may_change=may_change)
    card = _card(config)
    resumed = origin = None
    ancestors: list[Lineage | None] = []
    if stored is None:
        resumed = _resumed(config, card, asked, goes_on=before is not None)
        if resumed is not None:
            ancestors.append(Lineage.unpacked(read_checkpoint(resumed)))  # its own steps are counted on
        else:
            held = [record for record in manifest if record.split in ("val", "test")]
            origin = _origin(config, card, held, manifest)
            ancestors += [_of_tower(config, held, manifest), None if origin is None else lineage_of(origin)]
        card = replace(card, parent=None if origin is None else str(origin))
    else:
        log.info("%s is finished: nothing is trained again", run_dir)
    claim(run_dir, "train", asked, noted_of_training(config), may_change=may_change)
    own = Lineage.of(learned_records(config, train), manifest, _step(config, card, train))
    return Start(config, train, val, card, asked, own.after(*ancestors), origin, resumed, stored)


def require_stage_before(config: TrainConfig) -> None:
    """Refuse at once, before photographs are drawn or read, where no run is there that the stage could start from.

    Raises:
        UserError: There is none, and the message has the command to run first; or the named one, or the captioner's
            tower, was trained with another vocabulary.
    """
    if config.ckpt_path is not None or (Path(config.run_dir) / LAST).is_file():
        return  # it goes on with what it was
    runs_root = Path(config.runs_root)
    if config.init_from is None and config.stage.starts_from is not None:
        newest_export(_card(config), config.stage.starts_from, runs_root, partial(other_vocabulary, config.data))
    elif config.init_from not in (None, "latest"):
        require_vocabulary(config.data, resolve_checkpoint(config.init_from, runs_root))
    tower = tower_weights(config.backbone.pretrained)
    if config.task.name == CAPTIONS and tower is not None:  # a classifier reads no words with its tower
        require_vocabulary(config.data, tower)


def asked_of_training(config: TrainConfig, backbone: VisionBackbone, records: Sequence[Record]) -> dict[str, Any]:
    """Return what decides a training run: its settings, its photographs and captions, and its tower."""
    parts = ("backbone", "mapper", "language_model", "stage", "generation", "trainer", "callbacks")
    settings = {name: asdict(part) for name in parts if (part := getattr(config, name)) is not None}
    if config.task.name != CAPTIONS:  # whose parts say all that there is
        settings["task"] = {key: value for key, value in asdict(config.task).items() if key != "run_name"}
    return {
        "settings": {"seed": config.seed, **settings, "data": decisive(config.data), "init_from": config.init_from},
        "data content": f"{counted(len(records), 'photograph')}, digest {digest_of(records)}",
        "tower": backbone.fingerprint[:16],
    }


def noted_of_training(config: TrainConfig) -> dict[str, Any]:
    """Return what is written down of a training run beside what decides it."""
    return {
        "data": with_absolute_places(config.data),
        "logger": asdict(config.logger),
        "ckpt_path": config.ckpt_path,
        "debug": config.debug,
        "allow_overlap": config.allow_overlap,
        "code": code_digest("data", "models", "training"),
    }


def with_sources(config: TrainConfig, train: Sequence[Record], val: Sequence[Record]) -> TrainConfig:
    """Return the settings with the sources that the stage is about: the named ones, or what the data has.

    Raises:
        UserError: A source is named that the data does not have.
    """
    stage, there = config.stage, {record.source for record in train}
    if stage.sources is not None:
        missing = sorted(set(stage.sources) - there)
        if missing:
            raise UserError(
                f"stage.sources: the data has no training photograph of {', '.join(missing)}; it has "
                f"{', '.join(sorted(there))}"
            )
        return config
    if stage.prefers is None:
        return config
    chosen = [source for source in stage.prefers if source in there & {record.source for record in val}]
    others = sorted(there - set(chosen))
    if not chosen:
        log.info(
            "stage %d prefers %s, of which the data has no photograph: it trains on all of %s",
            *(stage.number, ", ".join(stage.prefers), ", ".join(others)),
        )
    else:
        replayed = f", and {stage.replay:.0%} of {', '.join(others)} each epoch" if others and stage.replay else ""
        log.info("stage %d trains on %s%s", stage.number, ", ".join(chosen), replayed)
    return replace(config, stage=replace(stage, sources=chosen or None))


def refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any], checkpoint: Path) -> list[str]:
    """Return what is other than it was where a checkpoint was written, as far as it may be.

    Raises:
        UserError: Something else is, with both values.
    """
    changed = []
    for name, old, new in differences(before, now):
        if name in ("init_from", "job"):  # of no matter to weights that are there already
            continue
        if not is_under(name, MAY_CHANGE):
            raise UserError(
                f"{checkpoint} was trained with {name}={old}, and now {name}={new} is asked; when a run resumes, only "
                f"stage.epochs, trainer, logger and callbacks may change: leave {name} as it was, or train anew "
                "without ckpt_path"
            )
        changed.append(f"{name}={new} (was {old})")
    return changed


def _stored(run_dir: Path, product: Path) -> dict[str, Any] | None:
    if not (run_dir / product).is_file():
        return None
    try:
        found = json.loads((run_dir / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _card(config: TrainConfig) -> RunCard:
    return RunCard.now(
        config.backbone.name,
        "" if config.mapper is None else config.mapper.name,
        "" if config.language_model is None else config.language_model.name,
        config.stage.number,
        task=config.task.name,
        debug=config.debug,
        data=with_absolute_places(config.data),
        seed=config.seed,
        mode=config.callbacks.mode,
    )


def _resumed(config: TrainConfig, card: RunCard, asked: Mapping[str, Any], goes_on: bool) -> Path | None:
    """Return the checkpoint to go on from: this directory's own, else the one that is named."""
    run_dir = Path(config.run_dir)
    found: Path | None = run_dir / LAST
    if not goes_on or not (run_dir / LAST).is_file():
        found = checkpoint_to_resume(config.ckpt_path, card, Path(config.runs_root), apart_from=run_dir)
    if found is None:
        return None
    content = read_checkpoint(found)
    _require_epochs_left(config, found, content["epoch"] + 1, own=found == run_dir / LAST)
    kept = content.get(ASKED_KEY)
    if kept is None:
        log.warning("%s does not say with which settings it was trained: they are taken to be the same", found)
        changed = []
    else:
        changed = refuse_changes(json.loads(kept), asked, found)
    log.info("going on from %s%s", found, f" with {', '.join(changed)}" if changed else ", with the same settings")
    return found


def _require_epochs_left(config: TrainConfig, checkpoint: Path, done: int, own: bool) -> None:
    """Refuse a checkpoint behind which no epoch is left; in its own directory its export may still be missing."""
    asked = config.stage.epochs
    if done > asked or (done == asked and not own):
        raise UserError(
            f"{checkpoint} has {counted(done, 'epoch')} behind it, and stage.epochs={asked} asks for no more: nothing "
            f"is left to train; raise stage.epochs{'' if own else ', or take the model that its own run exported'}"
        )


def _origin(config: TrainConfig, card: RunCard, held: Sequence[Record], manifest: Sequence[Record]) -> Path | None:
    """Return the model that the stage starts from."""

    def refusal(place: Path) -> str | None:
        return other_vocabulary(config.data, place) or (
            None if config.allow_overlap else overlap_with(place, held, manifest)
        )

    runs_root = Path(config.runs_root)
    if config.init_from == "latest":
        origin = resolve_checkpoint("latest", runs_root, refusal, debug=config.debug is not None)
    elif config.init_from is not None:
        origin = resolve_checkpoint(config.init_from, runs_root)
        _refuse_overlap("init_from", origin, lineage_of(origin), config, held, manifest)
    elif config.stage.starts_from is not None:
        origin = newest_export(card, config.stage.starts_from, runs_root, refusal)
    else:
        return None
    log.info("starting from %s", described(origin))
    return origin


def _of_tower(config: TrainConfig, held: Sequence[Record], manifest: Sequence[Record]) -> Lineage | None:
    """Return what the tower was trained on where stage 0 wrote its weights."""
    place = tower_weights(config.backbone.pretrained)
    if place is None:
        return None
    lineage = lineage_in(place)
    if lineage is not None:
        _refuse_overlap("backbone.pretrained", place, lineage, config, held, manifest)
    return lineage


def _refuse_overlap(
    setting: str,
    place: Path,
    lineage: Lineage | None,
    config: TrainConfig,
    held: Sequence[Record],
    manifest: Sequence[Record],
) -> None:
    if lineage is None:
        log.warning("%s does not say what it was trained on: whether it knows this run's test split is unknown", place)
        return
    count = lineage.overlap(held, manifest)
    if not count:
        return
    said = (
        f"{count} of {counted(len(held), 'photograph')} of this run's val and test splits, or on others of their groups"
    )
    if config.allow_overlap:
        log.warning("%s was trained on %s: numbers on those splits will be too good", place, said)
        return
    raise UserError(
        f"{setting}={place} was trained on {said} ({'; '.join(lineage.steps)}): numbers on them would be too good; "
        "take weights of the same fold and seed of the data, or set allow_overlap=true"
    )


def learned_records(config: TrainConfig, train: Sequence[Record]) -> list[Record]:
    """Return the training records that a run meets: its sources', and all where others are replayed or retrieved."""
    stage = config.stage
    retrieves = config.language_model is not None and config.language_model.retrieved_captions
    if stage.sources is None or stage.replay or retrieves:
        return list(train)
    return [record for record in train if record.source in stage.sources]


def _step(config: TrainConfig, card: RunCard, train: Sequence[Record]) -> str:
    learned = learned_records(config, train)
    groups = len({record.group for record in learned})
    met = f"{counted(len(learned), 'photograph')} of {counted(groups, 'group')}"
    what = f"stage {card.stage}" if card.task == CAPTIONS else card.task
    return f"{what} on {config.data.name}, split {card.split}: {met}"
