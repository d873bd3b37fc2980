"""Shape and type of what training is told: the stage, the machine, the callbacks, the search."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from omegaconf import MISSING

from clip_xai.errors import UserError
from clip_xai.ranges import SEEDS, Checked, setting

CONTRASTIVE = 0  # the stage that trains a backbone on pairs of photographs and captions
CAPTIONER_PARTS = ("mapper", "embeddings", "token_embeddings", "lora", "final_norm")
BACKBONE_PARTS = ("image", "text", "temperature")
STRATEGIES = ("auto", "ddp", "fsdp")
PROFILERS = ("simple", "advanced", "pytorch")
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")


@dataclass
class StageConfig(Checked):
    """One stage of training.

    Attributes:
        number: 0 (``contrastive``: a backbone meets its captions), 1 (``adaptation``) or 2 (``language``).
        name: What the stage is called.
        task: The task that it is a stage of.
        starts_from: Number of the stage whose checkpoint this one starts from, or null.
        sources: The sources trained on; null for those it prefers.
        prefers: The sources that the stage trains on where the data has photographs of them; where it has none of them,
            and for null, on all.
        replay: Share of the other sources' training records mixed in, drawn anew each epoch.
        trains: What trains from the first step. Stages 1 and 2: ``mapper``; ``embeddings`` (the language model's token
            and position tables) or ``token_embeddings`` alone, which are its output layer too; ``lora`` (its adapters);
            ``final_norm``. Stage 0: ``image``, ``text``, ``temperature``.
        unfreeze: How many last blocks train in epoch 0, 1 ...; the last entry holds on. Of the language model; in
            stage 0 of the towers that ``trains`` names, which train whole where the list is empty.
        epochs: Passes over the training records.
        batch_size: Records per step of the optimiser, over all devices and accumulated batches: the same training
            whatever the machine.
        learning_rate: Peak learning rate.
        mapper_learning_rate_factor: The mapper's learning rate is this times ``learning_rate``.
        weight_decay: AdamW's decay of matrices (never of biases, norms and embeddings).
        warmup: Share of all steps over which the learning rate rises; then it falls along a cosine.
        warmup_steps: The rise takes at least so many steps.
        label_smoothing: In the training loss only.
        supervise_padding: Teach the end marker at every padded position, as the original captioner does; its loss then
            depends on how a batch is padded.
        gradient_clip: Largest gradient norm; null for any.
        decay: Decay of an exponential moving average of the weights, which is then what is judged and kept; or null.
    """

    prefix: ClassVar[str] = "stage"

    number: int = MISSING
    name: str = MISSING
    task: str = "captions"
    starts_from: int | None = None
    sources: list[str] | None = None
    prefers: list[str] | None = None
    replay: float = setting(0.0, least=0, most=1)
    trains: list[str] = field(default_factory=lambda: ["mapper"])
    unfreeze: list[int] = setting(factory=list, least=0)
    epochs: int = setting(5, least=1)
    batch_size: int = setting(32, least=1)
    learning_rate: float = setting(1e-3, least=0)
    mapper_learning_rate_factor: float = setting(1.0, least=0)
    weight_decay: float = setting(0.01, least=0)
    warmup: float = setting(0.06, least=0, most=1)
    warmup_steps: int = setting(0, least=0)
    label_smoothing: float = setting(0.0, least=0, below=1)
    supervise_padding: bool = False
    gradient_clip: float | None = setting(1.0, above=0)
    decay: float | None = setting(None, above=0, below=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task != "captions":
            return  # the task knows its own parts
        known = BACKBONE_PARTS if self.number == CONTRASTIVE else CAPTIONER_PARTS
        unknown = sorted(set(self.trains) - set(known))
        if unknown:
            raise UserError(f"stage.trains: {', '.join(unknown)} is not one of {', '.join(known)}")


@dataclass
class TaskConfig(Checked):
    """What a model is trained for. A task with settings of its own has a subclass of this.

    Attributes:
        name: ``captions`` or ``classify``.
        run_name: What the run's directory is called behind its date.
    """

    prefix: ClassVar[str] = "task"

    name: str = MISSING
    run_name: str = MISSING


@dataclass
class ClassifyConfig(TaskConfig):
    """Classes of photographs: a head on a vision tower that is frozen or trains with it.

    Attributes:
        labels: The classes, in order; null for all that the training records state.
        of: What is classified: ``labels``, ``diagnosis`` or ``malignancy``; null for labels where the data states any,
            else the diagnosis.
        multilabel: Whether a photograph can show several classes at once, or exactly one; null to tell from the data.
        head: ``linear`` on the pooled embedding, or ``attention_pool`` over the patch tokens.
        uncertain: What an uncertain label counts for: ``ignored``, ``present`` or ``absent``.
        balanced: Weigh classes against how often they occur.
        layer_decay: Each block of a tower that trains has this times the learning rate of the next one.
        head_learning_rate_factor: The head's learning rate is this times ``stage.learning_rate``.
        flip: While a tower trains, mirror half of the photographs; wrong where left and right matter.
        shift: ... and move each by whole pixels, up to this share of its side.
    """

    labels: list[str] | None = None
    of: str | None = setting(None, one_of=("labels", "diagnosis", "malignancy"))
    multilabel: bool | None = None
    head: str = setting("linear", one_of=("linear", "attention_pool"))
    uncertain: str = setting("ignored", one_of=("ignored", "present", "absent"))
    balanced: bool = False
    layer_decay: float = setting(1.0, above=0, most=1)
    head_learning_rate_factor: float = setting(1.0, above=0)
    flip: bool = False
    shift: float = setting(0.0, least=0, below=0.5)


@dataclass
class TrainerConfig(Checked):
    """The machine and the precision.

    Attributes:
        accelerator: ``auto``, ``cpu``, ``gpu`` (the first kind that is there), ``cuda`` or ``mps``.
        devices: How many on each node.
        num_nodes: How many nodes.
        strategy: ``auto`` (one device), ``ddp`` (the model whole on each device) or ``fsdp`` (sharded over them).
        precision: Lightning's name of it: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        accumulate_grad_batches: A step's records are cut into so many batches on each device, one after the other.
        length_bucket: Captions of like length share a step, padded to a multiple of this; null mixes lengths. Mixed
            steps cost time, sorted ones accuracy where there are few of them (the miniature has 54 an epoch).
        feature_batch_size: Photographs per step through the frozen backbone.
        workers: Processes that read photographs beside the training in stage 0; later stages read features.
        limit_train_batches: At most this many steps per epoch, or null for all.
        limit_val_batches: At most this many validation steps, or null for all.
        log_every_n_steps: Steps between two logged training losses.
        validate_on: ``val``, or ``train`` to see whether a model can learn a few photographs by heart. The split that
            is reported never chooses a checkpoint.
        profiler: ``simple``, ``advanced`` or ``pytorch``, written into the run directory; null for none.
    """

    prefix: ClassVar[str] = "trainer"

    accelerator: str = setting("auto", one_of=ACCELERATORS)
    devices: int = setting(1, least=1)
    num_nodes: int = setting(1, least=1)
    strategy: str = setting("auto", one_of=STRATEGIES)
    precision: str = setting("32-true", one_of=PRECISIONS)
    accumulate_grad_batches: int = setting(1, least=1)
    length_bucket: int | None = setting(None, least=1)
    feature_batch_size: int = setting(64, least=1)
    workers: int = setting(0, least=0)
    limit_train_batches: int | None = setting(None, least=1)
    limit_val_batches: int | None = setting(None, least=1)
    log_every_n_steps: int = setting(10, least=1)
    validate_on: str = "val"
    profiler: str | None = setting(None, one_of=PROFILERS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.validate_on == "test":
            raise UserError(
                "trainer.validate_on=test: the split that is reported must not choose a checkpoint; use val"
            )
        if self.validate_on not in ("val", "train"):
            raise UserError(f"trainer.validate_on: {self.validate_on} is not one of val, train")
        if self.strategy == "auto" and self.devices * self.num_nodes > 1:
            raise UserError(
                "trainer.devices: several devices need trainer=ddp (or trainer=fsdp for models too large for one)"
            )

    @property
    def world_size(self) -> int:
        """Devices of all nodes."""
        return self.devices * self.num_nodes


@dataclass
class CallbacksConfig(Checked):
    """What happens beside the training steps.

    Attributes:
        progress_bar: Show one.
        sample_captions: How many captions of validation photographs are written when training ends.
        patience: Stop after this many epochs without a better ``monitor``, or null to go on to the end; where it
            is a score of captions, only epochs that score them count.
        monitor: What chooses the best checkpoint, and stops early: ``val/loss``, ``val/common_loss``, or where
            ``score_captions`` is set ``val/rouge_l`` or ``val/bleu``
        mode: ``min`` or ``max``: which values of ``monitor`` are good.
        score_captions: Every so many epochs, captions of some validation photographs are written and scored; null for
            never.
        scored_photographs: How many.
    """

    prefix: ClassVar[str] = "callbacks"

    progress_bar: bool = True
    sample_captions: int = setting(8, least=0)
    patience: int | None = setting(None, least=1)
    monitor: str = "val/loss"
    mode: str = setting("min", one_of=("min", "max"))
    score_captions: int | None = setting(None, least=1)
    scored_photographs: int = setting(64, least=1)


@dataclass
class SearchConfig(Checked):
    """A search for good settings with Optuna; every trial is a training run of its own.

    Attributes:
        name: Name of the study; the same name goes on with it.
        storage: The study's database, such as ``sqlite:///runs/search.db``; null for ``<runs_root>/search.db``.
        trials: Trials of the study, finished ones included.
        seed: Seed of the sampler.
        startup_trials: Trials drawn at random before the sampler learns from them, and before any is pruned.
        prune_after: Epochs that every trial may run; later ones stop a trial whose monitored value is worse than the
            median. Null prunes none.
        space: Setting -> ``{low, high}`` with optional ``log: true`` or ``step``, or ``{choices: [...]}``. A choice may
            be an option of a group, such as ``mapper``.
    """

    prefix: ClassVar[str] = "hparams_search"

    name: str = setting("search", free_text=True)
    storage: str | None = setting(None, free_text=True)
    trials: int = setting(20, least=1)
    seed: int = setting(0, least=0, most=SEEDS)
    startup_trials: int = setting(5, least=0)
    prune_after: int | None = setting(1, least=0)
    space: dict[str, Any] = field(default_factory=dict)
