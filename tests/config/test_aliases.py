"""Numbers that choose options: on the command line, in sweeps and in YAML."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from clip_xai.config import aliases, cli, yaml_source
from clip_xai.config.aliases import with_option_names
from clip_xai.config.training_settings import StageConfig
from clip_xai.errors import UserError

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.mark.parametrize("module", [aliases, yaml_source])
def test_docstrings(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("stage=0", "stage=contrastive"),
        ("stage='2'", "stage=language"),
        ('stage="2"', "stage=language"),
        ("stage=language", "stage=language"),
        ("stage=1,2", "stage=adaptation,language"),
        ("stage=adaptation,2", "stage=adaptation,language"),
        ("stage=choice(2,1)", "stage=language,adaptation"),
        ("stage=range(0,3)", "stage=contrastive,adaptation,language"),
        ("stage=[1]", "stage=[adaptation]"),
        ("stage@second=2", "stage@second=language"),
        ("+stage=2", "+stage=language"),
        ("stage=7", "stage='7'"),
        ("stage={epochs:3}", "stage={epochs:3}"),
        ("stage=glob(*)", "stage=glob(*)"),
        ("stage=a b", "stage=a b"),
        ("stage.epochs=2", "stage.epochs=2"),
        ("seed=1,2", "seed=1,2"),
        ("--config-name", "--config-name"),
    ],
)
def test_arguments(typed: str, read: str) -> None:
    assert with_option_names(typed, {"stage", "mapper"}.__contains__) == read


@pytest.mark.parametrize(("number", "name"), aliases.STAGES.items())
def test_an_alias_is_the_number_and_the_name_of_its_stage(number: str, name: str) -> None:
    stage = OmegaConf.merge(OmegaConf.structured(StageConfig), OmegaConf.load(CONF / "stage" / f"{name}.yaml"))
    assert (str(stage.number), stage.name) == (number, name)


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Type a command in a directory with YAML of one's own; return the settings that its jobs got."""
    own = tmp_path / "own"
    (own / "experiment").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **files: str) -> list[Any]:
        for name, text in files.items():
            (own / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{text}")
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        got: list[Any] = []
        monkeypatch.setattr(cli, "_start", lambda command, config: got.append(OmegaConf.to_object(config)))
        cli.run_job("train", CONF)
        return [(one.stage.number, one.stage.learning_rate) for one in got]

    return run


SIZED = {1: 4.0e-3, 2: 3.0e-3}  # what conf/stage/sized has for the tiny language model


@pytest.mark.parametrize("written", ["2", "'2'", "language"])
@pytest.mark.parametrize("options", [["--config-dir", "own"], ["--config-dir=own"], ["-cd", "own"]])
def test_the_users_own_yaml(composed, options: list[str], written: str) -> None:  # type: ignore[no-untyped-def]
    assert composed(*options, "experiment=mine", mine=f"defaults: [override /stage: {written}]") == [(2, SIZED[2])]


def test_yaml_below_a_search_path(composed, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    place = f"hydra.searchpath=[file://{tmp_path / 'own'}]"
    assert composed(place, "experiment=mine", mine="defaults: [override /stage: 2]") == [(2, SIZED[2])]


def test_a_sweep_of_numbers(composed) -> None:  # type: ignore[no-untyped-def]
    assert composed("-m", "stage=1,2") == [(1, SIZED[1]), (2, SIZED[2])]


@pytest.mark.parametrize("values", ["2", "1,2"])
def test_a_sweep_that_yaml_asks_for(composed, tmp_path: Path, values: str) -> None:  # type: ignore[no-untyped-def]
    mine = f"hydra: {{mode: MULTIRUN, sweeper: {{params: {{stage: '{values}'}}}}}}"
    expected = [(int(number), SIZED[int(number)]) for number in values.split(",")]
    assert composed("--config-dir", "own", "experiment=mine", mine=mine) == expected


def test_a_directory_that_is_not_there_is_one_line(composed, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SystemExit):
        composed("--config-dir", "mistyped")
    assert capsys.readouterr().err == "--config-dir mistyped: there is no such directory\n"


@pytest.mark.parametrize(
    ("place", "wanted"),
    [
        ("experiment/stage/mine_1.yaml", "mine_adaptation.yaml"),
        ("experiment/stage/my_2_mine_2.yaml", "my_2_mine_language.yaml"),
        ("stage/sized/0_gpt2.yaml", "contrastive_gpt2.yaml"),
    ],
)
def test_a_file_with_a_stages_number_in_its_name_is_refused(tmp_path: Path, place: str, wanted: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text("learning_rate: 1\n")
    with pytest.raises(UserError, match=f"would not be read: rename it to {wanted}$"):
        cli.Command.of("train", CONF, [f"--config-dir={tmp_path}"])


@pytest.mark.parametrize("argument", ["launcher=null", "xai=null", "launcher=null,joblib"])
def test_no_option_is_refused_in_one_line(argument: str) -> None:
    with pytest.raises(UserError, match="an option is left out by leaving out"):
        with_option_names(argument, {"launcher", "xai"}.__contains__)
    assert with_option_names("image=null", {"xai"}.__contains__) == "image=null"
