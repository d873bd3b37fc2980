"""One rule for every directory that a command writes into."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from clip_xai.errors import UserError
from clip_xai.jobs.evaluate import evaluate
from clip_xai.jobs.explain import explain
from clip_xai.jobs.export import main as export
from clip_xai.jobs.train import train
from clip_xai.runs.directories import ASKED, claim, code_digest, free_directory, occupants
from clip_xai.studies.localise import localise
from clip_xai.studies.pretrain import main as pretrain
from tests.support.small_runs import draw, of_data, settings


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("data") / "hers")


@pytest.fixture(scope="module")
def runs(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    train(settings("train", runs, runs / "train" / "one", *of_data(root)))
    return runs


def test_a_new_or_an_empty_directory_is_taken_and_the_same_goes_on(tmp_path: Path) -> None:
    (tmp_path / "empty" / ".hydra").mkdir(parents=True)
    (tmp_path / "empty" / "train.log").write_text("started\n")
    for name in ("new", "empty", "deep/er"):
        assert claim(tmp_path / name, "train", {"settings": {"seed": 2}}) is None  # and wrote nothing
        assert claim(tmp_path / name, "train", {"settings": {"seed": 1}}, {"at": "noon"}) is None
        (tmp_path / name / "run.json").write_text("{}")
        before = claim(tmp_path / name, "train", {"settings": {"seed": 1}}, {"at": "night"})
        assert before == {"job": "train", "settings": {"seed": 1}, "noted": {"at": "noon"}}


@pytest.mark.parametrize(
    ("job", "asked", "said"),
    [
        ("evaluate", {"settings": {"seed": 1}}, "belongs to train, and this is evaluate"),
        ("train", {"settings": {"seed": 2, "stage": {"epochs": 3}}}, "seed=1, and now seed=2 is requested"),
        ("train", {"settings": {"seed": 1, "stage": {"epochs": 4}}}, "stage.epochs=3, and now stage.epochs=4"),
        ("train", {"settings": {"seed": 1}}, "stage.epochs=3, and now stage.epochs=null"),
    ],
)
def test_anything_else_is_refused_with_both_values_and_a_free_directory(tmp_path, job, asked, said) -> None:
    run = tmp_path / "run"
    (tmp_path / "run_2").mkdir()
    claim(run, "train", {"settings": {"seed": 1, "stage": {"epochs": 3}}})
    (run / "run.json").write_text("{}")
    before = contents(run)
    with pytest.raises(UserError) as caught:
        claim(run, job, asked)
    assert said in str(caught.value) and f"run_dir={tmp_path / 'run_3'}" in str(caught.value)
    assert contents(run) == before


def test_files_of_somebody_else_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "noted").mkdir()
    (tmp_path / "noted" / ASKED).write_text("")  # cut off: whose the rest is, nobody knows
    (tmp_path / "noted" / "run.json").write_text("{}")
    for name, said in {
        "site": "holds index.html",
        "file": "is a file",
        "noted": r"asked\.json is empty or damaged",
    }.items():
        with pytest.raises(UserError, match=said):
            claim(tmp_path / name, "explain", {})
    with pytest.raises(UserError, match="a part of its path is a file"):
        claim(tmp_path / "file" / "run", "explain", {})
    assert occupants(tmp_path / "site") == ["index.html"] and free_directory(tmp_path / "site").name == "site_2"


def test_the_digest_of_the_sources_is_that_of_what_they_say() -> None:
    assert code_digest("xai") == code_digest("xai") != code_digest("models")


def test_a_finished_run_is_not_trained_over(runs, root, caplog) -> None:
    run = runs / "train" / "one"
    before = contents(run)
    with pytest.raises(UserError, match=r"was made with seed=42, and now seed=7 is requested; .*one_2"):
        train(settings("train", runs, run, "seed=7", *of_data(root)))
    with pytest.raises(UserError, match=r"stage\.epochs=1, and now stage\.epochs=2"):
        train(settings("train", runs, run, "stage.epochs=2", *of_data(root)))
    with caplog.at_level(logging.INFO):
        again = train(settings("train", runs, run, *of_data(root)))
    assert again == json.loads(before["metrics.json"]) and "is finished: nothing is trained again" in caplog.text
    assert contents(run) == before


def test_no_other_command_writes_into_it(runs, root, tmp_path, capsys) -> None:
    run = runs / "train" / "one"
    before = contents(run)
    image = f"image={root / 'mine' / 'p00.jpg'}"
    for job, function, more in (
        ("evaluate", evaluate, ()),
        ("explain", explain, ("xai=gradcam", image)),
        ("explain", localise, ("xai=gradcam",)),
    ):
        with pytest.raises(UserError, match=f"belongs to train, and this is {function.__name__}"):
            function(settings(job, runs, run, *more))
    for taken in (run, root / "mine" / "p00.jpg"):
        assert export(["latest", "--to", str(taken), "--runs-root", str(runs)]) == 1
        line = capsys.readouterr().err.strip().splitlines()[-1]  # behind what is said of the captioner
        assert f"--to={taken}" in line
    with pytest.raises(UserError, match="--work="):
        pretrain(["--work", str(run), "--parts", "measure"])
    assert contents(run) == before


def test_an_export_goes_on_in_its_own_directory_only(runs, tmp_path, capsys) -> None:
    command = ["latest", "--to", str(tmp_path / "out"), "--runs-root", str(runs)]
    assert export(command) == 0 and export(command) == 0
    assert export([*command, "--licence", "mit"]) == 1
    assert "licence=other, and now licence=mit" in capsys.readouterr().err


def test_a_foreign_page_stays_and_a_file_is_one_line(runs, root, tmp_path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    (tmp_path / "file").write_text("mine")
    image = f"image={root / 'mine' / 'p00.jpg'}"
    for name in ("site", "file"):
        for job, function, more in (
            ("train", train, of_data(root)),
            ("evaluate", evaluate, ()),
            ("explain", explain, ("xai=gradcam", image)),
        ):
            with pytest.raises(UserError, match=f"run_dir={tmp_path / name} "):
                function(settings(job, runs, tmp_path / name, *more))
    assert contents(tmp_path) == {"site/index.html": b"mine", "file": b"mine"}


def test_an_evaluation_is_made_again_in_place_and_no_other(runs, tmp_path) -> None:
    run = tmp_path / "judged"
    first = evaluate(settings("evaluate", runs, run, "bootstrap=20"))
    assert evaluate(settings("evaluate", runs, run, "bootstrap=20")) == first
    with pytest.raises(UserError, match=r"split=test, and now split=val"):
        evaluate(settings("evaluate", runs, run, "bootstrap=20", "split=val"))


def explained(runs: Path, run: Path, image: Path, *more: str) -> dict:
    return explain(settings("explain", runs, run, "xai=gradcam", f"image={image}", *more))


def test_explanations_follow_the_photographs_and_are_never_mixed(runs, root, tmp_path) -> None:
    folder, run = tmp_path / "photographs", tmp_path / "run"
    folder.mkdir()
    for number in (1, 2, 3):
        (folder / f"{number}.jpg").write_bytes((root / "mine" / f"p0{number}.jpg").read_bytes())

    def files() -> dict[str, float]:
        return {path.name: path.stat().st_mtime_ns for path in sorted((run / "results").glob("*.safetensors"))}

    explained(runs, run, folder)
    first = files()
    assert list(first) == ["0001_1.safetensors", "0002_2.safetensors", "0003_3.safetensors"]
    # One added before all others: it alone is explained.
    (folder / "0.jpg").write_bytes((root / "mine" / "p04.jpg").read_bytes())
    metrics = explained(runs, run, folder)
    assert metrics["explained"] == metrics["photographs"] == 4
    assert files() == first | {"0004_0.safetensors": files()["0004_0.safetensors"]}
    # One changed, in place and with the same size and time: it alone is explained anew.
    old = (run / "results" / "0002_2.safetensors").read_bytes()
    (folder / "2.jpg").write_bytes((root / "mine" / "p05.jpg").read_bytes())
    explained(runs, run, folder)
    assert (run / "results" / "0002_2.safetensors").read_bytes() != old
    assert [name for name, time in files().items() if first.get(name) == time] == [
        "0001_1.safetensors",
        "0003_3.safetensors",
    ]
    # One vanished: it leaves the totals and the page, and comes back as it was.
    kept = (folder / "3.jpg").read_bytes()
    (folder / "3.jpg").unlink()
    metrics = explained(runs, run, folder)
    assert metrics["explained"] == 3 and "3.jpg" not in (run / "index.html").read_text()
    (folder / "3.jpg").write_bytes(kept)
    before = files()
    assert explained(runs, run, folder)["explained"] == 4 and files() == before
    # A damaged result counts as absent.
    (run / "results" / "0001_1.safetensors").write_bytes(b"")
    assert explained(runs, run, folder)["explained"] == 4
    for other, said in (
        (("xai=gradeclip",), "xai"),
        (("text=nevus",), "text=null, and now text=nevus"),
        ((f"image={root / 'mine'}",), "image="),
    ):
        with pytest.raises(UserError, match=said):
            explained(runs, run, folder, *other)
    # A newer captioner behind `latest`.
    train(settings("train", runs, runs / "train" / "two", "seed=3", *of_data(root)))
    with pytest.raises(UserError, match=r"model\.captioner=\w+ \(.*train/one/export\), and now .*train/two/export"):
        explained(runs, run, folder)
    asked = json.loads((run / ASKED).read_text())
    assert asked["noted"]["model.captioner"] == str(runs / "train" / "one" / "export")
    page = (run / "index.html").read_text()
    assert str(runs / "train" / "one" / "export") in page and asked["model"]["captioner"][:12] in page
    assert asked["model"]["tower"][:12] in page
