"""Searches of planted landscapes; the space, the resuming and the stopping are real, the landscape has a known best."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from lightning import Callback
from optuna.trial import FixedTrial, TrialState

from clip_xai.config.schemas import CallbacksConfig, SearchConfig, TrainConfig
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.jobs import search as searching
from clip_xai.jobs.search import check, finished, leaves, open_study, run_trials, suggest, write, written
from clip_xai.training.kept import best_metrics
from tests.support.small_captioner import records
from tests.training.test_kept import Plan, config_of, run

__all__ = ["records"]

SPACE = {"x": {"low": 0.0, "high": 1.0}, "stage": {"epochs": {"low": 1, "high": 4}}, "mapper": {"choices": ["a", "b"]}}


def landscape(trial: optuna.Trial, overrides: list[str]) -> float:
    """Lowest at x = 0.3, epochs = 2, mapper = b."""
    told = dict(override.split("=") for override in overrides)
    return (float(told["x"]) - 0.3) ** 2 + abs(int(told["stage.epochs"]) - 2) + (told["mapper"] == "a")


def study_in(directory: Path, told: SearchConfig, mode: str = "min") -> optuna.Study:
    return open_study(told, TrainConfig(callbacks=CallbacksConfig(mode=mode), runs_root=str(directory)))


def drawn(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]


def test_a_search_finds_a_planted_best(tmp_path: Path) -> None:
    told = SearchConfig(trials=40, space=SPACE)
    study = study_in(tmp_path, told)
    run_trials(study, told, landscape)
    found = write(study, tmp_path)
    assert found["best_settings"]["mapper"] == "b" and found["best_settings"]["stage.epochs"] == 2
    assert found["best_value"] < 0.02 and found["trials"] == 40
    assert (tmp_path / "trials.csv").is_file() and (tmp_path / "search.json").is_file()


def test_a_stopped_search_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    told = SearchConfig(trials=9, startup_trials=9, space=SPACE)
    whole = study_in(tmp_path / "whole", told)
    run_trials(whole, told, landscape)

    def breaks_off(trial: optuna.Trial, overrides: list[str]) -> float:
        if trial.number == 4:
            raise KeyboardInterrupt
        return landscape(trial, overrides)

    with pytest.raises(KeyboardInterrupt):
        run_trials(study_in(tmp_path / "stopped", told), told, breaks_off)
    again = study_in(tmp_path / "stopped", told)
    assert finished(again) == 4
    run_trials(again, told, landscape)
    assert finished(again) == 9
    numbers = [trial.number for trial in again.trials if trial.state == TrialState.COMPLETE]
    assert numbers == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert drawn(again)[:4] == drawn(whole)[:4] and drawn(again)[4:8] == drawn(whole)[5:9]
    run_trials(again, told, landscape)  # complete: nothing more is run
    assert len(again.trials) == 10


def test_bad_trials_are_given_up_and_good_ones_are_not(tmp_path: Path) -> None:
    told = SearchConfig(trials=12, startup_trials=4, prune_after=1, space={"x": {"low": 0.0, "high": 1.0}})
    ran: dict[int, int] = {}

    def curve(trial: optuna.Trial, overrides: list[str]) -> float:
        loss = 5.0 if trial.number in (7, 9) else 1.0 - 0.01 * trial.number
        for epoch in range(5):
            trial.report(loss, epoch)
            ran[trial.number] = epoch
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    study = study_in(tmp_path, told)
    run_trials(study, told, curve)
    states = {trial.number: trial.state for trial in study.trials}
    assert {number for number, state in states.items() if state == TrialState.PRUNED} == {7, 9}
    assert ran[7] == ran[9] == 1 and ran[6] == 4
    assert write(study, tmp_path)["given_up"] == 2


def test_the_callback_gives_up_trials_of_real_trainings_and_a_diverged_one_fails(
    records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = SearchConfig(trials=5, startup_trials=2, prune_after=0, space={"seed": {"low": 0, "high": 99}})
    config = config_of(tmp_path)
    config.hparams_search, config.stage.epochs = told, 2
    level = logging.getLogger("lightning.pytorch").level
    levels: dict[int, float] = {0: 1.0, 1: 1.0, 2: float("nan"), 3: 9.0, 4: 0.5}
    plans: dict[int, Plan] = {}

    def of_trial(settings: TrainConfig, callbacks: Sequence[Callback]) -> dict[str, Any]:
        number = int(settings.run_dir.rpartition("_")[2])
        plans[number] = Plan(dict.fromkeys(range(2), levels[number]))
        best = run(records, settings, f"trial_{number:03d}", plans[number], *callbacks)
        return best_metrics(best)

    monkeypatch.setattr(searching, "train", of_trial)
    found = searching.search(config, lambda overrides: replace(config, run_dir=overrides[-1].partition("=")[2]))
    states = {trial.number: trial.state for trial in open_study(told, config).trials}
    assert states == {
        **dict.fromkeys((0, 1, 4), TrialState.COMPLETE), 2: TrialState.FAIL, 3: TrialState.PRUNED,
    }  # fmt: skip
    epochs = {number: len(plan.seen) - 1 for number, plan in plans.items()}  # one validation before the first
    assert epochs == {0: 2, 1: 2, 2: 0, 3: 1, 4: 2}
    assert (found["given_up"], found["failed"], found["best_trial"], found["best_value"]) == (1, 1, 4, 0.5)
    assert logging.getLogger("lightning.pytorch").level == level


def test_the_direction_is_that_of_what_is_monitored(tmp_path: Path) -> None:
    told = SearchConfig(name="up", trials=2, space={"x": {"low": 0.0, "high": 1.0}})
    study = study_in(tmp_path, told, mode="max")
    run_trials(study, told, lambda trial, overrides: float(trial.number))
    assert study.best_trial.number == 1


def test_settings_are_drawn_with_their_types() -> None:
    values = {"a": 0.5, "b": 3, "c": None, "d": 0.01}
    trial: Any = FixedTrial(values)
    space = {"a": {"low": 0.0, "high": 1.0}, "b": {"low": 1, "high": 4}, "c": {"choices": [None, True]}}
    assert [suggest(trial, name, spec) for name, spec in space.items()] == [0.5, 3, None]
    assert suggest(trial, "d", {"low": 0.001, "high": 1.0, "log": True}) == 0.01
    assert [written(value) for value in (None, True, False, 3, 0.5, "b")] == ["null", "true", "false", "3", "0.5", "b"]


@pytest.mark.parametrize(
    "space", [{}, {"a": 3}, {"a": {"low": 1}}, {"a": {"low": 2, "high": 1}}, {"a": {"choices": [1], "log": True}}]
)
def test_a_space_that_says_nothing_is_refused(space: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"hparams_search\.space"):
        check(leaves(space))
