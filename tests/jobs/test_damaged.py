"""A file that an earlier run left empty or damaged counts as absent, or one line names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clip_xai.config.schemas import TrainConfig
from clip_xai.config.training_settings import SearchConfig
from clip_xai.errors import UserError
from clip_xai.explanations.photographs import Photograph
from clip_xai.explanations.store import Result, ResultStore, read_result
from clip_xai.files import replacing
from clip_xai.jobs.export import evaluation_of, run_facts
from clip_xai.jobs.search import open_study
from clip_xai.models.retrieval import CaptionIndex
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.models.weights import load_captioner, load_settings
from clip_xai.runs.checkpoints import train_runs
from clip_xai.runs.directories import occupants
from clip_xai.runs.judged import data_of_run, overlap_with
from tests.support.small_captioner import small_captioner

DAMAGED = (b"", b"{", b"<html>")


def two_photographs(tmp_path: Path) -> tuple[ResultStore, list[Photograph]]:
    store = ResultStore(tmp_path / "run")
    photographs = [Photograph(tmp_path / name, name) for name in ("one.png", "other.png")]
    store.expect(photographs)
    store.write_list()
    return store, photographs


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_result_is_made_anew(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    store, photographs = two_photographs(tmp_path)
    for number, photograph in enumerate(photographs, start=1):
        store.write(number, Result(photograph, "a red spot", {}))
    place = next(store.folder.glob("0001*"))
    place.write_bytes(content)
    assert not store.done(1) and store.done(2)
    assert [result.photograph.name for _, result in store.results()] == ["other.png"]
    assert any(str(place) in message for message in caplog.messages)
    with pytest.raises(UserError, match=r"0001_one\.safetensors is empty or damaged"):
        read_result(place)
    store.write(1, Result(photographs[0], "a red spot", {}))
    assert store.done(1)


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_problem_does_not_count(tmp_path: Path, content: bytes) -> None:
    store, photographs = two_photographs(tmp_path)
    for number, photograph in enumerate(photographs, start=1):
        store.write_problem(number, photograph, "cannot be read")
    next(store.folder.glob("0001*")).write_bytes(content)
    assert store.problems() == ["other.png: cannot be read"]


def test_an_unfinished_file_occupies_no_directory(tmp_path: Path) -> None:
    with replacing(tmp_path / "asked.json"):
        assert occupants(tmp_path) == []


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_evaluation_does_not_stop_an_export(tmp_path: Path, content: bytes) -> None:
    model = tmp_path / "train" / "a" / "export"
    for name in ("old", "broken"):
        (tmp_path / "evaluate" / name).mkdir(parents=True)
    written = {"settings": {"captioner": str(model)}}
    (tmp_path / "evaluate" / "old" / "metrics.json").write_text(json.dumps(written))
    (tmp_path / "evaluate" / "old" / "evaluation.md").write_text("BLEU 12")
    (tmp_path / "evaluate" / "broken" / "metrics.json").write_bytes(content)
    captioner = small_captioner()
    assert evaluation_of(model, captioner, tmp_path) == "BLEU 12"
    (model.parent / ".hydra").mkdir(parents=True)
    (model.parent / ".hydra" / "config.yaml").write_text("")
    (model.parent / "metrics.json").write_bytes(content)
    assert run_facts("mine", "other", model, captioner, tmp_path).evaluation == "BLEU 12"


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_captioner_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    for name in ("config.json", "tokenizer.json", "index.safetensors"):
        (tmp_path / name).write_bytes(content)
    readers = {
        "config.json": lambda: load_settings(tmp_path),
        "tokenizer.json": lambda: CaptionTokenizer.load(tmp_path),
        "index.safetensors": lambda: CaptionIndex.load(tmp_path / "index.safetensors"),
    }
    for name, read in readers.items():
        with pytest.raises(UserError, match=f"{name} is (empty|not JSON|a web page|damaged)") as raised:
            read()
        assert len(str(raised.value).splitlines()) == 1
    settings = {"backbone": {"name": "tiny", "architecture": "tiny", "pretrained": None}, "mapper": "resampler"}
    (tmp_path / "config.json").write_text(json.dumps({"settings": settings}))
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors is (empty|cut off|a web page)"):
        load_captioner(tmp_path)


def test_a_damaged_study_is_named_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    (tmp_path / "search.db").write_bytes(b"<html>" * 300)
    with pytest.raises(UserError, match=r"search\.db is damaged; move it away"):
        open_study(SearchConfig(), TrainConfig(runs_root=str(tmp_path), run_dir=str(tmp_path / "run")))


CARD = {"backbone": "tiny", "mapper": "m", "language_model": "tiny", "stage": 1, "started": "2026-01-01T00:00:00+00:00"}


@pytest.mark.parametrize("damage", [{"started": None}, {"started": "yesterday"}, {"data": None}, {"score": "a"}])
def test_a_card_that_cannot_be_sorted_or_described_does_not_count(tmp_path: Path, damage: dict[str, object]) -> None:
    for name, content in (("whole", CARD), ("damaged", CARD | damage)):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "run.json").write_text(json.dumps(content))
    assert [run.name for _, run in train_runs(tmp_path)] == ["whole"]


@pytest.mark.parametrize("data", [{"foo": 1}, {"name": "x", "synthetic": 3}])
def test_a_card_with_strange_data_is_named(tmp_path: Path, data: dict[str, object]) -> None:
    (tmp_path / "run.json").write_text(json.dumps(CARD | {"data": data}))
    with pytest.raises(UserError, match=r"run\.json names its data in a way that is not understood"):
        data_of_run(tmp_path / "export")


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_weights_are_not_said_to_be_of_an_earlier_version(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors is empty or damaged"):
        overlap_with(tmp_path, [], [])
