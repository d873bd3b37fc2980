"""Any network that turns pixels into logits, opened at layers that its owner names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from clip_xai.data.preprocess import Preprocess
from clip_xai.errors import UserError
from clip_xai.models.backbones.classifier import VisionClassifier
from clip_xai.models.backbones.recording import Point, Record, Recorder, evaluation_mode
from clip_xai.models.backbones.stages import StageTrace, keep_output
from clip_xai.models.backbones.tower import Features, ImageTower, known_read

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAME_LAYERS = "name layers=[...] where it is wrapped"


class LogitsAlone(Features):
    """What a module hands over of which no layer was named: logits as its embedding, and no tokens."""

    def __init__(self, logits: Tensor) -> None:
        """Keep the logits ``[B, C]``."""
        object.__setattr__(self, "pooled", logits)

    @property
    def tokens(self) -> Tensor:  # type: ignore[override]
        """Raise a UserError: one row of logits is not the features of a place."""
        raise UserError(f"this module was not opened and has no patch tokens: {NAME_LAYERS}, or read its logits alone")


class ModuleTower(ImageTower):
    """A module of one's own as a tower: its embedding is its logits, its stages are the layers that were named.

    A layer's output is a map ``[B, C, h, w]`` through which all that the logits depend on must pass: that is tried when
    the tower is made.
    """

    family = "convolutional"

    def __init__(self, module: nn.Module, image_size: int, layers: Sequence[str] = (), channels: int = 3) -> None:
        """Wrap a module.

        Args:
            module: From pixels ``[B, channels, S, S]`` to logits ``[B, C]``.
            image_size: S.
            layers: Names of layers, as in ``named_modules``, from the first to the last.
            channels: 3, or 1 for a module that reads grey pictures: the first channel.

        Raises:
            UserError: The module does not give logits, has no such layer, or something passes a layer by.
        """
        modules = dict(module.named_modules())
        unknown = [name for name in layers if name not in modules]
        if unknown:
            some = ", ".join([name for name in modules if name][:8])
            raise UserError(f"layers: the module has no layer {unknown[0]!r}; its first are {some}")
        self.module: Any = module
        self.image_size, self.channels = image_size, channels
        self._layers = {name: modules[name] for name in layers}
        self.supports = frozenset({"output_gradients"} if layers else ())
        self.remedies = {} if layers else {"output_gradients": NAME_LAYERS}
        self.grids: list[tuple[int, int]] = []
        self._measure()

    def _measure(self) -> None:
        weight = next(self.module.parameters())
        drawn = torch.rand(1, 3, self.image_size, self.image_size, generator=torch.Generator().manual_seed(0))
        pixels = drawn.to(weight)
        with evaluation_mode(self.module), torch.no_grad():
            try:
                logits, maps = self._observed(pixels)
            except (RuntimeError, ValueError, TypeError) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
                raise UserError(
                    f"the module does not take pixels [1, {self.channels}, {self.image_size}, {self.image_size}] "
                    f"({reason}): give image_size and channels as it was trained"
                ) from error
            if not isinstance(logits, Tensor) or logits.ndim != 2:
                raise UserError("the module must return logits [B, C]: wrap it in one that does")
            for name in self._layers:
                if name not in maps or maps[name].ndim != 4:
                    raise UserError(f"layers: {name} does not give one map [B, C, h, w] of an image: name another")
            self.grids = [(int(one.shape[2]), int(one.shape[3])) for one in maps.values()]
            self.embed_dim = int(logits.shape[1])
            last = list(maps.values())[-1] if maps else None
            self.grid = self.grids[-1] if maps else (max(1, self.image_size // 16),) * 2
            self.width = self.embed_dim if last is None else int(last.shape[1])
            for index, (name, found) in enumerate(maps.items()):
                again = self.behind(index, found.flatten(2).transpose(1, 2), "pooled")
                if not torch.allclose(again, logits, rtol=1e-4, atol=1e-5):
                    raise UserError(f"layers: not all that the logits depend on passes through {name}: name another")

    def features(self, pixels: Tensor) -> Features:
        """Encode images in one pass; tokens are the cells of the last layer that was named, and none without one."""
        if not self._layers:
            return LogitsAlone(self._logits(pixels))
        logits, maps = self._observed(pixels)
        return Features(logits, list(maps.values())[-1].flatten(2).transpose(1, 2))

    def encode(self, pixels: Tensor) -> Tensor:
        """Return the logits alone."""
        return self._logits(pixels)

    def project(self, tokens: Tensor) -> Tensor:
        """Raise a UserError: single cells have no logits of their own here."""
        raise UserError("a module of one's own gives no logits of single cells: choose another method")

    def trace(
        self, pixels: Tensor, *, reads: str = "pooled", record: Record = (), watch: Iterable[Point] = ()
    ) -> StageTrace:
        """Run the module once, opened at its named layers; see ``StageTrace``.

        Raises:
            UserError: No layer was named.
        """
        if not self._layers:
            raise UserError(f"this module was not opened: {NAME_LAYERS}, or choose saliency, occlusion or rise")
        return StageTrace(self, pixels, reads=reads, record=record, watch=watch)

    def run(self, pixels: Tensor, recorder: Recorder, reads: str) -> Tensor:
        """Return what is read, and keep what was asked for on the way."""
        _require_pooled(reads)

        def keep(index: int, found: Tensor) -> Tensor:
            tokens = keep_output(recorder, index, found.flatten(2).transpose(1, 2))
            return tokens.transpose(1, 2).unflatten(2, self.grids[index])

        with self._hooked({index: keep for index in range(len(self._layers)) if index in recorder.opened}):
            return self._logits(pixels)

    def behind(self, index: int, tokens: Tensor, reads: str) -> Tensor:
        """Return the logits once a layer has given these tokens; what stands before it runs on nothing."""
        _require_pooled(reads)
        put = tokens.transpose(1, 2).unflatten(2, self.grids[index])
        nothing = tokens.new_zeros(len(tokens), 3, self.image_size, self.image_size)
        with self._hooked({index: lambda _, found: put}):
            return self._logits(nothing)

    def _logits(self, pixels: Tensor) -> Tensor:
        return self.module(pixels[:, : self.channels])

    def _observed(self, pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        seen: dict[int, Tensor] = {}
        names = list(self._layers)

        def see(index: int, found: Tensor) -> Tensor:
            seen[index] = found
            return found

        with self._hooked(dict.fromkeys(range(len(names)), see)):
            logits = self._logits(pixels)
        return logits, {names[index]: seen[index] for index in range(len(names)) if index in seen}

    @contextmanager
    def _hooked(self, actions: Mapping[int, Any]) -> Iterator[None]:
        layers = list(self._layers.values())
        handles = [
            layers[index].register_forward_hook(lambda _, __, found, index=index, act=act: act(index, found))
            for index, act in actions.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def wrapped_classifier(
    module: nn.Module,
    classes: Sequence[str],
    image_size: int = 224,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    resize: str = "shortest",
    scaled: int | None = None,
    layers: Sequence[str] = (),
    multilabel: bool = False,
    name: str = "mine",
) -> VisionClassifier:
    """Make a classifier of a module of one's own.

    Args:
        module: From normalised pixels ``[B, 3, S, S]``, or ``[B, 1, S, S]`` with one mean, to logits ``[B, C]``.
        classes: Names of the C classes.
        image_size: S.
        mean: Of its normalisation, of three channels or of one.
        std: Likewise.
        resize: ``shortest`` (then the centre is cut out), ``squash`` or ``longest``; see ``Preprocess``.
        scaled: The shorter side before the centre is cut out; None for S.
        layers: Layers at which methods that read activations look, from the first to the last; none for methods that
            mask pixels or take gradients of them.
        multilabel: Whether an image can show several classes at once.
        name: What it is called on pages.

    Raises:
        UserError: The module does not give C logits of such pixels, or a layer cannot be used.

    Example:
        >>> body = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU())
        >>> network = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> classifier = wrapped_classifier(network, ["cat", "dog"], image_size=32, layers=["0"])
        >>> classifier.logits(torch.zeros(1, 3, 32, 32)).shape, classifier.grid
        (torch.Size([1, 2]), (15, 15))
    """
    if len(mean) != len(std) or len(mean) not in (1, 3):
        raise UserError(f"mean and std are of one channel or of three, not of {len(mean)} and {len(std)}")
    channels = len(mean)
    preprocess = Preprocess(
        image_size=image_size,
        resize=resize,
        mean=tuple(mean) * (3 // channels),  # type: ignore[arg-type]
        std=tuple(std) * (3 // channels),  # type: ignore[arg-type]
        scaled=scaled,
    )
    module = module.eval().requires_grad_(False)
    tower = ModuleTower(module, image_size, layers, channels)
    if tower.embed_dim != len(classes):
        raise UserError(f"the module gives {tower.embed_dim} logits, and classes has {len(classes)} names")
    return VisionClassifier(
        module, tower, preprocess, name, classes=classes, source=name, head=nn.Identity(), multilabel=multilabel
    )


def _require_pooled(reads: str) -> None:
    if known_read(reads) != "pooled":
        raise UserError("a module of one's own hands over its logits alone")
