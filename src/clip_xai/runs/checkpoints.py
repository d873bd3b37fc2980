"""Finding earlier runs: each run directory has a ``run.json`` that says what it is.

A run of ``debug=...`` is found by other debug runs only, and of a search only the best finished trial.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from clip_xai.errors import UserError
from clip_xai.files import write_json
from clip_xai.models.reading import read_json
from clip_xai.registry import loaded_plugins
from clip_xai.runs.directories import asked_of
from clip_xai.runs.lineage_callback import ASKED_KEY
from clip_xai.training.checkpoint_files import read_checkpoint

log = logging.getLogger(__name__)
EXPORT = "export"
CARD = "run.json"
LAST = Path("checkpoints") / "last.ckpt"
CAPTIONS = "captions"  # the task of runs that do not say one

Refusal = Callable[[Path], str | None]  # why a model must not be taken; None where it may


@dataclass(frozen=True)
class RunCard:
    """What a training run is.

    Attributes:
        backbone: Name of the backbone.
        mapper: Name of the mapper.
        language_model: Name of the language model.
        stage: Number of the stage.
        started: When, as ISO 8601 in UTC with microseconds: sorts by time.
        debug: Which ``debug=`` it was run with, or None.
        data: The settings of its data, with absolute paths; empty in runs of versions that did not keep them.
        seed: Seed of the training.
        parent: The model that it started from, or None.
        score: What it reached in ``callbacks.monitor``; None until it is finished.
        mode: ``min`` or ``max``: which scores are good.
        task: What it is trained for.
        plugins: Modules that were loaded for it.
    """

    backbone: str
    mapper: str
    language_model: str
    stage: int
    started: str
    debug: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    parent: str | None = None
    score: float | None = None
    mode: str = "min"
    task: str = CAPTIONS
    plugins: list[str] = field(default_factory=list)

    @classmethod
    def now(cls, backbone: str, mapper: str, language_model: str, stage: int, **known: Any) -> RunCard:
        """The card of a run that starts at this moment."""
        started = datetime.now(timezone.utc).isoformat(timespec="microseconds")
        return cls(backbone, mapper, language_model, stage, started, **{"plugins": loaded_plugins(), **known})

    @classmethod
    def read(cls, run_dir: Path) -> RunCard | None:
        """The card of a run directory; None where there is none, or none that can be read."""
        file = run_dir / CARD
        if not file.is_file():
            return None
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            known = {item.name for item in fields(cls)}
            card = cls(**{key: value for key, value in found.items() if key in known})
            card._require_types()
            return card
        except (OSError, ValueError, TypeError, AttributeError):
            log.warning("%s cannot be read: this run is not looked at", file)
            return None

    def _require_types(self) -> None:
        """Raise ValueError or TypeError where a card cannot be sorted, compared or described."""
        datetime.fromisoformat(self.started)
        if (
            not isinstance(self.plugins, list)
            or not isinstance(self.data, dict)
            or not isinstance(self.score, (int, float, type(None)))
        ):
            raise ValueError("data or score is of another type")

    def write(self, run_dir: Path) -> None:
        """Write ``run.json``."""
        write_json(run_dir / CARD, asdict(self))

    def finished(self, run_dir: Path, score: float | None) -> None:
        """Note what the run reached."""
        replace(self, score=score).write(run_dir)

    def like(self, other: RunCard, stage: int) -> bool:
        """Whether this is a run of that stage with the same parts, and of the same kind: debug runs or others."""
        parts = (self.task, self.backbone, self.mapper, self.language_model, self.debug is None)
        theirs = (other.task, other.backbone, other.mapper, other.language_model, other.debug is None)
        return parts == theirs and self.stage == stage

    def __str__(self) -> str:
        """The run in one line for the log: stage, date and data."""
        when = datetime.fromisoformat(self.started).astimezone().strftime("%Y-%m-%d %H:%M")
        name = self.data.get("name")
        data = "data not noted" if name is None else f"data {name} in {self.data.get('root')}, split {self.split}"
        what = f"stage {self.stage}" if self.task == CAPTIONS else self.task
        return f"{what} of {when}, {data}" + (f", debug={self.debug}" if self.debug else "")

    @property
    def split(self) -> str:
        """The scheme of the splits, with what chooses among its folds."""
        scheme = str(self.data.get("split"))
        if scheme == "kfold":
            return f"{scheme} fold {self.data.get('fold')} of {self.data.get('folds')}, seed {self.data.get('seed')}"
        held_out = f" without {self.data['held_out']}" if self.data.get("held_out") else ""
        return f"{scheme}{held_out}, seed {self.data.get('seed')}"


@dataclass(frozen=True)
class _Search:
    """The trials of one study, which may lie in several directories."""

    trials: tuple[tuple[RunCard, Path], ...]

    def best(self) -> tuple[RunCard, Path] | None:
        """The best finished trial, dated as the newest of them."""
        scored = [(card, path) for card, path in self.trials if card.score is not None and is_export(path / EXPORT)]
        if not scored:
            return None
        sign = -1.0 if scored[0][0].mode == "max" else 1.0
        card, path = min(scored, key=lambda pair: sign * (pair[0].score or 0.0))
        return replace(card, started=max(card.started for card, _ in self.trials)), path


def train_runs(runs_root: Path) -> list[tuple[RunCard, Path]]:
    """All training runs under a root but trials of searches, the oldest first."""
    found = [(card, file.parent) for file in runs_root.glob(f"train/*/{CARD}") if (card := RunCard.read(file.parent))]
    return sorted(found, key=lambda pair: pair[0].started)


def finished_runs(runs_root: Path, fits: Callable[[RunCard], bool]) -> list[tuple[RunCard, Path]]:
    """The runs with an exported model, the oldest first; of each search the best trial among those that fit."""
    runs = [(card, path) for card, path in train_runs(runs_root) if is_export(path / EXPORT) and fits(card)]
    trials = trials_under(runs_root / "train", fits)
    best = [found for search in trials if (found := search.best()) is not None]
    return sorted([*runs, *best], key=lambda pair: pair[0].started)


def trials_under(folder: Path, fits: Callable[[RunCard], bool]) -> list[_Search]:
    """The trials in the search directories of a folder, by study."""
    studies: dict[str, list[tuple[RunCard, Path]]] = {}
    for file in folder.glob(f"*/trial_*/{CARD}"):
        card = RunCard.read(file.parent)
        if card is not None and fits(card):
            asked = asked_of(file.parent.parent) or {}
            study = str(asked.get("settings", {}).get("study", file.parent.parent))
            studies.setdefault(study, []).append((card, file.parent))
    return [_Search(tuple(trials)) for trials in studies.values()]


def resolve_checkpoint(
    ckpt: str, runs_root: Path, refusal: Refusal | None = None, debug: bool = False, task: str | None = None
) -> Path:
    """Return the directory of the exported model (``model.safetensors``, ``config.json``, tokenizer), or a checkpoint.

    Args:
        ckpt: ``latest``, a run directory, the directory of an exported model, or a ``.ckpt`` file. The latest is the
            newest finished run under ``runs_root`` that was not a debug run; where there is none yet, the newest of the
            demo's.
        runs_root: Where ``latest`` is looked for.
        refusal: Why ``latest`` must not be a model, such as that it was trained on what it is judged on.
        debug: Whether ``latest`` is of a debug run, for another one.
        task: What the model must be trained for; None for any task.

    Raises:
        UserError: Nothing is there, or a model of another task.
    """
    if ckpt == "latest":
        return _latest(runs_root, refusal, debug, task)
    place = _named(ckpt, runs_root)
    if task is not None and task_of(place) != task:
        raise UserError(f"ckpt={ckpt} was trained for task={task_of(place)}, not for {task}: leave out task=")
    return place


def task_of(place: Path) -> str:
    """Return the name of the task that a model was trained for.

    Args:
        place: The exported model's directory, or a ``.ckpt`` file.

    Raises:
        UserError: Its file is damaged.
    """
    card = RunCard.read(run_of(place))
    if card is not None:
        return card.task
    if place.suffix == ".ckpt":  # away from its run
        asked = json.loads(read_checkpoint(place).get(ASKED_KEY, "{}"))
        return str(asked.get("settings", {}).get("task", {}).get("name", CAPTIONS))
    file = place / "config.json"
    return str(read_json(file).get("task", CAPTIONS)) if file.is_file() else CAPTIONS


def _named(ckpt: str, runs_root: Path) -> Path:
    path = Path(ckpt)
    if ckpt.endswith(".ckpt"):
        if not path.is_file():
            raise UserError(f"{ckpt}: there is no such checkpoint")
        return path
    for candidate in (path, path / EXPORT):
        if is_export(candidate):
            return candidate
    best = _Search(tuple(_trials_in(path))).best()
    if best is not None:
        return best[1] / EXPORT
    raise UserError(f"{ckpt} holds no exported model; name a run directory under {runs_root}/train, or latest")


def _latest(runs_root: Path, refusal: Refusal | None, debug: bool, task: str | None) -> Path:
    demos = sorted(runs_root.glob("demo/*"))  # named by when they started

    def finished(root: Path) -> list[tuple[RunCard, Path]]:
        return finished_runs(root, lambda card: (card.debug is not None) == debug and task in (None, card.task))

    runs = finished(runs_root) or [pair for demo in demos for pair in finished(demo)]
    reason = None
    for _, run_dir in reversed(runs):
        reason = None if refusal is None else refusal(run_dir / EXPORT)
        if reason is None:
            return run_dir / EXPORT
        log.info("latest leaves out %s: %s", run_dir, reason)
    if runs:
        raise UserError(f"latest: no finished run under {runs_root}/train may be taken; the oldest of them: {reason}")
    debugged = (
        [] if debug else finished_runs(runs_root, lambda card: card.debug is not None and task in (None, card.task))
    )
    if debugged:
        raise UserError(
            f"ckpt=latest: under {runs_root}/train are debug runs only, which are not trained models; to look at the "
            f"newest all the same: ckpt={debugged[-1][1]}"
        )
    if task not in (None, CAPTIONS):
        raise UserError(
            f"ckpt=latest: no finished run of task={task} under {runs_root}/train; run first: python train.py "
            f"task={task}"
        )
    raise UserError(f"ckpt=latest: no finished run under {runs_root}/train; run first: python train.py stage=1")


def newest_export(like: RunCard, stage: int, runs_root: Path, refusal: Refusal | None = None) -> Path:
    """Return the exported model of the newest finished run of a stage with the same parts.

    Args:
        like: The run that looks for it.
        stage: Number of the stage.
        runs_root: Where it is looked for.
        refusal: Why it must not be a model, such as that it was trained on photographs of this run's test split.

    Raises:
        UserError: There is none; the message has the command to run first.
    """
    reason = None
    for _, run_dir in reversed(finished_runs(runs_root, lambda card: card.like(like, stage))):
        reason = None if refusal is None else refusal(run_dir / EXPORT)
        if reason is None:
            return run_dir / EXPORT
        log.info("stage %d does not start from %s: %s", like.stage, run_dir, reason)
    parts = f"backbone={like.backbone} mapper={like.mapper} language_model={like.language_model}"
    debug = f" debug={like.debug}" if like.debug else ""
    why = f" (the newest does not fit: {reason})" if reason else ""
    raise UserError(
        f"stage={like.stage} starts from a finished stage {stage} with the same parts and there is none under "
        f"{runs_root}/train{why}; run first: python train.py {parts} stage={stage}{debug} (or give init_from=PATH)"
    )


def newest_last(like: RunCard, runs_root: Path, apart_from: Path | None = None) -> Path:
    """Return ``last.ckpt`` of the newest run of the same stage with the same parts.

    Args:
        like: The run that looks for it.
        runs_root: Where it is looked for.
        apart_from: The directory of the run that looks for it.

    Raises:
        UserError: There is no such run, or it died before its first checkpoint.
    """
    own = None if apart_from is None else apart_from.resolve()
    runs = [
        run_dir for card, run_dir in train_runs(runs_root) if card.like(like, like.stage) and run_dir.resolve() != own
    ]
    if not runs:
        raise UserError(
            f"ckpt_path=last: no run of this backbone, mapper, language model and stage under {runs_root}/train"
        )
    if not (runs[-1] / LAST).is_file():
        older = [run_dir / LAST for run_dir in runs if (run_dir / LAST).is_file()]
        instead = f", or name an older one: ckpt_path={older[-1]}" if older else ""
        raise UserError(
            f"ckpt_path=last: {runs[-1]}, the newest such run, ended before its first checkpoint; start it anew "
            f"without ckpt_path{instead}"
        )
    return runs[-1] / LAST


def checkpoint_to_resume(
    ckpt_path: str | None, card: RunCard, runs_root: Path, apart_from: Path | None = None
) -> Path | None:
    """Return the checkpoint that ``ckpt_path`` names, or None.

    Args:
        ckpt_path: ``last``, a checkpoint, a run directory, or None.
        card: This run's; ``last`` is the newest run like it.
        runs_root: Where ``last`` is looked for.
        apart_from: This run's directory, which ``last`` never means.

    Raises:
        UserError: There is none.
    """
    if ckpt_path is None:
        return None
    path = newest_last(card, runs_root, apart_from) if ckpt_path == "last" else Path(ckpt_path)
    path = path / LAST if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"ckpt_path={ckpt_path}: there is no such checkpoint")
    return path


def run_of(place: Path) -> Path:
    """Return the run directory of an exported model or a checkpoint, whether or not it is one."""
    return place.absolute().parent.parent if place.suffix == ".ckpt" else place.absolute().parent


def described(place: Path) -> str:
    """Return a model's path, date and data for the log."""
    card = RunCard.read(run_of(place))
    return f"{place} ({card})" if card is not None else str(place)


def is_export(path: Path) -> bool:
    """Whether a directory holds an exported model."""
    return (path / "config.json").is_file() and (path / "model.safetensors").is_file()


def _trials_in(folder: Path) -> Iterator[tuple[RunCard, Path]]:
    for file in folder.glob(f"trial_*/{CARD}"):
        card = RunCard.read(file.parent)
        if card is not None:
            yield card, file.parent
