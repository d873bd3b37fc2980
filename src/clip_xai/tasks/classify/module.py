"""The LightningModule around a classifier."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn

from clip_xai.errors import UserError
from clip_xai.models.backbones.classifier import VisionClassifier
from clip_xai.models.classifier_weights import HEAD, ClassifierSettings
from clip_xai.tasks.classify.measures import MeanAuroc
from clip_xai.tasks.classify.plan import ClassifierPlan
from clip_xai.training.optimisation import Optimisation, is_decayed, mean_metric, scheduled
from clip_xai.training.tower_plan import block_list

PREFIX = "backbone."
TOWER_KEY = "backbone_fingerprint"
_TABLE = re.compile(r"(^|[._])(pos_embed|pos_embedding|position_embedding|positional_embedding|cls_token|class_token)")


class ClassifierModule(LightningModule):
    """Trains the head of a classifier, on frozen features, or together with its tower, on pixels.

    With truth ``y`` in {0, 1, not counted} and ``z`` the logits, over all labels that count::

        loss = mean of w_c (-y log sigmoid z - (1 - y) log(1 - sigmoid z))    several classes at once
        loss = mean of w_c (-log softmax z)_c                                  one class

    Attributes:
        backbone: The classifier.
    """

    def __init__(
        self,
        classifier: VisionClassifier,
        settings: ClassifierSettings,
        optimisation: Optimisation,
        plan: ClassifierPlan,
        *,
        head_factor: float = 1.0,
        layer_decay: float = 1.0,
        weights: Tensor | None = None,
        tower: str = "",
        flip: bool = False,
        shift: float = 0.0,
    ) -> None:
        """Wrap a classifier.

        Args:
            classifier: Its weights are changed.
            settings: What it was built from; goes into checkpoints.
            optimisation: How to optimise.
            plan: The callback that decides what trains.
            head_factor: The head's learning rate is this times the other one.
            layer_decay: See :class:`clip_xai.config.training_settings.ClassifyConfig`.
            weights: ``w_c`` of each class where it is present ``[C]``; None for 1.
            tower: Fingerprint of the tower before the first step; goes into checkpoints.
            flip: Mirror half of the training images.
            shift: Move training images by up to this share of their side.
        """
        super().__init__()
        self.backbone = classifier
        self.optimisation, self.plan = optimisation, plan
        self.head_factor, self.layer_decay = head_factor, layer_decay
        self.multilabel, self.flip, self.shift = settings.multilabel, flip, shift
        self.register_buffer("weights", weights, persistent=False)
        self.tower = tower
        self.strict_loading = False
        self.val_loss, self.val_auroc = mean_metric(), MeanAuroc(self.multilabel)
        self.save_hyperparameters({"settings": asdict(settings), "optimisation": asdict(optimisation)})

    def logits(self, read: Tensor) -> Tensor:
        """Return logits ``[B, C]`` of pixels where the tower trains, else of frozen features."""
        if not self.plan.trains_tower:
            return self.backbone.logits_of(read)
        return self.backbone.logits_of(self.backbone.features(read).read(self.backbone.reads))

    def losses(self, logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses and how many labels (of one class: photographs) they are of."""
        weights: Any = self.weights  # a buffer
        if not self.multilabel:
            smoothing = self.optimisation.label_smoothing if self.training else 0.0
            each = F.cross_entropy(logits, truth.argmax(1), weights, reduction="none", label_smoothing=smoothing)
            return each.sum(), torch.tensor(len(each), device=each.device)
        counted = ~truth.isnan()
        each = F.binary_cross_entropy_with_logits(logits, truth.nan_to_num(), pos_weight=weights, reduction="none")
        return (each * counted).sum(), counted.sum()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return this part's share of the step's mean loss."""
        read = self.augmented(batch["read"]) if self.plan.trains_tower else batch["read"]
        total, count = self.losses(self.logits(read), batch["truth"])
        self.log("train/loss", total / count.clamp(min=1), prog_bar=True, batch_size=len(read))
        return total * batch["parts"] / batch["total"].clamp(min=1)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Add a batch to the mean loss and to the area under the ROC curve."""
        logits, truth = self.logits(batch["read"]), batch["truth"]
        total, count = self.losses(logits, truth)
        self.val_loss.update(total / count.clamp(min=1), count)
        self.val_auroc.update(logits, truth)

    def on_validation_epoch_end(self) -> None:
        """Log ``val/loss`` (nats a label) and ``val/auroc``, the mean over classes for which it is defined."""
        self.log("val/loss", self.val_loss.compute(), prog_bar=True)
        auroc = self.val_auroc.compute()
        if not auroc.isnan():
            self.log("val/auroc", auroc, prog_bar=True)
        self.val_loss.reset()
        self.val_auroc.reset()

    def on_train_epoch_start(self) -> None:
        """Start the epoch's random numbers from seed, epoch and device alone."""
        seed = self.optimisation.seed + 1_000_003 * self.current_epoch + 7_919 * self.global_rank
        lightning.seed_everything(seed % 2**31, verbose=False)

    def augmented(self, pixels: Tensor) -> Tensor:
        """Return images mirrored at random, and moved by :func:`moved`."""
        if self.flip:
            mirrored = torch.rand(len(pixels), 1, 1, 1, device=pixels.device) < 0.5
            pixels = torch.where(mirrored, pixels.flip(-1), pixels)
        return moved(pixels, self.shift) if self.shift else pixels

    def configure_optimizers(self) -> Any:
        """AdamW over all that will ever train, with warm-up and cosine per step."""
        return scheduled(self.parameter_groups(), self.optimisation, int(self.trainer.estimated_stepping_batches))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return all that will ever train, by learning rate and decay."""
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        factors = self.rate_factors()
        for name, parameter in self.plan.ever_trained(self.backbone).items():
            groups.setdefault((factors[name], decayed(name, parameter)), []).append(parameter)
        rate, decay = self.optimisation.learning_rate, self.optimisation.weight_decay
        return [
            {"params": parameters, "lr": rate * factor, "weight_decay": decay if shrinks else 0.0}
            for (factor, shrinks), parameters in groups.items()
        ]

    def rate_factors(self) -> dict[str, float]:
        """Return what each weight's learning rate is times, by name.

        With L blocks and a layer decay d: the head ``head_factor``, what stands behind the blocks 1, block l of 1 to L
        ``d ** (L + 1 - l)``, what stands before them ``d ** (L + 1)``.
        """
        names = [name for name, _ in self.backbone.named_parameters()]
        tower = [name for name in names if not name.startswith(HEAD)]
        prefix, count = block_list(dict.fromkeys(tower))
        factors = {name: self.head_factor for name in names if name.startswith(HEAD)}
        for name in tower:
            depth = self.plan.depth(name, prefix, count)
            factors[name] = self.layer_decay ** (count + 1 - depth)
        return factors

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out a frozen tower that has a place of its own, and add what was measured last."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: value.detach() for key, value in state.items() if key.startswith(self._kept)}
        checkpoint[TOWER_KEY] = self.tower
        measured = self.trainer.callback_metrics
        checkpoint["measured"] = {key: float(value) for key, value in measured.items() if key.startswith("val/")}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Require a checkpoint of this model, with every weight.

        Raises:
            UserError: It is not.
        """
        given = set(checkpoint["state_dict"])
        wanted = {key for key in self.state_dict() if key.startswith(self._kept)}
        if given != wanted:
            odd = ", ".join(sorted(given ^ wanted)[:3])
            raise UserError(f"the checkpoint does not fit this classifier: missing or unknown {odd}")

    @property
    def _kept(self) -> str:
        return PREFIX + HEAD if self.tower_has_a_place else PREFIX

    @property
    def tower_has_a_place(self) -> bool:
        """Whether the tower's weights lie elsewhere, and stay what they are."""
        return self.backbone.source is not None and not self.plan.trains_tower


