"""What every mapper promises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedModel

from clip_xai.ranges import bounds, settings_of_parameters
from clip_xai.registry import Registry

Count = Annotated[int, bounds(least=1)]
Share = Annotated[float, bounds(least=0, below=1)]
NEIGHBOURS = ("grid", "blocks", "class_token")


class Mapper(nn.Module):
    """Turns what it reads of an image into K embeddings ``[B, K, E]`` for the language model.

    Most mappers write a prefix: K vectors that stand before the caption as if they were words. A mapper with a
    ``memory_length`` M keeps its last M vectors out of the sequence; the language model's blocks look at them through
    ``looking_at`` instead. The parameters of the constructor that have a default are the mapper's settings.

    Attributes:
        reads: ``"pooled"`` (``[B, D]``), ``"patches"`` (``[B, N, W]``) or ``"tokens"`` (``[B, P + N, W]``, the class
            token in front of the patches where the tower has one). Behind a pooled mapper every word's evidence passes
            through one vector, so the words of a caption have no spatial evidence of their own.
        idea: What it does, in a few words, for the table of mappers.
        needs: What it must be told of its neighbours besides their widths: ``"grid"`` (rows and columns of the patch
            grid), ``"blocks"`` (number of the language model's blocks), ``"class_token"`` (whether the tower's
            embedding is read at a class token).
        any_number: Whether it can read an image of which patches were left out, so that there are fewer than N.
        prefix_length: K.
        memory_length: M, 0 for a plain prefix.
        order: Its place in tables; ``mappers.register`` gives a class its name and order.
    """

    name: ClassVar[str]
    order: ClassVar[int] = 100
    reads: ClassVar[str]
    idea: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    any_number: ClassVar[bool] = False
    prefix_length: int
    memory_length: int = 0

    @classmethod
    def settings(cls) -> type:
        """Return the dataclass of its settings: names, types, defaults and ranges of its constructor's parameters."""
        return settings_of_parameters(cls, NEIGHBOURS)

    @contextmanager
    def looking_at(self, language_model: PreTrainedModel, memory: Tensor | None) -> Iterator[None]:
        """Let a language model's blocks look at the memory ``[B, M, E]`` inside ``with``; a prefix needs nothing.

        Args:
            language_model: The model whose blocks look.
            memory: The mapper's last M vectors, None where M is 0.
        """
        yield


mappers: Registry[type[Mapper]] = Registry(
    "mapper", "mappers", "clip_xai.models.mappers", order=lambda mapper: mapper.order
)
