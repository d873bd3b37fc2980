"""A disk that takes no more: one line that says which file, what to do and what is kept."""

from __future__ import annotations

import errno
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clip_xai.config import cli
from clip_xai.config.schemas import DataConfig, TrainConfig
from clip_xai.config.training_settings import TrainerConfig
from clip_xai.data import __main__ as data_command
from clip_xai.disk import disk_line, places_of
from clip_xai.files import disk_error, naming, replacing, reserve, write_json
from clip_xai.jobs import export, prepare
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.training.checkpoint_files import WholeCheckpoints
from clip_xai.training.trainer import build_trainer

LIMIT = 2000
NOISE = np.random.default_rng(0)
CLOSED = Path("/sys/clip_xai")  # nobody may write there, not even root
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs a place where nobody may write")


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Let no file grow larger: the system's own limit, which libraries meet as they meet a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def frame() -> pd.DataFrame:
    return pd.DataFrame({"a": NOISE.random(1000)})


def whole(write: Callable[[Path], object]) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        with replacing(path) as unfinished:
            write(unfinished)

    return run


WRITERS = {
    "text.json": lambda path: write_json(path, list(range(1000))),
    "map.safetensors": whole(lambda path: save_file({"a": torch.rand(1000)}, path)),
    "table.parquet": whole(lambda path: frame().to_parquet(path)),
    "table.csv": whole(lambda path: frame().to_csv(path)),
    "card.png": whole(lambda path: Image.fromarray(NOISE.integers(0, 255, (64, 64, 3), np.uint8)).save(path)),
    "tokenizer.json": lambda path: CaptionTokenizer.train(["red spot"] * 5, 300).save(path.parent),
    "last.ckpt": lambda path: WholeCheckpoints().save_checkpoint({"a": torch.rand(1000)}, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_does_not_fit_leaves_the_old_file_and_an_error_that_names_it(name: str, tmp_path: Path) -> None:
    place = tmp_path / name
    place.write_bytes(b"before")
    with disk_of(LIMIT), pytest.raises(OSError) as raised:
        WRITERS[name](place)
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(place))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert place.read_bytes() == b"before"
    line = disk_line(raised.value, {"run_dir": tmp_path})
    assert line == (
        f"{place}: it is larger than the system allows; raise the limit (ulimit -f), or set run_dir to another place. "
        "Every file that was finished is kept and whole; then give the command again"
    )


@pytest.mark.parametrize("name", WRITERS)
def test_what_fits_is_written_and_readable_for_others(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    (tmp_path / "plain").touch()
    assert (tmp_path / name).stat().st_size > 10
    assert (tmp_path / name).stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_training_writes_its_checkpoints_whole(tmp_path: Path) -> None:
    config = TrainConfig(trainer=TrainerConfig(accelerator="cpu"), run_dir=str(tmp_path))
    trainer, _ = build_trainer(config, [], [], "auto")
    assert isinstance(trainer.strategy.checkpoint_io, WholeCheckpoints)


@linux_only
def test_a_full_disk_has_its_name_though_python_gives_none(tmp_path: Path) -> None:
    with pytest.raises(OSError) as raised, naming(tmp_path / "a"), open("/dev/full", "w") as full:
        full.write("a")
        full.flush()
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tmp_path / "a"))
    line = disk_line(raised.value, {})
    assert line is not None and line.startswith(f"{tmp_path / 'a'}: the disk has no space left for it (")
    assert "MB are free); free some, or name another place." in line


def test_space_is_reserved_before_it_is_used(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        reserve(file, 100_000)
        assert os.stat(file.fileno()).st_size in (0, 100_000)  # none where the file system cannot
        with disk_of(LIMIT), pytest.raises(OSError, match="File too large"):
            reserve(file, 200_000)
        reserve(file, 0)


def test_what_is_kept_is_named(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "a"))
    (tmp_path / "results").mkdir()
    for number in range(2):
        (tmp_path / "results" / f"{number}.safetensors").touch()
    line = disk_line(full, {"run_dir": tmp_path})
    assert line is not None and line.endswith("2 explained photographs are kept: the same command goes on from there")
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.parent.mkdir()
    last.touch()
    line = disk_line(full, {"run_dir": tmp_path})
    assert line is not None and line.endswith(f"{last} is kept and whole: ckpt_path={last} resumes from it")


def test_the_setting_is_named_whose_directory_it_is(tmp_path: Path) -> None:
    config = TrainConfig(data=DataConfig(cache_dir=str(tmp_path / "cache")), run_dir=str(tmp_path / "run"))
    places = places_of(config)
    assert places["data.cache_dir"] == tmp_path / "cache"
    line = disk_line(OSError(errno.EROFS, "Read-only", str(tmp_path / "cache" / "x")), places)
    assert line is not None and "the disk is read-only; make it writable, or set data.cache_dir to another" in line


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "No such file", "a"), ValueError("full"), RuntimeError("os error 2")]
)
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert disk_error(error) is None
    assert disk_line(error, {}) is None


KEPT = "Every file that was finished is kept and whole; then give the command again"


@linux_only
def test_every_command_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")

    def said(command: Callable[..., Any], *arguments: Any) -> str:
        with pytest.raises(SystemExit) as exit_:
            sys.exit(command(*arguments))
        assert exit_.value.code == 1
        [line] = capsys.readouterr().err.strip().splitlines()
        return line

    for job in ("train", "evaluate", "explain"):
        monkeypatch.setattr(sys, "argv", [f"{job}.py", f"runs_root={CLOSED}"])
        assert said(cli.run_job, job, cli.CONF).startswith(f"{CLOSED}: permission denied; allow it")
    line = said(prepare.main, [f"data.output_dir={CLOSED}"])
    assert line.startswith(f"{CLOSED}: permission denied; allow it, or set data.output_dir to another place")
    (tmp_path / "photographs").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "photographs" / "a.png")
    (tmp_path / "photographs" / "captions.csv").write_text("image,caption,group\na.png,a black square,1\n")
    line = said(data_command.main, ["data.root=.", f"data.output_dir={CLOSED}"])
    assert line.startswith(f"error: data.output_dir={CLOSED} cannot be written to (")


@linux_only
def test_an_export_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(given: object) -> Path:
        CLOSED.mkdir()
        return CLOSED

    monkeypatch.setattr(export, "export", denied)
    assert export.main(["latest", "--to", str(CLOSED / "model")]) == 1
    assert capsys.readouterr().err == f"{CLOSED}: permission denied; allow it, or name another place. {KEPT}\n"
