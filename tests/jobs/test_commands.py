"""The commands of README and docs/commands.md, typed as a user does, each a process of its own, on a small data set."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SMALL = "synthetic:\n  seed: 0\n  scale: 0.02\n  height: 96\n  width: 128\n"
SMALL_OVERRIDES = "data.synthetic.scale=0.02 data.synthetic.height=96 data.synthetic.width=128"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout's entry points and settings, with a smaller embedded default."""
    home = tmp_path_factory.mktemp("home")
    for job in ("train", "evaluate", "explain"):
        shutil.copy(ROOT / f"{job}.py", home)
    shutil.copytree(ROOT / "conf", home / "conf")
    mini = home / "conf" / "data" / "dermacap_mini.yaml"
    text = mini.read_text()
    mini.write_text(text[: text.index("synthetic:")] + SMALL)
    Image.linear_gradient("L").convert("RGB").resize((200, 150)).save(home / "photo.jpg")
    return home


def typed(home: Path, command: str) -> subprocess.CompletedProcess[str]:
    program, *arguments = shlex.split(command)
    assert program == "python"
    return subprocess.run(
        [sys.executable, *arguments], cwd=home, env=environment(home), capture_output=True, text=True, timeout=1800
    )


def environment(home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "HYDRA"))}
    return kept | {
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",  # a machine with network would download the weights that are to be missing
        "HF_HOME": str(home / "hub"),
    }


def works(home: Path, command: str) -> subprocess.CompletedProcess[str]:
    done = typed(home, command)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def newest(home: Path, job: str, count: int = 1) -> list[Path]:
    runs = [path for path in (home / "runs" / job).iterdir() if path.is_dir()]
    return sorted(runs, key=lambda path: path.stat().st_mtime)[-count:]


def test_missing_weights_are_one_line_that_says_what_to_do(home: Path) -> None:
    done = typed(home, "python train.py backbone=dermlip stage=2")
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1 and len(lines) == 1, done.stderr
    for part in ("DermLIP_ViT-B-16", "folder", "backbone.pretrained=FOLDER", "backbone.pretrained=null"):
        assert part in lines[0]


@pytest.mark.slow
def test_stage_2_without_stage_1_names_the_command_to_run_first(home: Path) -> None:
    done = typed(home, "python train.py backbone=dermlip stage=2 backbone.pretrained=null")
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1 and len(lines) == 1, done.stderr
    assert "python train.py backbone=dermlip mapper=resampler language_model=tiny stage=1" in lines[0]


@pytest.mark.slow
def test_a_sweep_over_towers_and_stages_runs_stage_1_first(home: Path) -> None:
    """The full-size tower at random weights; the sweep as typed needs weights that tests must not download."""
    works(home, "python train.py -m backbone=tiny,dermlip stage=1,2 debug=fast backbone.pretrained=null")
    runs = sorted(
        (home / "runs" / "train").glob("*/run.json"), key=lambda file: json.loads(file.read_text())["started"]
    )
    cards = [json.loads(file.read_text()) for file in runs]
    order = [(card["backbone"], card["stage"]) for card in cards]
    assert order == [("tiny", 1), ("tiny", 2), ("dermlip", 1), ("dermlip", 2)]
    for file in runs:
        run_dir = file.parent
        assert {"checkpoints", "export", ".hydra", "metrics.json", "set_aside.json", "wandb"} <= set(
            os.listdir(run_dir)
        )
        files = {"model.safetensors", "config.json", "tokenizer.json", "tower.json"}  # random towers are nowhere else
        assert set(os.listdir(run_dir / "export")) == files
        assert len(list((run_dir / "wandb").glob("offline-run-*"))) == 1  # each run of a sweep is closed by itself
        assert (run_dir / ".hydra" / "config.yaml").read_text()


