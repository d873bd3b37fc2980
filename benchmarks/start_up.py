"""What starting costs: ``python benchmarks/start_up.py``.

Each row is a process of its own, as a user starts it, beside a bare Python and one that does nothing but import torch,
Lightning and open_clip. Sides take turns; seconds are those that the process computed (user time), so that others on
the machine count for little, and ratios are medians of those within a round. Nothing here asserts: the numbers depend
on the machine.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import machine, markdown  # noqa: E402

BARE, IMPORTS = "Python, nothing imported", "torch, Lightning and open_clip, imported"
LIKE = "logger=csv trainer=cpu"
SIDES = {
    BARE: ["-c", "pass"],
    IMPORTS: ["-c", "import torch, lightning, open_clip"],
    "train.py --help": [str(ROOT / "train.py"), "--help"],
    "a mistyped setting, refused": [str(ROOT / "train.py"), "stage.learning_rte=3"],
    "import clip_xai.api": ["-c", "import clip_xai.api"],
    "one photograph by one method": [
        str(ROOT / "explain.py"),
        *f"backbone=tiny xai=gradcam image=photo.png text=nevus target=similarity {LIKE}".split(),
    ],
}


def seconds(arguments: list[str], folder: Path) -> float:
    """Return the seconds that a process computed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def main(rounds: int = 5) -> None:
    """Print the medians of the seconds, and of the ratios to a bare Python and to the bare imports."""
    with tempfile.TemporaryDirectory() as name:
        Image.new("RGB", (120, 90), (220, 180, 160)).save(Path(name) / "photo.png")
        measured: dict[str, list[float]] = {side: [] for side in SIDES}
        for number in range(rounds + 1):
            for side in list(SIDES) if number % 2 else list(SIDES)[::-1]:
                measured[side].append(seconds(SIDES[side], Path(name)))
    counted = {side: found[1:] for side, found in measured.items()}  # the first fills caches

    def ratio(side: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(counted[side], counted[other], strict=True))

    rows = [
        (side, f"{statistics.median(found):.2f}", f"{ratio(side, BARE):.0f}", f"{ratio(side, IMPORTS):.2f}")
        for side, found in counted.items()
    ]
    columns = ["process", "seconds", "multiple of a bare Python", "ratio to the bare imports"]
    print(markdown(f"Starting, {machine()}", columns, rows))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