def moved(images: Tensor, share: float) -> Tensor:
    """Move each image right or left and down or up by whole pixels; what lies beyond an edge is its nearest pixel.

    A fraction of a pixel would be an average of neighbours, which wipes out what is one pixel wide.

    Args:
        images: ``[B, C, H, W]``.
        share: Each direction's distance is drawn evenly from the whole numbers within this share of its side.
    """
    (count, _, *sides), places = images.shape, []
    for side in sides:
        most = farthest(share, side)
        steps = torch.randint(-most, most + 1, (count, 1), device=images.device)
        places.append((torch.arange(side, device=images.device) - steps).clamp(0, side - 1))
    rows, columns = places
    each = torch.arange(count, device=images.device)[:, None, None]
    return images.movedim(1, -1)[each, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).contiguous()


def farthest(share: float, side: int) -> int:
    """Return the whole pixels within a share of a side."""
    return int(share * side + 1e-9)


def decayed(name: str, parameter: Tensor) -> bool:
    """Tell whether weight decay applies: to matrices, not to class tokens and tables of positions."""
    return is_decayed(name, parameter) and not _TABLE.search(name)


def classifier_state_of(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Return the classifier's weights in a checkpoint."""
    return {
        key.removeprefix(PREFIX): value for key, value in checkpoint["state_dict"].items() if key.startswith(PREFIX)
    }
