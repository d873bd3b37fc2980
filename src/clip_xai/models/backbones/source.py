"""Where a backbone comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from clip_xai.ranges import Checked, setting


@dataclass
class BackboneSource(Checked):
    """All that is needed to build a backbone again; nothing here imports torch.

    Attributes:
        name: As in ``backbone=NAME``.
        architecture: ``tiny``, one of this package's own (see ``catalogue.py``), or a model name of open_clip.
        pretrained: ``"embedded:tiny"``, ``"hf-hub:ORGANISATION/MODEL"``, a directory, a file of weights, a tag of
            open_clip, or None for random weights.
        revision: Commit, tag or branch of the hub's repository; None for the newest.
        image_size: Side of the input in pixels if it is not the tower's own; positions are resampled.
        text: Whether the text tower is built; without it nothing can be compared with texts.
        quick_gelu: The activation, where a publisher's configuration does not say it right; None to believe it.
        library: ``timm`` or ``torchvision``, of whose networks ``architecture`` names one; None for a CLIP.
        num_classes: Number of classes of such a network at random weights; None for the file's own, or the library's.
        classes: File with the name of one class a line; None where the weights' own configuration names them, if any.
        mean: What is subtracted from each channel (0 to 1) of such a network's pixels, one value or three; None for
            what its weights' configuration or its library says.
        std: What they are then divided by, likewise.
        crop_pct: Share of the scaled photograph's side that is cut out of its middle for such a network, 1 for all;
            None for what its weights' configuration or its library says.
        model_args: More of timm's own arguments of a network, such as ``{growth_rate: 12}``.
    """

    prefix: ClassVar[str] = "backbone"

    name: str
    architecture: str
    pretrained: str | None = setting(None, path=True)
    revision: str | None = None
    image_size: int | None = setting(None, least=1, most=4096)
    text: bool = True
    quick_gelu: bool | None = None
    library: str | None = setting(None, one_of=("timm", "torchvision"))
    num_classes: int | None = setting(None, least=1)
    classes: str | None = setting(None, path=True)
    mean: list[float] | None = None
    std: list[float] | None = None
    crop_pct: float | None = setting(None, above=0, most=1)
    model_args: dict[str, Any] = field(default_factory=dict)
