"""Small towers of real classes, and what every trace must keep."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.tower import READS, ImageTower

TEXTS = ["a brown lesion, upper left", "melanoma", "a well-circumscribed pink papule."]


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Equal to within the tolerance, relative to the largest expected value."""
    assert found.shape == expected.shape
    assert expected.abs().max() > 0
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """Add noise to all parameters and running statistics: fresh biases and norms are 0 and 1, which would hide one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            size = parameter.square().mean().sqrt().clamp(min=0.1)
            parameter.add_(0.3 * size * torch.randn(parameter.shape, generator=generator))
        for name, buffer in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + (0.5 if name.endswith("var") else -0.5))
    return module.eval().requires_grad_(False)


def pixels_for(tower: ImageTower | VisionBackbone, images: int = 2) -> Tensor:
    """Random images of the tower's size."""
    size = tower.image_size if isinstance(tower, ImageTower) else tower.preprocess.image_size
    return torch.randn(images, 3, size, size, generator=torch.Generator().manual_seed(3))


def state_of(module: nn.Module) -> list[object]:
    """All that a trace could leave behind: hooks, modes, gradients, the forward functions and the weights' bytes."""
    left: list[object] = []
    for part in module.modules():
        left += [part.training, len(part._forward_hooks), len(part._forward_pre_hooks), len(part._backward_hooks)]
        left.append(sorted(key for key in part.__dict__ if not key.startswith("_")))
    left += [(p.requires_grad, p.grad is None, p.sum().item()) for p in module.parameters()]
    return left


def check_trace(tower: ImageTower) -> None:
    """A trace gives what the plain pass gives, nests, survives exceptions, and leaves nothing behind."""
    pixels = pixels_for(tower)
    before = state_of(tower.module)
    with torch.no_grad():
        features = tower.features(pixels)
        assert_close(tower.encode(pixels), features.pooled)
    watch = [(0, "output"), (-1, "output")]
    for reads in READS:
        plain = tower.trace(pixels, reads=reads)
        assert_close(plain.read, features.read(reads))
        assert not plain.read.requires_grad
        full = tower.trace(pixels, reads=reads, record=None, watch=watch)
        assert_close(full.read.detach(), features.read(reads))
        # Two traces alive at once, asked in the wrong order.
        other = tower.trace(pixels.flip(0), reads=reads, watch=watch)
        cotangents = torch.randn(2, 3, *full.read.shape[1:], generator=torch.Generator().manual_seed(1))
        inner, outer = other.gradients(cotangents.flip(0), watch), full.gradients(cotangents, watch)
        for point in watch:
            assert_close(outer[point], inner[point].flip(0))
        check_gradient_by_differences(tower, full, cotangents[:, 0], outer[0, "output"][:, 0])
    try:
        tower.trace(pixels[:, :2], watch=watch)  # two channels: the first convolution fails
    except RuntimeError:
        pass
    else:
        raise AssertionError("two channels passed")
    assert torch.is_grad_enabled()
    assert state_of(tower.module) == before


def check_gradient_by_differences(tower: ImageTower, trace: object, cotangent: Tensor, gradient: Tensor) -> None:
    """The gradient at the first block's output is that of the rest of the tower, by ordinary autograd."""
    first = trace.block(0).output.detach().clone().requires_grad_()  # type: ignore[attr-defined]
    read = rest_of(tower, first, trace.reads)  # type: ignore[attr-defined]
    (expected,) = torch.autograd.grad((read * cotangent).sum(), first)
    assert_close(gradient, expected)


def rest_of(tower: ImageTower, first: Tensor, reads: str) -> Tensor:
    """The tower behind its first block, by its modules' own forward pass."""
    tokens = first
    for block in tower.blocks[1:]:  # type: ignore[attr-defined]
        tokens = block.run(tokens, None)
    if reads == "pooled":
        return tower.pooled(tokens)  # type: ignore[attr-defined]
    normed = tower.last_norm(tokens)  # type: ignore[attr-defined]
    return normed[:, tower.prefix_tokens :] if reads == "patches" else normed
