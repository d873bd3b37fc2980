"""Small labelled pictures, networks that fit them, and the settings of runs of a second."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from clip_xai.config.cli import compose_job
from clip_xai.data.record import Record
from clip_xai.jobs.evaluate import evaluate
from clip_xai.jobs.train import train

CLASSES = ("disc", "square", "stripe")
RESNET = ("backbone=timm", "backbone.architecture=test_resnet", "backbone.image_size=64", "backbone.crop_pct=1.0")
VIT = (
    "backbone=timm", "backbone.architecture=vit_tiny_patch16_224", "backbone.image_size=32", "backbone.crop_pct=1.0",
    "backbone.model_args={img_size: 32, patch_size: 8, embed_dim: 16, depth: 3, num_heads: 2}",
)  # fmt: skip
BRIEF = ("trainer=cpu", "logger=csv", "trainer.feature_batch_size=16")

SHORT = ("task=classify", "stage.epochs=2", "stage.batch_size=8", "callbacks.progress_bar=false")


def picture(kind: int, rng: np.random.Generator, side: int = 64) -> Image.Image:
    """Draw a disc, a square or a stripe in grey noise."""
    noise = rng.normal(120, 12, (side, side, 3)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(noise)
    x, y = (int(value) for value in rng.integers(18, side - 18, 2))
    paint = ImageDraw.Draw(image)
    bright = int(rng.integers(180, 255))
    if kind == 0:
        paint.ellipse((x - 12, y - 12, x + 12, y + 12), fill=(20, bright, 20))
    elif kind == 1:
        paint.rectangle((x - 12, y - 12, x + 12, y + 12), fill=(bright, 20, 20))
    else:
        paint.line((0, y, side, y), fill=(20, 20, bright), width=9)
    return image


def folder_of_classes(root: Path, train: int = 8, val: int = 4, test: int = 6) -> Path:
    """Write ``train``, ``val`` and ``test``, each with a folder of each class."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val), ("test", test)):
        for kind, name in enumerate(CLASSES):
            place = root / split / name
            place.mkdir(parents=True)
            for number in range(count):
                picture(kind, rng).save(place / f"{split}_{name}_{number:02d}.png")
    return root


def table_of_labels(root: Path, count: int = 40) -> Path:
    """Write pictures of one or two things at once, some of whose labels are uncertain or missing."""
    rng = np.random.default_rng(1)
    place = root / "mine"
    place.mkdir(parents=True)
    rows = []
    for number in range(count):
        shown = {number % 3, (number // 3) % 4} - {3}
        both = np.mean([np.asarray(picture(kind, rng), dtype=float) for kind in sorted(shown)], axis=0)
        Image.fromarray(both.astype(np.uint8)).save(place / f"p{number:02d}.png")
        row: dict[str, Any] = {name: int(kind in shown) for kind, name in enumerate(CLASSES)}
        if number % 5 == 0:
            row["stripe"] = -1
        if number % 7 == 3:
            row["square"] = None
        split = ("train", "val", "train", "test")[number * 4 // count]
        rows.append({"image": f"p{number:02d}.png", "patient": f"q{number}", "split": split, **row})
    pd.DataFrame(rows).astype({name: "Int64" for name in CLASSES}).to_csv(place / "labels.csv", index=False)
    return root


def settings(job: str, run_dir: Path, *overrides: str) -> Any:
    """The settings of a short run whose runs lie beside it."""
    return compose_job(job, [*BRIEF, f"runs_root={run_dir.parent}", *overrides], run_dir)


def of_data(root: Path, name: str = "small") -> list[str]:
    """Overrides that choose a data set of one's own with its own splits."""
    return [
        "data=dermacap", f"data.name={name}", f"data.root={root}", f"data.output_dir={root}_manifest",
        "data.near_bits=null", "data.split=official", f"data.cache_dir={root}_features", "data.workers=1",
    ]  # fmt: skip


def trained(root: Path, run_dir: Path, *overrides: str, tower: Sequence[str] = RESNET, callbacks: Any = ()) -> Path:
    """Train a classifier for two epochs; return the run's directory."""
    brief = [
        "task=classify",
        "stage.epochs=2",
        "stage.batch_size=8",
        "callbacks.progress_bar=false",
        *tower,
        *of_data(root),
    ]
    train(settings("train", run_dir, *brief, *overrides), callbacks)
    return run_dir


def judged(place: Path, run_dir: Path, *overrides: str) -> Path:
    """Judge it; return the evaluation's directory."""
    evaluate(settings("evaluate", run_dir, f"ckpt={place}", "bootstrap=50", *overrides))
    return run_dir


def read(file: Path) -> dict[str, Any]:
    """Return what a JSON file holds."""
    return json.loads(file.read_text(encoding="utf-8"))


def record(name: str, **values: Any) -> Record:
    """A record of a picture that nobody reads."""
    told = {"source": "s", "group": name, "diagnosis": None, "malignancy": None, "caption": "", "references": ()}
    return Record(image=Path("/data") / name, name=Path(name).name, **{**told, **values})
