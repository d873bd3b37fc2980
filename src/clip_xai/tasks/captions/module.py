"""The LightningModule around the captioner."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import lightning
from lightning import LightningModule
from torch import Tensor, nn

from clip_xai.errors import UserError
from clip_xai.models.captioner import IGNORED, Captioner
from clip_xai.models.causal_model import blocks_of
from clip_xai.models.weights import CaptionerSettings, output_key
from clip_xai.tasks.captions.unfreezing import Unfreezing
from clip_xai.training.optimisation import Optimisation, is_decayed, mean_metric, scheduled

PREFIX = "captioner."


class CaptionerModule(LightningModule):
    """Trains a captioner on features of its frozen tower.

    Checkpoints hold plain containers and tensors. The tower's weights are in them only where they are random; others
    come from their own place and must have the fingerprint that the checkpoint names.
    """

    def __init__(
        self, captioner: Captioner, settings: CaptionerSettings, optimisation: Optimisation, unfreezing: Unfreezing
    ) -> None:
        """Wrap a captioner.

        Args:
            captioner: The captioner.
            settings: What it was built from; goes into checkpoints.
            optimisation: How to optimise.
            unfreezing: The callback that decides what trains; the optimiser is given what it will ever thaw.
        """
        super().__init__()
        self.captioner = captioner
        self.optimisation = optimisation
        self.unfreezing = unfreezing
        self.fingerprint = captioner.backbone.fingerprint  # read while the weights are whole
        self.sharded = False
        self.strict_loading = False  # a checkpoint lacks the tower; ``on_load_checkpoint`` accounts for every other key
        self.val_loss = mean_metric()
        self.common_loss = mean_metric()
        self.save_hyperparameters({"settings": asdict(settings), "optimisation": asdict(optimisation)})

    def configure_model(self) -> None:
        """Shard the weights over the devices where the strategy brings a mesh of them (FSDP2)."""
        if self.device_mesh is None or self.sharded:
            return
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        mesh = self.device_mesh["data_parallel"]
        for block in blocks_of(self.captioner.language_model)[1]:
            fully_shard(block, mesh=mesh)
        # The tower by itself: training on features never gathers it. Scalars, such as the temperature, cannot be cut.
        scalars = {parameter for parameter in self.captioner.parameters() if parameter.ndim == 0}
        fully_shard(self.captioner.backbone, mesh=mesh, ignored_params=scalars)
        fully_shard(self.captioner, mesh=mesh, ignored_params=scalars)
        register_fsdp_forward_method(self.captioner, "loss")
        self.sharded = True

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return this part's share of the step's loss: the mean over all parts is the step's mean per token.

        Captions differ in length, so parts differ in tokens; the mean of the parts' own means would weigh the tokens of
        a short part more, and depend on how many devices share a step.
        """
        tokens = batch["tokens"]
        loss = self.captioner.loss(
            batch["read"], tokens, self.optimisation.label_smoothing, prompts=batch.get("prompt")
        )
        self.log("train/loss", loss, prog_bar=True, batch_size=len(tokens))
        return loss * ((tokens != IGNORED).sum() * batch["parts"] / batch["total"])

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the mean cross-entropy per supervised token, without label smoothing."""
        tokens = batch["tokens"]
        metric = self.common_loss if dataloader_idx else self.val_loss
        loss = self.captioner.loss(batch["read"], tokens, prompts=batch.get("prompt"))
        metric.update(loss, (tokens != IGNORED).sum())

    def on_validation_epoch_end(self) -> None:
        """Log ``val/loss`` (nats per token), ``val/perplexity``, its exponential, and ``val/common_loss``.

        The last is the loss on the sources that the stage is not about, where there are any: what it forgets.
        """
        loss = self.val_loss.compute()
        self.val_loss.reset()
        self.log("val/loss", loss, prog_bar=True)
        self.log("val/perplexity", loss.exp())
        if self.common_loss.update_called:
            self.log("val/common_loss", self.common_loss.compute())
            self.common_loss.reset()

    def on_train_epoch_start(self) -> None:
        """Start the epoch's dropout from seed, epoch and device alone: a resumed run goes on as if never stopped."""
        seed = self.optimisation.seed + 1_000_003 * self.current_epoch + 7_919 * self.global_rank
        lightning.seed_everything(seed % 2**31, verbose=False)

    def configure_optimizers(self) -> Any:
        """AdamW over all that will ever train, with warm-up and cosine per step."""
        parts = self.unfreezing.ever_trained(self.captioner)
        groups = self.parameter_groups(parts)
        return scheduled(groups, self.optimisation, int(self.trainer.estimated_stepping_batches))

    def parameter_groups(self, parts: list[nn.Module]) -> list[dict[str, Any]]:
        """Return the parameters of parts in up to four groups: the mapper's or not, decayed or not."""
        wanted = {id(parameter) for part in parts for parameter in part.parameters()}
        tables = {id(part.weight) for part in self.captioner.modules() if isinstance(part, nn.Embedding)}
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.captioner.named_parameters():
            if id(parameter) in wanted:
                key = name.startswith("mapper."), id(parameter) not in tables and is_decayed(name, parameter)
                groups.setdefault(key, []).append(parameter)
        rate, decay = self.optimisation.learning_rate, self.optimisation.weight_decay
        return [
            {
                "params": parameters,
                "lr": rate * self.optimisation.mapper_factor if of_mapper else rate,
                "weight_decay": decay if decayed else 0.0,
            }
            for (of_mapper, decayed), parameters in groups.items()
        ]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what has a place of its own, and add what was measured last."""
        left_out = ("val_loss.", "common_loss.") + ((PREFIX + "backbone.",) if self._tower_has_a_place() else ())
        tied = PREFIX + output_key(self.captioner)  # kept once
        checkpoint["state_dict"] = {
            key: value.detach()
            for key, value in checkpoint["state_dict"].items()
            if not key.startswith(left_out) and key != tied
        }
        checkpoint["backbone_fingerprint"] = self.fingerprint
        measured = self.trainer.callback_metrics
        checkpoint["measured"] = {key: float(value) for key, value in measured.items() if key.startswith("val/")}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse what does not fit.

        Raises:
            UserError: The tower at hand is not the one of the checkpoint, or a weight is missing or unknown.
        """
        backbone = self.captioner.backbone
        if self._tower_has_a_place() and checkpoint["backbone_fingerprint"] != self.fingerprint:
            raise UserError(f"the checkpoint was trained on another {backbone.name} tower than the one at hand")
        if "state_dict" not in checkpoint:  # a sharded model has taken the weights already
            return
        given = {key for key in checkpoint["state_dict"] if not key.startswith(PREFIX + "backbone.")}
        tied = PREFIX + output_key(self.captioner)
        wanted = {key for key in self.state_dict() if not key.startswith(PREFIX + "backbone.") and key != tied}
        if given != wanted:
            odd = sorted(given ^ wanted)[:3]
            raise UserError(f"the checkpoint does not fit this captioner: missing or unknown {', '.join(odd)}")

    def _tower_has_a_place(self) -> bool:
        return self.captioner.backbone.source is not None


def captioner_state(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Return the captioner's weights in a checkpoint, as ``load_state`` takes them."""
    return {
        key.removeprefix(PREFIX): value for key, value in checkpoint["state_dict"].items() if key.startswith(PREFIX)
    }
