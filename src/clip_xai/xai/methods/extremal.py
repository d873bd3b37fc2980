"""Extremal perturbations: the region of a given size that matters most, found by gradient ascent."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from clip_xai.errors import UserError
from clip_xai.models.backbones.chunks import in_chunks
from clip_xai.models.backbones.clip import with_texts
from clip_xai.models.backbones.recording import evaluation_mode, outside_inference
from clip_xai.ranges import setting
from clip_xai.xai.explainer import BankExplainer, explainers
from clip_xai.xai.masks import pooled
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import Target
from clip_xai.xai.trace import Trace

VARIANTS = ("preserve", "delete", "dual")
FILLS = ("blur", "fade")
COLDNESS = 20.0
TIED = 0.01  # pixels whose masks differ by no more, as a share of the mean mask, are not told apart


@explainers.register("extremal_perturbation", title="Extremal perturbation", group="perturbation", order=4)
@dataclass(frozen=True)
class ExtremalPerturbation(BankExplainer):
    """Extremal perturbations (Fong, Patrick and Vedaldi, ICCV 2019, arXiv 1910.08485).

    A mask m over the pixels comes from ``cells`` x ``cells`` parameters p in [0, 1] by a smooth maximum of bumps::

        v_j(u) = p_j k(|u - u_j| / sigma)     k(z) = exp(-2 max(z - 1/2, 0)^2)
        m(u)   = sum over j of  v_j(u) softmax_j( 20 v_j(u) )

    and 1 means the image, 0 the most perturbed one, with a pyramid of 8 blurs (or fadings to the mean colour) between.
    For each area a, p is found by ascent on

        preserve   scale s(x * m)                     delete   - scale s(x * (1 - m))
        dual       scale ( s(x * m) - s(x * (1 - m)) )

    minus ``lambda_t mean( (sort(m) - r_a)^2 )``, with r_a the sorted mask that has the area a at 1 and the rest at 0,
    its values averaged over pixels that are tied (whose masks differ by no more than 0.01 of the mean mask); here m is
    taken without the ripples that bumps of equal parameters leave. The map is the mean mask over the areas. In all
    variants, high values are where the evidence lies.

    A map that is the same everywhere says that no region was found: the score needs none more than another.

    Shapes: maps ``[B, T, h, w]`` in [0, 1]: the mean over the pixels of each patch. Cost: ``iterations`` forward and
    backward passes for each target and area (twice as many images for ``dual``), in batches over images, targets and
    areas. Nothing is drawn at random. The result does not depend on ``chunk_size`` beyond what many steps make of
    rounding: compare maps loosely.

    Deviations from TorchRay: the area is that of the mask within the image, and beyond its border the parameters are
    mirrored (there a margin around the image counts, so that an area of 0.1 becomes about 0.25); tied pixels are drawn
    to the same value, so that only the score tells them apart (there the order of their numbers does, and a score that
    hardly moves until most of the image is gone gets the same region in every image); bumps and blurs scale with the
    image (the defaults are TorchRay's at 224 pixels); beyond the border a blur sees the image mirrored, and its kernel
    is cut at three standard deviations, or one pixel short of the image's side where that is less, and summed to 1
    again; fewer iterations with as many times larger steps and the same
    final lambda (``iterations=800`` with ``cells=32`` is the published course; steps shrink with fewer cells, whose
    gradients are larger); a cosine is multiplied by the model's tau (``scale``), or the area would be all that counts;
    the model's parameters are not touched.

    Attributes:
        areas: Shares of the image.
        variant: ``"preserve"``, ``"delete"`` or ``"dual"``.
        perturbation: ``"blur"`` or ``"fade"``.
        iterations: Steps.
        cells: Parameters a side.
        smoothing: sigma, in cells.
        blur: Standard deviation of the strongest blur, as a share of the image's side.
        scale: Factor of the score; 0 for the model's tau where it is a cosine, and else 1.
        jitter: Mirror the images in every other step.
        chunk_size: Images in one pass; halved when memory runs out.

    Raises:
        UserError: A setting has no meaning.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> found = ExtremalPerturbation(iterations=3, cells=6).explain(*example())
        >>> found.values.shape
        torch.Size([2, 2, 4, 4])
    """

    reading: ClassVar[str] = "The part of the photograph, of a given size, that alone keeps the score highest."

    areas: list[float] = setting(factory=lambda: [0.1], above=0, below=1)
    variant: str = setting("preserve", one_of=VARIANTS)
    perturbation: str = setting("blur", one_of=FILLS)
    iterations: int = setting(200, least=1)
    cells: int = setting(32, least=1)
    smoothing: float = setting(3.0, above=0)
    blur: float = setting(0.09, above=0)
    scale: float = setting(0.0, least=0)
    jitter: bool = True
    chunk_size: int = setting(16, least=1)

    every_word: ClassVar[bool] = False
    linear_in_target: ClassVar[bool] = False
    cost: ClassVar[str] = "T x areas x iterations (F + B)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.areas:
            raise UserError("xai.extremal_perturbation.areas=[]: give shares of the image")

    def maps(self, bank: PerturbationBank, target: Target, trace: Trace | None) -> tuple[Tensor, Tensor]:
        """Return raw maps ``[B, T, h, w]`` and the scores of the images."""
        whole = bank.whole_scores(target)
        with torch.inference_mode(False):
            return self._masks(bank, target, *whole.shape), whole

    def _masks(self, bank: PerturbationBank, target: Target, images: int, targets: int) -> Tensor:
        device = bank.pixels.device
        areas = torch.tensor(self.areas, device=device)
        rows = torch.cartesian_prod(*(torch.arange(n, device=device) for n in (images, targets, len(areas))))

        def masks(chunk: slice) -> Tensor:
            image, which, area = rows[chunk].reshape(-1, 3).unbind(1)
            with torch.enable_grad(), evaluation_mode(bank.backbone):
                return pooled(self._optimise(bank, target, image, which, areas[area]), bank.backbone.grid)

        found = [part for _, part in in_chunks(masks, len(rows), self.chunk_size)]
        return torch.cat(found).unflatten(0, (images, targets, len(areas))).mean(dim=2)

    def _optimise(self, bank: PerturbationBank, target: Target, image: Tensor, which: Tensor, areas: Tensor) -> Tensor:
        """Masks ``[n, S, S]`` of some images, targets and areas, each found on its own."""
        pixels = outside_inference(bank.pixels)[image]
        side = pixels.shape[-1]
        pyramid = self._pyramid(pixels)
        bumps = Bumps(side, self.cells, self.smoothing).to(pixels.device)
        outside = ((1 - areas) * side * side).long()[:, None]
        parameters = torch.ones(len(image), self.cells, self.cells, device=pixels.device)
        momentum = torch.zeros_like(parameters)
        share = 800 / self.iterations
        rate = 0.01 * share * (self.cells / 32) ** 2  # a parameter's gradient is that of the pixels it governs
        cosine = target.settings.get("kind") == "cosine"
        scale = self.scale or (float(with_texts(bank.backbone).logit_scale.detach()) if cosine else 1.0)
        each = torch.arange(len(image), device=pixels.device)
        for step in range(self.iterations):
            parameters.requires_grad_()
            masks = bumps.masks(parameters)
            gain = sum(
                sign * target.score(self._read(bank, _mixed(pyramid, mask), target, step))[each, which].float().sum()
                for sign, mask in self._asked(masks)
            )
            even = masks - bumps.ripples(parameters)
            off = (even.flatten(1) - aim_of(even, outside)).square().mean(dim=1).sum()
            loss = 300 * 1.0035 ** (share * step) * off - scale * gain
            (gradient,) = torch.autograd.grad(loss, parameters)
            # SGD with momentum 0.9 and dampening 0.9, from the first step on (PyTorch's leaves that one undampened).
            momentum = 0.9 * momentum + 0.1 * gradient
            parameters = (parameters.detach() - rate * momentum).clamp(0, 1)
        with torch.no_grad():
            masks = bumps.masks(parameters)
            even = masks - bumps.ripples(parameters)
            mean, least, most = masks.mean((1, 2), True), even.amin((1, 2), True), even.amax((1, 2), True)
            return torch.where(most - least > TIED * mean, masks, mean)  # no region: what is left are ripples

    def _asked(self, masks: Tensor) -> list[tuple[int, Tensor]]:
        """The sign of each score that counts, and what it keeps."""
        return {"preserve": [(1, masks)], "delete": [(-1, 1 - masks)], "dual": [(1, masks), (-1, 1 - masks)]}[
            self.variant
        ]

    def _read(self, bank: PerturbationBank, mixed: Tensor, target: Target, step: int) -> Tensor:
        if self.jitter and step % 2 == 0:
            mixed = mixed.flip(-1)
        return bank.backbone.features(mixed).read(target.reads)

    def _pyramid(self, pixels: Tensor) -> Tensor:
        """From the most perturbed to the image itself, ``[n, 8, 3, S, S]``."""
        levels = []
        for level in torch.linspace(0, 1, 8).tolist():
            sigma = (1 - level) * self.blur * pixels.shape[-1]
            if self.perturbation == "fade":
                levels.append(pixels * level)
            elif sigma == 0:
                levels.append(pixels)
            else:
                reach = min(ceil(3 * sigma), pixels.shape[-1] - 1)
                levels.append(gaussian_blur(pixels, [2 * reach + 1] * 2, [sigma] * 2))
        return torch.stack(levels, dim=1)


class Bumps:
    """How parameters on a grid of cells become a mask over pixels; see ``ExtremalPerturbation``.

    Beyond the border the parameters are mirrored. So each of them moves the mask by the same amount in all, wherever it
    stands; with nothing beyond the border, those of the corners would move it less, fall later than all others, and
    the corners would be the region of every score that hardly tells places apart.
    """

    def __init__(self, side: int, cells: int, smoothing: float) -> None:
        """Measure how far each pixel is from the cells around it."""
        reach = 1 + ceil(smoothing)
        place = (torch.arange(side) + 0.5) * cells / side  # in cells; cell j has its centre at j + 1/2
        near = place.long()[:, None] + torch.arange(-reach, reach + 1)  # [S, K]
        away = near + 0.5 - place[:, None]
        distance = (away[:, None, :, None].square() + away[None, :, None, :].square()).sqrt() / smoothing
        self.kernel = (-2 * (distance - 0.5).clamp(min=0).square()).exp().flatten(2)  # [S, S, K * K]
        inside = near.remainder(2 * cells)
        self.near = torch.where(inside < cells, inside, 2 * cells - 1 - inside)

    def to(self, device: torch.device) -> Bumps:
        """Move to a device."""
        self.near, self.kernel = self.near.to(device), self.kernel.to(device)
        return self

    def masks(self, parameters: Tensor) -> Tensor:
        """Return masks ``[n, S, S]`` of parameters ``[n, cells, cells]``."""
        rows = self.near
        around = parameters[:, rows[:, None, :, None], rows[None, :, None, :]].flatten(3)  # [n, S, S, K * K]
        bumps = around * self.kernel
        return (bumps * (COLDNESS * bumps).softmax(dim=-1)).sum(dim=-1).clamp(0, 1)

    @torch.no_grad()
    def ripples(self, parameters: Tensor) -> Tensor:
        """Return what of the unevenness of masks ``[n, S, S]`` equal parameters of the same mean would have, too.

        Bumps of a few cells make ripples as high as the differences by which a weak score tells places apart.
        """
        even = self.masks(parameters.mean((1, 2), True).expand_as(parameters))
        return even - even.mean((1, 2), True)


def aim_of(masks: Tensor, outside: Tensor) -> Tensor:
    """Return what masks are drawn to: 0 for the lowest pixels, 1 for the others, tied ones to their mean.

    Where masks are tied, only an accident of order would tell which of two pixels shall go to 0, and what that decides
    no score gets back: a caption's diagnosis, say, of which the model is certain until most of the image is gone. What
    is a tie shrinks with the masks: a weak score, too, tells places apart once most of the image is gone.

    Args:
        masks: ``[n, S, S]``.
        outside: How many pixels shall go to 0, ``[n, 1]``.

    Returns:
        ``[n, S * S]``; the mean over pixels is the area where all are tied.

    Example:
        >>> import torch
        >>> aim_of(torch.tensor([[[0.5, 0.5], [0.1, 0.5]]]), torch.tensor([[3]])).tolist()
        [[0.3333333432674408, 0.3333333432674408, 0.0, 0.3333333432674408]]
    """
    ordered, places = masks.detach().flatten(1).sort(dim=1)
    tied = TIED * ordered.mean(dim=1, keepdim=True)
    first = torch.searchsorted(ordered, ordered - tied)
    behind = torch.searchsorted(ordered, ordered + tied, right=True)
    inside = (behind - torch.maximum(first, outside)).clamp(min=0)  # those of the tied pixels that shall go to 1
    return torch.empty_like(ordered).scatter(1, places, inside / (behind - first))


def _mixed(pyramid: Tensor, masks: Tensor) -> Tensor:
    """Mix the two levels of each pixel's pyramid that its mask lies between."""
    place = masks * (pyramid.shape[1] - 1)
    low = place.detach().long().clamp(max=pyramid.shape[1] - 2)
    share = (place - low)[:, None].to(pyramid)
    index = low[:, None, None].expand(-1, 1, pyramid.shape[2], -1, -1)
    return (1 - share) * pyramid.gather(1, index)[:, 0] + share * pyramid.gather(1, index + 1)[:, 0]
