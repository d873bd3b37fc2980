"""A refused command leaves what was there as it was: tried with the real command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clip_xai.config.cli import run_job


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments])
    with pytest.raises(SystemExit):
        run_job("evaluate")
    return capsys.readouterr().err


def test_the_settings_of_an_earlier_run_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = tmp_path / "earlier"
    (earlier / ".hydra").mkdir(parents=True)
    (earlier / ".hydra" / "config.yaml").write_text("what: it was\n")
    (earlier / "metrics.json").write_text("{}")
    said = refused(monkeypatch, capsys, f"ckpt={tmp_path / 'nothing'}", f"hydra.run.dir={earlier}")
    assert "nothing" in said
    assert (earlier / ".hydra" / "config.yaml").read_text() == "what: it was\n"
    assert (earlier / "metrics.json").read_text() == "{}"


def test_no_directory_is_left_of_a_refused_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(monkeypatch, capsys, f"ckpt={tmp_path / 'nothing'}", f"runs_root={tmp_path / 'runs'}")
    assert not list((tmp_path / "runs").rglob("*.yaml")) and not list((tmp_path / "runs" / "evaluate").iterdir())
    own = tmp_path / "own"
    own.mkdir()
    (own / "notes.txt").write_text("hers")
    refused(monkeypatch, capsys, f"ckpt={tmp_path / 'nothing'}", f"hydra.run.dir={own}")
    assert (own / "notes.txt").read_text() == "hers" and not (own / ".hydra").exists()
