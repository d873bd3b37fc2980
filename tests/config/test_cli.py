"""What a user sees who mistypes: one line, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from clip_xai.config import cli
from clip_xai.config.chosen import refuse_unused, settings_typed
from clip_xai.config.cli import compose_job
from clip_xai.config.schemas import DataConfig, DataOfTheRun
from clip_xai.errors import UserError
from clip_xai.runs.checkpoints import RunCard

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):  # type: ignore[no-untyped-def]
    """Type a command; return the exit status and the lines on standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")

    def run(job: str, *arguments: str) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", [f"{job}.py", *arguments])
        GlobalHydra.instance().clear()
        with pytest.raises(SystemExit) as exit_:
            cli.run_job(job, CONF)
        return int(exit_.value.code or 0), capsys.readouterr().err.strip().splitlines()

    return run


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["stage.learning_rte=3"], "stage.learning_rte: there is no such setting or group (near: stage.learning_rate"),
        (["stage.epochs=many"], "stage.epochs: Value 'many' of type 'str' could not be converted to Integer"),
        (
            ["backbone=tinny"],
            "backbone=tinny: there is no such option (near: tiny); backbone can be biomedclip",
        ),
        (["bakbone=tiny"], "bakbone: there is no such setting or group (near: backbone"),
        (["+stage.mine=3"], "stage.mine: there is no such setting or group"),
        (["xai=gradcam"], "xai: there is no such setting or group"),
        (["stage=3"], "stage=3: there is no such option; stage can be adaptation, contrastive, language"),
        (["stage=1,2"], "stage=1,2 holds several values: add -m to run one after the other, or quote the value"),
        (["data=dermacap"], "data.root has no value: add data.root=... to the command"),
        (["stage.trains=[mappr]"], "stage.trains: mappr is not one of mapper, embeddings"),
        (["trainer.limit_val_batches=[1]"], "trainer.limit_val_batches: "),
        (["trainer.devices=2"], "trainer.devices: several devices need trainer=ddp"),
        (["trainer.validate_on=test"], "trainer.validate_on=test: the split that is reported must not choose"),
        (["trainer.strategy=dpp"], "trainer.strategy=dpp: choose one of auto, ddp, fsdp"),
        (["stage=0", "stage.trains=[mapper]"], "stage.trains: mapper is not one of image, text, temperature"),
        (["stage=0", "trainer.accumulate_grad_batches=2"], "stage=0 contrasts all pairs of a step"),
        (["stage.decay=1.5"], "stage.decay=1.5: give more than 0 and less than 1"),
        (["data.root=nowhere", "data=dermacap"], "data.root=nowhere: there is no such directory"),
    ],
)
def test_a_mistake_is_one_line(typed, arguments: list[str], line: str) -> None:  # type: ignore[no-untyped-def]
    status, lines = typed("train", *arguments)
    assert status == 1
    assert len(lines) == 1 and lines[0].startswith(line), lines


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        (["language_model=tiny"], "language_model"),
        (["callbacks.sample_captions=2"], "callbacks.sample_captions"),
        (["-m", "seed=1,2", "generation=beams"], "generation"),
    ],
)
def test_a_typed_setting_that_the_task_does_not_use_is_refused(  # type: ignore[no-untyped-def]
    typed, arguments: list[str], setting: str
) -> None:
    status, lines = typed("train", *arguments, "task=classify")
    assert (status, lines) == (1, [f"task=classify does not use {setting}; leave it out"])


@pytest.mark.parametrize(
    ("job", "task", "arguments", "setting"),
    [
        ("evaluate", "classify", ["generation.beams=4"], "generation.beams"),
        ("evaluate", "captions", ["-m", "seed=1,2", "shortcuts=[sex]"], "shortcuts"),
        ("explain", "classify", ["generation=greedy"], "generation"),
    ],
)
def test_what_is_judged_reads_no_settings_of_another_task(  # type: ignore[no-untyped-def]
    typed, tmp_path: Path, job: str, task: str, arguments: list[str], setting: str
) -> None:
    export = tmp_path / "made" / "export"
    export.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (export / name).touch()  # no record and no weight is there: neither is read
    RunCard.now("tiny", "", "", 1, task=task).write(tmp_path / "made")
    status, lines = typed(job, *arguments, f"ckpt={tmp_path / 'made'}", "split=train")
    assert (status, lines) == (1, [f"task={task} does not use {setting}; leave it out"])


def test_a_backbone_by_itself_writes_no_captions(typed) -> None:  # type: ignore[no-untyped-def]
    status, lines = typed("explain", "backbone=tiny", "image=nowhere.png", "generation.beams=4")
    assert (status, lines) == (1, ["backbone=tiny by itself does not use generation.beams; leave it out"])


