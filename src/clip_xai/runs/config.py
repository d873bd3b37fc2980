"""Shape and type of every setting; the values stand in ``conf/``.

One dataclass for one configuration group. Hydra checks each YAML file and each override against them, and the jobs
receive plain instances of them, so that a job can be run from Python without Hydra:
``train(TrainConfig(...))``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from clip_xai.errors import UserError
from clip_xai.runs.explainer_settings import XaiConfig


@dataclass
class BackboneConfig:
    """Which CLIP looks at the photograph.

    Attributes:
        name: The backbone's name, by which runs are found again.
        architecture: ``tiny`` or a model name of open_clip.
        pretrained: ``embedded:tiny``, ``hf-hub:ORGANISATION/MODEL``, a folder in open_clip's format, a file of weights,
            or null for random weights.
    """

    name: str = MISSING
    architecture: str = MISSING
    pretrained: str | None = None


@dataclass
class MapperConfig:
    """How image features become the prefix of the language model. What is null keeps the mapper's own default.

    Attributes:
        name: ``resampler`` reads patch tokens, ``bottleneck_mlp`` the pooled embedding.
        prefix_length: Number of prefix vectors.
        dropout: Probability of dropping an activation while training.
        layers: Layers of the resampler.
        head_width: Width of one attention head of the resampler.
        hidden: Inner width of the bottleneck.
    """

    name: str = MISSING
    prefix_length: int = 12
    dropout: float = 0.0
    layers: int | None = None
    head_width: int | None = None
    hidden: int | None = None


@dataclass
class LanguageModelConfig:
    """Which GPT-2 writes the caption.

    Attributes:
        name: ``tiny`` or a published size (``gpt2``, ``gpt2-medium`` ...).
        pretrained: ``embedded:tiny``, a hub name, a folder in the transformers format, or null for random weights.
        prompt: Text between the image's prefix and the caption.
    """

    name: str = MISSING
    pretrained: str | None = None
    prompt: str = ""


@dataclass
class StageConfig:
    """One stage of training.

    Attributes:
        number: 1 ('adaptation') or 2 ('language').
        name: What the stage is called.
        starts_from: Number of the stage whose checkpoint this one starts from, or null.
        sources: The sources trained on, or null for all.
        replay: Share of the other sources' training records mixed in, drawn anew each epoch.
        trains: What trains from the first step: ``mapper``, ``embeddings`` (the language model's token and position
            tables).
        unfreeze: How many of the language model's last blocks train in epoch 0, 1 ...; the last entry holds on.
        epochs: Passes over the training records.
        batch_size: Records per step.
        learning_rate: Peak learning rate.
        mapper_learning_rate_factor: The mapper's learning rate is this times ``learning_rate``.
        weight_decay: AdamW's decay of matrices (never of biases, norms and embeddings).
        warmup: Share of all steps over which the learning rate rises; then it falls along a cosine.
        label_smoothing: In the training loss only.
        gradient_clip: Largest gradient norm.
    """

    number: int = MISSING
    name: str = MISSING
    starts_from: int | None = None
    sources: list[str] | None = None
    replay: float = 0.0
    trains: list[str] = field(default_factory=lambda: ["mapper"])
    unfreeze: list[int] = field(default_factory=list)
    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 1e-3
    mapper_learning_rate_factor: float = 1.0
    weight_decay: float = 0.01
    warmup: float = 0.06
    label_smoothing: float = 0.0
    gradient_clip: float = 1.0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.trains) - {"mapper", "embeddings"})
        if unknown:
            raise UserError(f"stage.trains: {', '.join(unknown)} is not one of mapper, embeddings")
        if not 0 <= self.replay <= 1:
            raise UserError(f"stage.replay: {self.replay} is not between 0 and 1")


@dataclass
class SyntheticConfig:
    """How the miniature is drawn where ``data.root`` does not exist yet.

    Attributes:
        seed: Same seed, same pictures.
        scale: Share of DermaCAP's composition (0.1: 2,277 photographs).
        height: Pixels.
        width: Pixels.
    """

    seed: int = 0
    scale: float = 0.1
    height: int = 192
    width: int = 256


@dataclass
class DataConfig:
    """Which photographs.

    Attributes:
        name: A name for the log.
        root: Directory with the sources, each in its publisher's layout.
        output_dir: Where the manifest and its report are written.
        cache_dir: Where frozen features are kept.
        synthetic: How to draw the sources where ``root`` does not exist; null for real data.
        captions: Caption policy: ``visible`` (what a photograph can show), ``clinical`` (with the diagnosis) or
            ``fields`` (every field as 'Label: value').
        split: Scheme of the splits: ``stratified``, ``official``, ``skincap_holdout``, ``leave_one_source_out`` or
            ``kfold``.
        seed: Seed of the split.
        fractions: Split -> share of the groups.
        held_out: The source that ``leave_one_source_out`` tests on.
        folds: Number of folds of ``kfold``.
        fold: Which of them is tested on; the one after it validates.
        near_bits: Photographs may look alike when their 64-bit perceptual hashes differ in at most this many bits;
            null leaves looks out.
        near_difference: ... and when their thumbnails differ by at most this (root mean square, of 255 levels).
        workers: Files looked at side by side; null for the number of cores.
        limit: At most this many records of each split, or null for all.
        max_tokens: Captions are cut after this many tokens (the end-of-text token included).
    """

    name: str = MISSING
    root: str = MISSING
    output_dir: str = MISSING
    cache_dir: str = MISSING
    synthetic: SyntheticConfig | None = None
    captions: str = "clinical"
    split: str = "stratified"
    seed: int = 0
    fractions: dict[str, float] = field(default_factory=lambda: {"train": 0.75, "val": 0.1, "test": 0.15})
    held_out: str | None = None
    folds: int = 5
    fold: int = 0
    near_bits: int | None = 6
    near_difference: float = 6.0
    workers: int | None = None
    limit: int | None = None
    max_tokens: int = 96


@dataclass
class TrainerConfig:
    """The machine and the precision.

    Attributes:
        accelerator: ``auto``, ``cpu``, ``gpu`` ...
        devices: How many.
        precision: Lightning's name of it (``32-true``, ``bf16-mixed`` ...).
        feature_batch_size: Photographs per step through the frozen backbone.
        limit_train_batches: At most this many steps per epoch, or null for all.
        limit_val_batches: At most this many validation steps, or null for all.
        log_every_n_steps: Steps between two logged training losses.
    """

    accelerator: str = "auto"
    devices: int = 1
    precision: str = "32-true"
    feature_batch_size: int = 64
    limit_train_batches: int | None = None
    limit_val_batches: int | None = None
    log_every_n_steps: int = 10


@dataclass
class LoggerConfig:
    """Where losses, metrics and tables go.

    Attributes:
        wandb: Weights & Biases; offline unless the environment variable ``WANDB_MODE`` says otherwise.
        csv: A ``metrics.csv`` in the run directory.
        project: The W&B project.
        group: The W&B group, or null.
        tags: Words to find the run by.
    """

    wandb: bool = True
    csv: bool = False
    project: str = "clip-xai"
    group: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass
class CallbacksConfig:
    """What happens beside the training steps.

    Attributes:
        progress_bar: Show one.
        sample_captions: How many captions of validation photographs are written when training ends.
        patience: Stop after this many epochs without a lower validation loss, or null to go on to the end.
    """

    progress_bar: bool = True
    sample_captions: int = 8
    patience: int | None = None


@dataclass
class GenerationConfig:
    """How captions are decoded; the settings of :class:`clip_xai.models.captioner.Decoding` and the batch size.

    Attributes:
        beams: 1 is greedy search.
        max_new_tokens: Most tokens in a caption.
        min_new_tokens: Fewest tokens in a caption.
        length_penalty: Exponent of the length by which a beam's log-probability is divided.
        no_repeat_ngram_size: No n-gram of this size occurs twice; 0 allows all.
        repetition_penalty: 1 changes nothing.
        batch_size: Photographs per step.
    """

    beams: int = 1
    max_new_tokens: int = 80
    min_new_tokens: int = 0
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0
    batch_size: int = 64


@dataclass
class TargetConfig:
    """What is explained.

    Attributes:
        names: ``caption`` (the log-probability of each word) and ``similarity`` (image and text), one or both.
        kind: The similarity: ``cosine``, ``dot`` or ``logit``.
    """

    names: list[str] = field(default_factory=lambda: ["caption", "similarity"])
    kind: str = "cosine"

    def __post_init__(self) -> None:
        unknown = sorted(set(self.names) - {"caption", "similarity"})
        if unknown or not self.names:
            raise UserError(f"target.names: {self.names} must hold caption, similarity or both")
        if self.kind not in ("cosine", "dot", "logit"):
            raise UserError(f"target.kind: {self.kind} is not one of cosine, dot, logit")


@dataclass
class TrainConfig:
    """The job ``train``.

    Attributes:
        init_from: Weights to start from: a run directory, a checkpoint or an exported model; null for the newest run of
            the stage that this one starts from.
        ckpt_path: ``last`` or a checkpoint to resume exactly; null to start anew.
        seed: Seed of everything random.
        runs_root: Directory of all runs.
        run_dir: This run's directory.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    mapper: MapperConfig = field(default_factory=MapperConfig)
    language_model: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    stage: StageConfig = field(default_factory=StageConfig)
    data: DataConfig = field(default_factory=DataConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    init_from: str | None = None
    ckpt_path: str | None = None
    seed: int = 42
    runs_root: str = "runs"
    run_dir: str = MISSING


@dataclass
class EvaluateConfig:
    """The job ``evaluate``.

    Attributes:
        ckpt: ``latest``, a run directory, a checkpoint's path or an exported model's directory.
        split: The records judged (``val``, ``test``, ``train`` or ``all``).
        bert_score: The scorer's model directory, or null to leave BERTScore out by name.
        clip_score: ``own`` for the captioner's own CLIP, or null to leave CLIPScore out by name.
        bootstrap: Number of resamples behind each interval.
    """

    data: DataConfig = field(default_factory=DataConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    ckpt: str = "latest"
    split: str = "test"
    bert_score: str | None = None
    clip_score: str | None = "own"
    bootstrap: int = 1000
    seed: int = 42
    runs_root: str = "runs"
    run_dir: str = MISSING


@dataclass
class ExplainConfig:
    """The job ``explain``.

    Attributes:
        ckpt: As in ``evaluate``.
        image: A photograph or a directory of photographs; null for records of the data set.
        text: What similarity is measured with; null for the generated caption.
        split: The records explained where no image is given.
        samples: How many records.
    """

    data: DataConfig = field(default_factory=DataConfig)
    xai: XaiConfig = field(default_factory=XaiConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    ckpt: str = "latest"
    image: str | None = None
    text: str | None = None
    split: str = "test"
    samples: int = 16
    seed: int = 42
    runs_root: str = "runs"
    run_dir: str = MISSING


SCHEMAS: dict[str, type] = {"train": TrainConfig, "evaluate": EvaluateConfig, "explain": ExplainConfig}


def register_schemas() -> None:
    """Make the schemas known to Hydra under ``train_schema``, ``evaluate_schema`` and ``explain_schema``."""
    for job, schema in SCHEMAS.items():
        ConfigStore.instance().store(name=f"{job}_schema", node=schema)
