"""What a map costs: seconds, passes of the tower in both directions, and memory, whatever library the tower is of."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.xai.explainer import Explainer
from clip_xai.xai.target import Target

_MIB = 2**20
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Passes:
    """Images that went through a tower, the mean over its parts by their numbers of parameters.

    A method that runs the last of four equal blocks again adds a quarter.

    Attributes:
        forwards: Images that were computed.
        backwards: Images whose gradients came back; T gradients that are pulled back together are one pass.
    """

    forwards: float = 0.0
    backwards: float = 0.0


@dataclass(frozen=True)
class Cost:
    """What the maps of one image cost.

    Attributes:
        seconds: Wall time.
        forwards: See :class:`Passes`.
        backwards: Likewise.
        mebibytes: How far memory rose above its level at the start; NaN where nobody can tell.
    """

    seconds: float
    forwards: float
    backwards: float
    mebibytes: float


@contextmanager
def counted_passes(backbone: VisionBackbone) -> Iterator[Passes]:
    """Count the images that go through the image tower, and the gradients that come back, inside ``with``.

    The parts of the tower that hold parameters and no other part are watched; nothing of it is changed.
    """
    passes, forwards, backwards = Passes(), Counter[int](), Counter[int]()

    def watched(number: int) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def seen(module: nn.Module, given: tuple[object, ...], output: object) -> None:
            if not isinstance(output, Tensor) or not output.ndim:
                return
            images = len(output)
            forwards[number] += images
            if output.requires_grad:
                output.register_hook(lambda gradient: _add(backwards, number, images))

        return seen

    leaves = [
        part
        for part in backbone.image_tower.module.modules()
        if next(part.children(), None) is None and next(part.parameters(recurse=False), None) is not None
    ]
    with ExitStack() as hooks:
        for number, part in enumerate(leaves):
            hooks.callback(part.register_forward_hook(watched(number)).remove)
        yield passes
    # Some libraries read a part's weights without calling it, such as the output projection of attention.
    sizes = {number: sum(value.numel() for value in leaves[number].parameters()) for number in forwards}
    passes.forwards, passes.backwards = (
        sum(size * counter[number] for number, size in sizes.items()) / max(1, sum(sizes.values()))
        for counter in (forwards, backwards)
    )


def _add(counter: Counter[int], number: int, images: int) -> None:
    counter[number] += images


def cost_of(explainer: Explainer, backbone: VisionBackbone, pixels: Tensor, target: Target) -> Cost:
    """Measure what explaining an image ``[1, 3, S, S]`` costs: once for the time, once for passes and memory."""

    def work() -> None:
        explainer.explain(backbone, pixels, target)
        if pixels.is_cuda:
            torch.cuda.synchronize(pixels.device)

    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    with counted_passes(backbone) as passes:
        memory = peak_mebibytes(work, pixels.device)
    return Cost(seconds, passes.forwards, passes.backwards, memory)


def peak_mebibytes(work: Callable[[], None], device: torch.device) -> float:
    """Return how far memory rises while a call runs.

    On a GPU it is what PyTorch allocated; on Linux the process's resident set, whose high-water mark is reset first;
    elsewhere NaN.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / _MIB
    try:
        _RESET.write_text("5")
        before = _high_water()
    except OSError:
        work()
        return float("nan")
    work()
    return (_high_water() - before) / _MIB


def _high_water() -> int:
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) * 1024
