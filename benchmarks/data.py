"""What reading photographs and all of DermaCAP costs: ``python benchmarks/data.py [decode|rehearsal]``.

``decode``: one process, one thread; photographs a second through decoding alone, decoding at a reduced size, and either
followed by the transform, for the sizes that the six data sets have. ``rehearsal``: 22,755 tiny pictures in the six
layouts; seconds and peak memory of the first call, of a call after a kill, and of a call with nothing changed.
Nothing here asserts: the numbers depend on the machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

#: What is measured: as the data sets ship them.
KINDS = {
    "HAM10000, 600 x 450 JPEG": (600, 450, "JPEG"),
    "clinical, 1600 x 1200 JPEG": (1600, 1200, "JPEG"),
    "clinical, 4032 x 3024 JPEG": (4032, 3024, "JPEG"),
    "PAD, 900 x 900 PNG": (900, 900, "PNG"),
}


def photograph(path: Path, width: int, height: int, kind: str) -> Path:
    """Write a picture with about the detail of a photograph: soft spots and grain."""
    draw = np.random.default_rng(0)
    soft = Image.fromarray(draw.integers(60, 220, (height // 40, width // 40, 3), dtype=np.uint8))
    pixels = np.asarray(soft.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    pixels = pixels + draw.normal(0, 4, pixels.shape).astype(np.int16)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, kind, quality=90)
    return path


def rate(act: Callable[[], object], seconds: float = 2.0) -> float:
    """Return how often a second something can be done."""
    act()
    done, started = 0, time.process_time()
    while time.process_time() - started < seconds:
        act()
        done += 1
    return done / (time.process_time() - started)


def measure_decoding() -> None:
    """Print photographs a second of CPU time."""
    import torch

    from clip_xai.data.images import read_image
    from clip_xai.data.preprocess import Preprocess

    torch.set_num_threads(1)
    transform = Preprocess()
    print(f"{'photographs a second, one thread':34s} decode  decode+transform  reduced+transform  difference (levels)")
    with tempfile.TemporaryDirectory() as folder:
        for name, (width, height, kind) in KINDS.items():
            path = photograph(Path(folder) / f"{width}.{kind.lower()}", width, height, kind)
            full, reduced = transform(read_image(path)), transform.read(path)
            levels = ((full - reduced).abs() * torch.tensor(transform.std).view(3, 1, 1) * 255).flatten()
            plain = rate(lambda path=path: read_image(path))
            both = rate(lambda path=path: transform(read_image(path)))
            quick = rate(lambda path=path: transform.read(path))
            print(
                f"{name:34s} {plain:6.1f}  {both:16.1f}  {quick:17.1f}"
                f"  mean {levels.mean():.2f}, 99.9 % {levels.quantile(0.999):.1f}"
            )


def measure_rehearsal() -> None:
    """Print seconds and peak memory of building the manifest of 22,755 pictures."""
    from tests.data import rehearsal

    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        rehearsal.write(Path(folder) / "data")
        print(f"drawing 22,755 pictures: {time.monotonic() - started:.1f} s")
        _killed(folder, after=6)
        print(f"after a kill: {_built(folder)}")
        print(f"nothing changed: {_built(folder)}")
        print(f"from nothing: {_built(folder, 'anew')}")


def _command(folder: str, out: str) -> list[str]:
    return [sys.executable, "-m", "clip_xai.data", f"data.root={folder}/data", f"data.output_dir={folder}/{out}"]


def _killed(folder: str, after: float) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(_command(folder, "out"), env=environment, stderr=subprocess.DEVNULL)
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait()


def _built(folder: str, out: str = "out") -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    started = time.monotonic()
    process = subprocess.Popen(
        _command(folder, out), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    peaks: list[int] = []
    watcher = threading.Thread(target=_watch, args=(process.pid, peaks))
    watcher.start()
    said = process.stderr.read().strip().splitlines()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    watcher.join()
    outcome = said[-1] if said else "nothing to check"
    return (
        f"{seconds:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of CPU, peak {max(peaks) / 1024:.0f} MiB"
        f" ({outcome}{f', status {status}' if status else ''})"
    )


def _watch(process: int, peaks: list[int]) -> None:
    """Read a process's own high-water mark, KiB, until it ends; what ``wait4`` tells begins with its parent's."""
    status = Path(f"/proc/{process}/status")
    while True:
        try:
            lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        except OSError:  # it has ended
            return
        if not lines:  # it has ended, and nobody has asked how
            return
        peaks.append(int(lines[0].split()[1]))
        time.sleep(0.05)


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["decode", "rehearsal"]
    if "decode" in wanted:
        measure_decoding()
    if "rehearsal" in wanted:
        measure_rehearsal()