def test_training_evaluating_and_explaining_as_typed(home: Path) -> None:
    works(home, "python train.py debug=fast logger=both")
    [run_dir] = newest(home, "train")
    assert (run_dir / "csv" / "sample_captions.csv").is_file() and (run_dir / "wandb").is_dir()

    done = typed(home, "python evaluate.py ckpt=latest")  # a debug run is not a trained model
    assert done.returncode == 1 and f"ckpt={run_dir.relative_to(home)}" in done.stderr.strip().splitlines()[-1]
    works(home, f"python evaluate.py ckpt={run_dir}")
    [evaluated] = newest(home, "evaluate")
    assert (evaluated / "index.html").is_file() and (evaluated / "captions.parquet").is_file()

    works(home, f"python explain.py xai=gradeclip generation=greedy samples=3 ckpt={run_dir}")
    [explained] = newest(home, "explain")
    assert (explained / "index.html").is_file() and len(list((explained / "cards").glob("*.png"))) == 3

    works(home, f'python explain.py xai=gradeclip image=photo.jpg text="a photo of melanoma" ckpt={run_dir}')
    [explained] = newest(home, "explain")
    page = (explained / "index.html").read_text()
    assert "a photo of melanoma" in page and "photo.jpg" in page


@pytest.mark.slow
def test_methods_are_swept_and_localised_as_typed(home: Path) -> None:
    works(home, "python train.py debug=fast logger=csv")
    [run_dir] = newest(home, "train")
    works(home, f"python explain.py -m xai=gradeclip,gradcam samples=1 ckpt={run_dir}")
    names = [path.name.rsplit("_", 1)[1] for path in newest(home, "explain", 2)]
    assert names == ["gradeclip", "gradcam"]

    done = works(home, f"python -m clip_xai.studies.localise samples=3 xai=gradeclip ckpt={run_dir}")
    [localised] = newest(home, "localisation")
    table = (localised / "localisation.md").read_text()
    assert table.strip() in done.stdout
    for row in ("Grad-ECLIP", "random weights", "Control: random map", "Control: colour contrast"):
        assert row in table


@pytest.mark.slow
def test_a_run_resumes_from_the_last_checkpoint(home: Path) -> None:
    works(home, "python train.py debug=fast logger=csv")
    works(home, "python train.py debug=fast logger=csv ckpt_path=last stage.epochs=2")
    [resumed] = newest(home, "train")
    rows = (resumed / "csv" / "metrics.csv").read_text().splitlines()
    epochs = {row.split(",")[rows[0].split(",").index("epoch")] for row in rows[1:]}
    assert epochs == {"1"}


@pytest.mark.slow
def test_a_run_of_explanations_ends_when_it_is_told_to_and_goes_on_later(home: Path, tmp_path: Path) -> None:
    for number in range(8):
        Image.new("RGB", (64, 48), (200, 150, 10 * number)).save(tmp_path / f"{number}.png")
    run = tmp_path / "run"
    command = (
        f"explain.py backbone=tiny target=similarity text=nevus image={tmp_path} run_dir={run} logger=csv trainer=cpu "
        "xai=rise xai.rise.masks=500"
    )
    started = subprocess.Popen([sys.executable, *command.split()], cwd=home, env=environment(home))
    until = time.monotonic() + 120
    while not list(run.glob("results/*.safetensors")):
        assert started.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    started.terminate()
    assert started.wait(timeout=60) == -signal.SIGTERM
    done = len(list(run.glob("results/*.safetensors")))
    assert 0 < done < 8 and not (run / "index.html").exists()
    again = works(home, f"python {command}")
    assert f"done already: {done} of 8 photographs" in again.stdout + again.stderr
    assert len(list(run.glob("results/*.safetensors"))) == 8 and (run / "index.html").exists()


def test_help_lists_the_groups_at_once(home: Path) -> None:
    done = works(home, "python train.py --help")
    for group in (
        "backbone: biomedclip, dermlip",
        "stage: adaptation, contrastive, language",
        "mapper: bottleneck_mlp, clipcap_mlp",
    ):
        assert group in done.stdout


@pytest.mark.slow
def test_the_demo_ends_with_a_front_page(home: Path) -> None:
    done = works(home, f"python -m clip_xai.studies.demo {SMALL_OVERRIDES}")
    index = Path(done.stdout.strip().splitlines()[-1].rpartition("Open ")[2])
    assert index.is_file() and index.name == "index.html"
    assert f"python train.py stage=2 {SMALL_OVERRIDES}" in done.stdout
    parts = ("explain/index.html", "evaluate/index.html", "localisation/localisation.md")
    for part in (*parts, "chest/explain/index.html", "chest/evaluate/index.html"):
        assert (index.parent / part).is_file()
    assert json.loads((index.parent / "times.json").read_text()).keys() >= {"Data", "Stage 1", "Stage 2"}
