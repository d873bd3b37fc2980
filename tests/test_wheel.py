"""The package as a user installs it: from a wheel, in an environment and a directory of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
LIKE = "logger=csv trainer=cpu"


def done(command: list[str], folder: Path, **paths: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | paths
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    return ended


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the console scripts of an environment with the wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # setuptools writes beside what it builds from
    source.mkdir()
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.pyc", "*.egg-info"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    done([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)], folder)
    [wheel] = folder.glob("*.whl")
    done([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], folder)
    python = folder / "venv" / "bin" / "python"
    done([*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], folder)
    [packages] = (folder / "venv").glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = done([str(python), "-c", "import clip_xai; print(clip_xai.__file__)"], folder).stdout
    assert where.startswith(str(folder / "venv"))
    return python.parent


@pytest.mark.slow
def test_everything_that_is_no_code_travels(scripts: Path) -> None:
    [wheel] = scripts.parents[1].glob("*.whl")
    packed = set(ZipFile(wheel).namelist())
    expected = {f"clip_xai/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    for path in (ROOT / "src" / "clip_xai").rglob("*"):
        if path.is_file() and path.suffix != ".pyc" and ".egg-info" not in str(path):
            expected.add(str(path.relative_to(ROOT / "src")))
    assert not expected - packed


@pytest.mark.slow
def test_a_photograph_is_explained_in_an_empty_directory(scripts: Path, tmp_path: Path) -> None:
    assert (
        "stage: adaptation, contrastive, language" in done([str(scripts / "clip-xai-train"), "--help"], tmp_path).stdout
    )
    Image.new("RGB", (120, 90), (220, 180, 160)).save(tmp_path / "photo.png")
    (tmp_path / "own" / "xai").mkdir(parents=True)
    (tmp_path / "own" / "xai" / "mine.yaml").write_text("gradcam:\n  layer: -2\n")
    command = f"--config-dir own backbone=tiny xai=mine image=photo.png text=nevus target=similarity {LIKE}"
    done([str(scripts / "clip-xai-explain"), *command.split()], tmp_path)
    [page] = tmp_path.glob("runs/explain/*/index.html")
    assert "gradcam" in page.read_text()


@pytest.mark.slow
def test_the_rendered_miniature_is_trained_on_and_judged(scripts: Path, tmp_path: Path) -> None:
    fast = f"{LIKE} data.synthetic.scale=0.02 callbacks.progress_bar=false"
    done([str(scripts / "clip-xai-train"), *f"debug=fast {fast}".split()], tmp_path)
    [run_dir] = tmp_path.glob("runs/train/*_stage1")
    done(
        [str(scripts / "clip-xai-evaluate"), f"ckpt={run_dir}", *f"data.limit=8 bootstrap=20 {LIKE}".split()], tmp_path
    )
    assert list(tmp_path.glob("runs/evaluate/*/metrics.json"))