def test_an_empty_value_asks_for_nothing() -> None:
    with settings_typed(["mapper=null", "shortcuts=[]", "~generation", "data.max_tokens=40"]):
        refuse_unused("task=mine", ["mapper", "shortcuts", "generation", "data.max"])
        with pytest.raises(UserError, match=r"^task=mine does not use data\.max_tokens; leave it out$"):
            refuse_unused("task=mine", ["data.max_tokens"])
    refuse_unused("task=mine", ["data.max_tokens"])  # outside of a command nothing was typed


def test_a_sweep_over_several_devices_is_refused(typed) -> None:  # type: ignore[no-untyped-def]
    for arguments in (["-m", "seed=1,2"], ["hparams_search=optuna"]):
        status, lines = typed("train", *arguments, "trainer=ddp", "trainer.devices=4")
        assert (status, lines) == (1, ["a sweep runs on one device, not on 4: set trainer.devices=1"])
    status, lines = typed("train", "-m", "seed=1,2", "hparams_search=optuna")
    assert status == 1 and len(lines) == 1 and "leave out -m" in lines[0]


def test_mistakes_in_a_sweep_are_one_line_too(typed) -> None:  # type: ignore[no-untyped-def]
    status, lines = typed("train", "-m", "stage=1,7")
    assert status == 1 and lines == [
        "stage=7: there is no such option; stage can be adaptation, contrastive, language, supervised"
    ]


def test_nothing_to_explain_says_what_to_run_first(typed) -> None:  # type: ignore[no-untyped-def]
    for job in ("evaluate", "explain"):
        status, lines = typed(job)
        assert status == 1 and len(lines) == 1 and "python train.py stage=1" in lines[0]


def test_the_whole_traceback_is_there_on_demand(typed, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(Exception, match="no_such_key"):
        monkeypatch.setattr(sys, "argv", ["train.py", "no_such_key=3"])
        cli.run_job("train", CONF)


LOADED = """
import sys
from clip_xai.config.cli import run_job
sys.argv = ["train.py", *sys.argv[1:]]
status = 0
try:
    run_job("train")
except SystemExit as end:
    status = end.code
print(status, *sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize(("argument", "status"), [("--help", "0"), ("stage.learning_rte=3", "1"), ("--cfg=job", "0")])
def test_help_and_mistyped_keys_load_no_heavy_library(argument: str, status: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOADED, argument]
    paths = {**os.environ, "PYTHONPATH": str(CONF.parent / "src")}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=paths, check=True)
    ended, *loaded = done.stdout.splitlines()[-1].split()
    assert ended == status and "hydra" in loaded
    heavy = {"torch", "lightning", "transformers", "open_clip", "timm", "pandas", "scipy", "numpy", "PIL", "wandb"}
    assert not heavy & set(loaded)


@pytest.mark.parametrize("job", ["train", "evaluate", "explain"])
def test_help_lists_the_options_of_every_group_of_the_job(
    job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "generation").mkdir()
    (tmp_path / "generation" / "mine.yaml").write_text("beams: 7\n")
    monkeypatch.setattr(sys, "argv", [f"{job}.py", "--help", "--config-dir", str(tmp_path), "generation=mine"])
    cli.run_job(job, CONF)
    lines = capsys.readouterr().out.splitlines()
    groups = {name: options.split(", ") for name, _, options in (line.partition(": ") for line in lines)}
    assert {"beams", "greedy", "mine"} <= set(groups["generation"]) and "  beams: 7" in lines
    assert ("stage" in groups) == (job == "train") and ("xai" in groups) == (job != "train")


@pytest.mark.parametrize("setting", ["run_dir", "runs_root", "hydra.run.dir"])
@pytest.mark.parametrize("job", ["train", "explain"])
def test_a_file_in_the_place_of_a_directory_is_one_line(typed, tmp_path: Path, job: str, setting: str) -> None:
    taken = tmp_path / "file"
    taken.write_text("mine")
    for value in (taken, taken / "run"):
        status, [line] = typed(job, f"{setting}={value}")
        assert status == 1 and f"{taken} is a file, not a directory" in line
    assert taken.read_text() == "mine"


def test_the_data_of_the_run_are_left_unless_they_are_named() -> None:
    def chosen(job: str, *overrides: str) -> object:
        return compose_job(job, list(overrides), Path("run")).data

    assert chosen("evaluate") is None and chosen("explain", "xai=gradcam") is None
    named = chosen("evaluate", "data=dermacap_mini", "data.limit=3")
    assert type(named) is DataConfig and named.limit == 3
    changed = chosen("explain", "data.limit=3", "data.synthetic.scale=0.02")
    assert isinstance(changed, DataOfTheRun) and changed.changed == ["limit", "synthetic"] and changed.limit == 3
    assert type(chosen("explain", "backbone=tiny")) is type(chosen("train")) is DataConfig
