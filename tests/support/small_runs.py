"""A data set of one's own, small enough to train on in a second, and the overrides for runs that are as short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from clip_xai.config.cli import compose_job

SHORT = (
    "trainer=cpu", "logger=csv", "callbacks.progress_bar=false", "callbacks.sample_captions=0", "stage.epochs=1",
    "stage.batch_size=8", "trainer.limit_train_batches=1", "trainer.feature_batch_size=8",
    "generation.max_new_tokens=4",
)  # fmt: skip
BRIEF = (
    "trainer=cpu",
    "logger=csv",
    "trainer.feature_batch_size=8",
    "generation=greedy",
    "generation.max_new_tokens=4",
)


def draw(folder: Path, count: int = 24, seed: int = 1, name: str = "mine") -> Path:
    """Write ``captions.csv`` and its photographs, two of each patient; return the data root."""
    rng = np.random.default_rng(seed)
    place = folder / name
    place.mkdir(parents=True)
    rows = ["image,caption,group,diagnosis,mask"]
    for number in range(count):
        add_photograph(place, f"p{number:02d}.jpg", rng)
        caption, diagnosis = [("A brown macule.", "nevus"), ("A red scaly plaque.", "psoriasis")][number % 2]
        rows.append(f"p{number:02d}.jpg,{caption},pat{number // 2},{diagnosis},p{number:02d}.png")
    (place / "captions.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def add_photograph(place: Path, name: str, rng: np.random.Generator) -> None:
    """Write a photograph with a spot on skin, and the spot's mask as a PNG beside it."""
    skin = np.array([215, 170, 150]) + rng.normal(0, 6, (96, 128, 3)) + rng.integers(-20, 20, 3)
    image = Image.fromarray(skin.clip(0, 255).astype(np.uint8))
    x, y, r = int(rng.integers(30, 90)), int(rng.integers(25, 70)), int(rng.integers(8, 20))
    mask = Image.new("L", image.size)
    ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=tuple(int(v) for v in rng.integers(20, 120, 3)))
    ImageDraw.Draw(mask).ellipse((x - r, y - r, x + r, y + r), fill=255)
    image.save(place / name, quality=95)
    mask.save((place / name).with_suffix(".png"))


def of_data(root: Path, name: str = "mine", **more: Any) -> list[str]:
    """Overrides that choose a data set of one's own."""
    chosen = [f"data.name={name}", f"data.root={root}", f"data.output_dir={root}_manifest", "data.near_bits=null"]
    settings = [f"data.{key}={value}" for key, value in more.items()]
    return ["data=dermacap", *chosen, f"data.cache_dir={root}_features", "data.workers=1", *settings]


def settings(job: str, runs_root: Path, run_dir: Path, *overrides: str) -> Any:
    """The settings of a short run."""
    brief = SHORT if job == "train" else BRIEF
    if job == "explain":
        brief = (*brief, "evidence=none")  # some hundred passes a photograph, which tests of their own take
    return compose_job(job, [*brief, f"runs_root={runs_root}", *overrides], run_dir)
