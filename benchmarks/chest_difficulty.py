"""How hard the rendered radiographs are: ``python benchmarks/chest_difficulty.py [name=value ...]``.

A small network that learns from 64 x 64 pixels should find every finding; logistic regression on 16 x 16 grey
thumbnails should not, or else a bright patch gave it away. Both train on the training list of one seed and are judged
on its test list, by the area under the ROC curve of each finding with an interval over patients. Settings:
``patients``, ``seed``, ``tube`` and ``hospital`` (strength of the shortcuts), ``epochs``, ``threads``. Nothing here
asserts.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import machine, markdown  # noqa: E402
from clip_xai.data.synthetic.chest.plan import (  # noqa: E402
    LABELS,
    Film,
    Shortcuts,
    films_of_patient,
    in_test_list,
)
from clip_xai.data.synthetic.chest.render import render  # noqa: E402
from clip_xai.data.synthetic.pool import rendering_pool  # noqa: E402

SIZE, THUMBNAIL = 64, 16
DEFAULTS = {"patients": 2400, "seed": 90001, "tube": 0.0, "hospital": 0.0, "epochs": 24, "threads": 2}


def network() -> nn.Module:
    """Return six convolutions, and the mean and the maximum over places below one linear layer."""
    layers: list[nn.Module] = []
    before = 1
    for width, stride in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (96, 2)):
        layers += [nn.Conv2d(before, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, _MeanAndMaximum(), nn.Dropout(0.2), nn.Linear(2 * before, len(LABELS)))


class _MeanAndMaximum(nn.Module):
    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return ``[B, 2 C]`` of ``[B, C, H, W]``."""
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)


def shortened(pixels: np.ndarray) -> np.ndarray:
    """Return the first step of the network's sight: ``[N, S, S]`` as float ``[N, 1, S, S]``, each scaled by itself."""
    values = pixels.astype(np.float32)[:, None]
    return (values - values.mean((1, 2, 3), keepdims=True)) / (values.std((1, 2, 3), keepdims=True) + 1e-3)


def trained(pixels: np.ndarray, truth: np.ndarray, epochs: int) -> nn.Module:
    """Train the network on shifted pictures."""
    torch.manual_seed(0)
    model, batch = network(), 64
    values, targets = torch.from_numpy(shortened(pixels)), torch.from_numpy(truth.astype(np.float32))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    steps = epochs * (len(values) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.2)
    for _ in range(epochs):
        order = torch.randperm(len(values))
        for start in range(0, len(order) - batch + 1, batch):
            rows = order[start : start + batch]
            shift = [int(step) for step in torch.randint(-4, 5, (2,))]
            seen = torch.roll(values[rows], shift, dims=(2, 3))
            loss = nn.functional.binary_cross_entropy_with_logits(model(seen), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def regression(pixels: np.ndarray, truth: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Return scores ``[M, labels]`` of logistic regression on thumbnails, with the penalty that serves it best."""
    step = SIZE // THUMBNAIL

    def thumbnails(values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, THUMBNAIL, step, THUMBNAIL, step).mean((2, 4)).reshape(len(values), -1) / 255.0

    known, asked = thumbnails(pixels), thumbnails(tested)
    mean, spread = known.mean(0), known.std(0) + 1e-6
    known, asked = (known - mean) / spread, (asked - mean) / spread
    kept = len(known) * 3 // 4
    scores = np.empty((len(asked), len(LABELS)))
    for column in range(len(LABELS)):

        def quality(penalty: float, column: int = column) -> float:
            model = LogisticRegression(C=penalty, max_iter=300).fit(known[:kept], truth[:kept, column])
            return float(roc_auc_score(truth[kept:, column], model.decision_function(known[kept:])))

        best = max((1e-4, 1e-3, 1e-2, 1e-1), key=quality)
        scores[:, column] = (
            LogisticRegression(C=best, max_iter=300).fit(known, truth[:, column]).decision_function(asked)
        )
    return scores


def intervals(truth: np.ndarray, scores: np.ndarray, patients: np.ndarray, draws: int = 500) -> list[tuple[float, ...]]:
    """Return area, lower and upper end of its 95 % interval for each label, and for their mean at the end."""
    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(patients == patient) for patient in np.unique(patients)]
    areas = []
    for draw in range(draws + 1):
        rows = (
            np.concatenate([groups[index] for index in rng.integers(len(groups), size=len(groups))])
            if draw
            else np.arange(len(truth))
        )
        each = [roc_auc_score(truth[rows, column], scores[rows, column]) for column in range(truth.shape[1])]
        areas.append([*each, float(np.mean(each))])
    low, high = np.percentile(areas[1:], [2.5, 97.5], axis=0)
    return list(zip(areas[0], low, high, strict=True))


def _shown(bounds: tuple[float, ...]) -> str:
    value, low, high = bounds
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def drawn(films: list[Film], workers: int) -> np.ndarray:
    """Render films, uint8 ``[N, S, S]``."""
    with rendering_pool(workers) as pool:
        return np.stack(list(pool.map(picture, films, chunksize=32)))


def picture(film: Film) -> np.ndarray:
    """Render one film."""
    return render(film, SIZE).image


def main(arguments: list[str]) -> None:
    """Print the table."""
    settings = dict(DEFAULTS)
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name not in settings:
            raise SystemExit(f"{argument!r} was not understood; settings are {', '.join(settings)}")
        settings[name] = type(settings[name])(value)
    seed, threads = int(settings["seed"]), int(settings["threads"])
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore", ConvergenceWarning)
    shortcuts = Shortcuts(settings["tube"], settings["hospital"])
    films = [film for patient in range(1, int(settings["patients"]) + 1)
             for film in films_of_patient(seed, patient, shortcuts)]  # fmt: skip
    started = time.perf_counter()
    pixels = drawn(films, threads)
    rendering = time.perf_counter() - started
    truth = np.array([[label in film.labels for label in LABELS] for film in films])
    patients = np.array([film.patient for film in films])
    tested = np.array([in_test_list(seed, film.patient, 0.23) for film in films])
    started = time.perf_counter()
    model = trained(pixels[~tested], truth[~tested], int(settings["epochs"]))
    training = time.perf_counter() - started
    with torch.inference_mode():
        scores = torch.cat([model(part) for part in torch.from_numpy(shortened(pixels[tested])).split(256)]).numpy()
    sides = {
        f"network, {SIZE} px": scores,
        f"regression, {THUMBNAIL} x {THUMBNAIL}": regression(pixels[~tested], truth[~tested], pixels[tested]),
    }
    columns = {name: intervals(truth[tested], side, patients[tested]) for name, side in sides.items()}
    rows = [[name, *map(_shown, each)] for name, *each in zip([*LABELS, "mean of all"], *columns.values(), strict=True)]
    print(markdown("Area under the ROC curve", ["finding", *columns], rows))
    print(
        f"{len(films)} films of {len(np.unique(patients))} patients, {int(tested.sum())} tested; rendered"
        f" {len(films) / rendering:.0f} a second, network trained {training:.0f} s; {settings}; {machine()}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
