"""A search for good settings: Optuna proposes, ``train`` runs, bad trials are stopped early.

The study lives in a database, so that the same command goes on where an earlier one stopped, and several at a time
share its trials. Hydra's own Optuna plugin needs Optuna 2 and can neither resume nor stop a trial.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from clip_xai.config.schemas import TrainConfig
from clip_xai.config.training_settings import SearchConfig
from clip_xai.errors import UserError
from clip_xai.files import replacing, write_json
from clip_xai.jobs.train import train
from clip_xai.runs.checkpoints import CAPTIONS
from clip_xai.runs.directories import claim
from clip_xai.runs.loggers import GivenUp
from clip_xai.text import counted, spreadsheet_cell
from clip_xai.training.stop_at_non_finite import Diverged

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)
STALE_SECONDS = 120  # a trial whose process has not been heard of for so long is run again


def search(config: TrainConfig, compose: Callable[[Sequence[str]], TrainConfig]) -> dict[str, Any]:
    """Run trials until the study has as many as are wanted.

    Writes ``search.json`` (the best settings) and ``trials.csv`` into ``config.run_dir``; each trial is a run in
    ``trial_<number>/`` there.

    Args:
        config: The settings of ``train``, with ``hparams_search``.
        compose: Overrides -> the settings of one trial; the overrides of this command are in them already.

    Returns:
        What stands in ``search.json``.

    Raises:
        UserError: Optuna is missing, or the space is not understood.
    """
    told = config.hparams_search
    assert told is not None
    run_dir = Path(config.run_dir)
    claim(run_dir, "search", asked_of_search(told, config))
    study = open_study(told, config)

    def run(trial: optuna.Trial, overrides: list[str]) -> float:
        log.info("trial %d: %s", trial.number, " ".join(overrides))
        settings = compose([*overrides, f"run_dir={run_dir / f'trial_{trial.number:03d}'}"])
        try:
            metrics = train(settings, [ReportEpochs(trial, config.callbacks.monitor)])
        except GivenUp as reason:
            raise import_optuna().TrialPruned(str(reason)) from reason
        except Diverged as reason:
            log.warning("trial %d failed: %s", trial.number, reason)
            return math.nan  # Optuna records a failed trial, and the search goes on
        reached = metrics[config.callbacks.monitor]
        return math.nan if reached is None else float(reached)

    run_trials(study, told, run)
    return write(study, run_dir)


def asked_of_search(told: SearchConfig, config: TrainConfig) -> dict[str, Any]:
    """What decides a search, apart from how many trials it has; every trial notes its own settings."""
    fixed = {name: value for name, value in asdict(told).items() if name not in ("name", "trials")}
    parts = ("backbone", "mapper", "language_model", "stage", "data", "generation")
    if config.task.name != CAPTIONS:
        fixed["task"] = {key: value for key, value in asdict(config.task).items() if key != "run_name"}
    return {
        "settings": {
            "study": told.name, "hparams_search": fixed, "seed": config.seed, "monitor": config.callbacks.monitor,
            **{name: asdict(part) for name in parts if (part := getattr(config, name)) is not None},
        }
    }  # fmt: skip


def run_trials(study: optuna.Study, told: SearchConfig, run: Callable[[optuna.Trial, list[str]], float]) -> None:
    """Run trials until the study has as many as are wanted.

    Args:
        study: The study.
        told: How to search.
        run: A trial and its overrides -> what it reached.

    Raises:
        UserError: The space is not understood.
    """
    space = leaves(told.space)
    check(space)

    def objective(trial: optuna.Trial) -> float:
        # A sampler for each trial: what it draws at random depends on the trial's number alone, and not on how often a
        # search was stopped or how many processes share it.
        study.sampler = sampler(told, trial.number)
        return run(trial, [f"{name}={written(suggest(trial, name, spec))}" for name, spec in space.items()])

    if finished(study) < told.trials:
        study.optimize(objective, n_trials=told.trials - finished(study), callbacks=[stop_at(told.trials)])


def import_optuna() -> Any:
    """Return Optuna.

    Raises:
        UserError: It is not installed, or older than version 4.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError('hparams_search needs Optuna: pip install "clip-xai[search]"') from error
    if int(optuna.__version__.partition(".")[0]) < 4:
        raise UserError(f"hparams_search needs Optuna 4 or newer, not {optuna.__version__}: pip install -U optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_study(told: SearchConfig, config: TrainConfig) -> optuna.Study:
    """Open the study of a name, a new one or one that goes on."""
    optuna = import_optuna()
    url = told.storage
    if url is None:
        root = Path(config.runs_root).resolve()
        root.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{root / 'search.db'}"
    storages = optuna.storages
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if hasattr(storages, "RetryHeartbeatStaleTrialCallback"):  # called so from Optuna 4.9 on
            retry = {"heartbeat_stale_trial_callback": storages.RetryHeartbeatStaleTrialCallback()}
        else:
            retry = {"failed_trial_callback": storages.RetryFailedTrialCallback()}
        try:
            storage = storages.RDBStorage(
                url,
                engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None,
                heartbeat_interval=STALE_SECONDS // 4,
                grace_period=STALE_SECONDS,
                **retry,
            )
        except Exception as error:
            if not _is_damage(error):
                raise
            raise UserError(f"{url} is damaged; move it away, or name another hparams_search.storage") from error
    return optuna.create_study(
        storage=storage,
        study_name=told.name,
        direction="minimize" if config.callbacks.mode == "min" else "maximize",
        sampler=sampler(told, 0),
        pruner=pruner(told),
        load_if_exists=True,
    )


def sampler(told: SearchConfig, number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of a trial."""
    optuna = import_optuna()
    return optuna.samplers.TPESampler(seed=told.seed + number, n_startup_trials=told.startup_trials)


def pruner(told: SearchConfig) -> optuna.pruners.BasePruner:
    """Return what stops trials that are worse than the median of the others at the same epoch."""
    optuna = import_optuna()
    if told.prune_after is None:
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=told.startup_trials, n_warmup_steps=told.prune_after)


class ReportEpochs(Callback):
    """Tells Optuna what every epoch reached, and ends the run where Optuna gives it up."""

    def __init__(self, trial: optuna.Trial, monitor: str) -> None:
        self.trial = trial
        self.monitor = monitor

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report an epoch, unless it is a validation before the first or what is monitored was not due.

        Raises:
            GivenUp: The trial is worse than others were.
        """
        value = trainer.callback_metrics.get(self.monitor)
        if trainer.state.fn != TrainerFn.FITTING or value is None:
            return
        self.trial.report(float(value), step=trainer.current_epoch)
        if self.trial.should_prune():
            raise GivenUp(f"given up in epoch {trainer.current_epoch}")


def leaves(space: Mapping[str, Any], prefix: str = "") -> dict[str, Mapping[str, Any]]:
    """Return setting -> its range, whether the space is written flat (``stage.epochs: {...}``) or nested.

    >>> leaves({"stage": {"epochs": {"low": 1, "high": 3}}, "mapper": {"choices": ["resampler"]}})
    {'stage.epochs': {'low': 1, 'high': 3}, 'mapper': {'choices': ['resampler']}}
    """
    found: dict[str, Mapping[str, Any]] = {}
    for key, value in space.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and not {"low", "choices"} & set(value):
            found |= leaves(value, f"{name}.")
        else:
            found[name] = value
    return found


def check(space: Mapping[str, Any]) -> None:
    """Refuse a space that says nothing, or something else than ranges and choices."""
    if not space:
        raise UserError("hparams_search.space is empty: name at least one setting with {low, high} or {choices}")
    for name, spec in space.items():
        keys = set(spec) if isinstance(spec, Mapping) else set()
        ranged = {"low", "high"} <= keys <= {"low", "high", "log", "step"} and spec["low"] <= spec["high"]
        if not ranged and keys != {"choices"}:
            raise UserError(
                f"hparams_search.space: {name} must be {{low, high[, log][, step]}} or {{choices}}, not {spec}"
            )


def suggest(trial: optuna.Trial, name: str, spec: Mapping[str, Any]) -> Any:
    """Draw a setting."""
    if "choices" in spec:
        return trial.suggest_categorical(name, list(spec["choices"]))
    low, high, log_scale, step = spec["low"], spec["high"], bool(spec.get("log", False)), spec.get("step")
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, log=log_scale, step=step or 1)
    return trial.suggest_float(name, low, high, log=log_scale, step=step)


def written(value: Any) -> str:
    """Return a value as an override has it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def finished(study: optuna.Study) -> int:
    """Return how many trials came to a result or were given up."""
    state = import_optuna().trial.TrialState
    return len(study.get_trials(deepcopy=False, states=(state.COMPLETE, state.PRUNED)))


def stop_at(trials: int) -> Callable[[optuna.Study, optuna.trial.FrozenTrial], None]:
    """Return a callback that ends this process's part when the study, shared or not, has its trials."""

    def stop(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if finished(study) >= trials:
            study.stop()

    return stop


def write(study: optuna.Study, run_dir: Path) -> dict[str, Any]:
    """Write what was found; return the best."""
    state = import_optuna().trial.TrialState
    run_dir.mkdir(parents=True, exist_ok=True)
    with replacing(run_dir / "trials.csv") as unfinished:
        trials = study.trials_dataframe()
        trials.map(lambda cell: spreadsheet_cell(cell) if isinstance(cell, str) else cell).to_csv(
            unfinished, index=False
        )
    if not study.get_trials(deepcopy=False, states=(state.COMPLETE,)):
        raise UserError(f"no trial of the study {study.study_name} finished; see {run_dir / 'trials.csv'}")
    best = study.best_trial
    found = {
        "study": study.study_name,
        "trials": len(study.trials),
        "given_up": len(study.get_trials(deepcopy=False, states=(state.PRUNED,))),
        "failed": len(study.get_trials(deepcopy=False, states=(state.FAIL,))),
        "best_trial": best.number,
        "best_value": best.value,
        "best_settings": best.params,
    }
    write_json(run_dir / "search.json", found)
    settings = " ".join(f"{name}={written(value)}" for name, value in best.params.items())
    log.info("best of %s: %s %.4g with %s", counted(len(study.trials), "trial"), study.study_name, best.value, settings)
    return found


def _is_damage(error: BaseException) -> bool:
    """Whether SQLite found no database in a file, or a damaged one; a lock or a full disk is an OperationalError."""
    link: BaseException | None = error
    while link is not None:
        if type(getattr(link, "orig", link)) is sqlite3.DatabaseError:
            return True
        link = link.__cause__ or link.__context__
    return False
