from __future__ import annotations

import json
from pathlib import Path

import pytest

from clip_xai.errors import UserError
from clip_xai.runs.checkpoints import RunCard, checkpoint_to_resume, newest_export, newest_last, resolve_checkpoint


def add_run(root: Path, name: str, card: RunCard, export: bool = True, last: bool = True) -> Path:
    run_dir = root / "train" / name
    (run_dir / "checkpoints").mkdir(parents=True)
    card.write(run_dir)
    if export:
        (run_dir / "export").mkdir()
        (run_dir / "export" / "config.json").write_text("{}")
        (run_dir / "export" / "model.safetensors").write_bytes(b"")
    if last:
        (run_dir / "checkpoints" / "last.ckpt").write_bytes(b"")
    return run_dir


def card(stage: int, hour: int, backbone: str = "tiny", mapper: str = "resampler") -> RunCard:
    return RunCard(backbone, mapper, "tiny", stage, f"2026-01-01T{hour:02}:00:00.000000+00:00")


def test_latest_is_the_newest_finished_run_whatever_its_name(tmp_path: Path) -> None:
    add_run(tmp_path, "z", card(1, hour=1))
    newest = add_run(tmp_path, "a", card(2, hour=3))
    add_run(tmp_path, "m", card(1, hour=5), export=False)  # still running, or broken off
    assert resolve_checkpoint("latest", tmp_path) == newest / "export"


def test_the_demo_counts_until_there_is_a_run_of_ones_own(tmp_path: Path) -> None:
    add_run(tmp_path / "demo" / "2026-01-01_10-00-00", "stage2", card(2, hour=10))
    newest = add_run(tmp_path / "demo" / "2026-01-02_10-00-00", "stage2", card(2, hour=3))
    assert resolve_checkpoint("latest", tmp_path) == newest / "export"
    own = add_run(tmp_path, "mine", card(1, hour=1))
    assert resolve_checkpoint("latest", tmp_path) == own / "export"


def test_a_path_may_name_the_run_or_its_export(tmp_path: Path) -> None:
    run_dir = add_run(tmp_path, "a", card(1, hour=1))
    for path in (run_dir, run_dir / "export"):
        assert resolve_checkpoint(str(path), tmp_path / "elsewhere") == run_dir / "export"


def test_nothing_there_is_one_line_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run first: python train\.py stage=1"):
        resolve_checkpoint("latest", tmp_path)
    with pytest.raises(UserError, match="holds no exported model"):
        resolve_checkpoint(str(tmp_path), tmp_path)


def test_stage_2_starts_from_the_newest_stage_1_of_the_same_parts(tmp_path: Path) -> None:
    add_run(tmp_path, "old", card(1, hour=1))
    wanted = add_run(tmp_path, "new", card(1, hour=2))
    add_run(tmp_path, "later stage", card(2, hour=3))
    add_run(tmp_path, "other tower", card(1, hour=4, backbone="dermlip"))
    add_run(tmp_path, "other mapper", card(1, hour=5, mapper="bottleneck_mlp"))
    add_run(tmp_path, "unfinished", card(1, hour=6), export=False)
    assert newest_export(card(2, hour=9), 1, tmp_path) == wanted / "export"


def test_without_stage_1_the_command_to_run_first_is_named(tmp_path: Path) -> None:
    add_run(tmp_path, "other tower", card(1, hour=4, backbone="dermlip"))
    with pytest.raises(UserError, match=r"python train\.py backbone=tiny mapper=resampler language_model=tiny stage=1"):
        newest_export(card(2, hour=9), 1, tmp_path)


def test_last_is_the_newest_run_of_the_same_stage_even_if_it_was_broken_off(tmp_path: Path) -> None:
    add_run(tmp_path, "finished", card(1, hour=1))
    broken = add_run(tmp_path, "broken off", card(1, hour=2), export=False)
    add_run(tmp_path, "broken off early", card(1, hour=3), export=False, last=False)
    add_run(tmp_path, "other stage", card(2, hour=4))
    with pytest.raises(UserError, match=r"off early.* ended before its first checkpoint.*ckpt_path=.*broken off/"):
        newest_last(card(1, hour=9), tmp_path)
    early = tmp_path / "train" / "broken off early"
    assert newest_last(card(1, hour=9), tmp_path, apart_from=early) == broken / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match="ckpt_path=last"):
        newest_last(card(3, hour=9), tmp_path)


def test_what_to_resume_may_be_a_run_a_file_or_the_last_run(tmp_path: Path) -> None:
    run_dir = add_run(tmp_path, "a", card(1, hour=1))
    last = run_dir / "checkpoints" / "last.ckpt"
    for named in ("last", str(run_dir), str(last)):
        assert checkpoint_to_resume(named, card(1, hour=9), tmp_path) == last
    assert checkpoint_to_resume(None, card(1, hour=9), tmp_path) is None
    with pytest.raises(UserError, match="no such checkpoint"):
        checkpoint_to_resume(str(tmp_path / "nothing.ckpt"), card(1, hour=9), tmp_path)


def test_a_model_that_must_not_be_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = add_run(tmp_path, "good", card(1, hour=1))
    bad = add_run(tmp_path, "bad", card(1, hour=2))

    def refusal(place: Path) -> str | None:
        return "it has seen the test" if place == bad / "export" else None

    with caplog.at_level("INFO"):
        assert resolve_checkpoint("latest", tmp_path, refusal) == good / "export"
        assert newest_export(card(2, hour=9), 1, tmp_path, refusal) == good / "export"
    assert caplog.text.count("it has seen the test") == 2 and caplog.text.count(str(bad)) == 2
    for look in (
        lambda: resolve_checkpoint("latest", tmp_path, lambda place: "it has seen the test"),
        lambda: newest_export(card(2, hour=9), 1, tmp_path, lambda place: "it has seen the test"),
    ):
        with pytest.raises(UserError, match="it has seen the test"):
            look()


def test_a_damaged_card_is_named_and_a_card_of_another_version_is_read(tmp_path: Path, caplog) -> None:
    older = add_run(tmp_path, "older", card(1, hour=1))
    parts = {"backbone": "tiny", "mapper": "resampler", "language_model": "tiny", "stage": 1}
    (older / "run.json").write_text(json.dumps(parts | {"started": "2025-01-01T00:00:00.000000+00:00", "future": 1}))
    (add_run(tmp_path, "cut off", card(1, hour=2)) / "run.json").write_text('{"backbone": ')
    assert resolve_checkpoint("latest", tmp_path) == older / "export"
    assert "cut off" in caplog.text
