"""Shape and type of every setting; the values stand in ``conf/``.

One dataclass for one configuration group. Hydra checks each YAML file and each override against them, and the jobs
receive plain instances of them, so that a job can be run from Python without Hydra:
``train(TrainConfig(...))``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, is_dataclass
from typing import Any, ClassVar

from omegaconf import MISSING

from clip_xai.config.explainer_settings import XaiConfig
from clip_xai.config.mapper_settings import MapperConfig
from clip_xai.config.protocol_settings import ProtocolConfig
from clip_xai.config.target_settings import TARGETS, TargetSettings
from clip_xai.config.training_settings import (
    CallbacksConfig,
    ClassifyConfig,
    SearchConfig,
    StageConfig,
    TaskConfig,
    TrainerConfig,
)
from clip_xai.data.settings import BuildSettings
from clip_xai.data.vocabulary import require_known
from clip_xai.errors import UserError
from clip_xai.models.backbones.source import BackboneSource
from clip_xai.models.settings import TEMPLATE, Decoding
from clip_xai.ranges import SEEDS, Checked, check, setting

CURVES = ("default", "rise", "abs_cam_study", "gradeclip", "chest_study", "token_drop", "mean", "blur", "road")
EVIDENCE = ("wholes", "words", "none")


@dataclass
class BackboneConfig(BackboneSource):
    """Which CLIP or classifier sees the photograph; see :class:`clip_xai.models.backbones.source.BackboneSource`."""

    name: str = MISSING
    architecture: str = MISSING


@dataclass
class LoraConfig(Checked):
    """Low-rank adapters beside the language model's frozen matrices (LoRA, arXiv 2106.09685).

    Attributes:
        rank: Of each adapter.
        alpha: Adapters are scaled by alpha over rank.
        dropout: Before each adapter, while training.
        last_blocks: Only so many last blocks have adapters; null gives them to all.
        targets: The matrices of a block that have adapters.
    """

    prefix: ClassVar[str] = "language_model.lora"

    rank: int = setting(16, least=1)
    alpha: int = setting(16, least=1)
    dropout: float = setting(0.05, least=0, below=1)
    last_blocks: int | None = setting(None, least=1)
    targets: list[str] = field(default_factory=lambda: ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"])


@dataclass
class LanguageModelConfig(Checked):
    """Which GPT-2 writes the caption.

    Attributes:
        name: ``tiny`` or a published size (``gpt2``, ``gpt2-medium`` ...).
        pretrained: ``embedded:tiny``, a hub name, a folder in the transformers format, or null for random weights.
        prompt: Text between the image's prefix and the caption.
        lora: Adapters, which ``stage.trains`` calls ``lora``; null for none.
        retrieved_captions: So many captions of the most similar training photographs make each photograph's prompt,
            none of its own patient or lesion (SmallCap, arXiv 2209.15323); 0 for none. They take positions that
            ``tiny`` does not have.
        retrieval_template: That prompt, with ``{captions}`` where they stand.
    """

    prefix: ClassVar[str] = "language_model"

    name: str = MISSING
    pretrained: str | None = setting(None, path=True)
    prompt: str = setting("", free_text=True)
    lora: LoraConfig | None = None
    retrieved_captions: int = setting(0, least=0)
    retrieval_template: str = setting(TEMPLATE, free_text=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if "{captions}" not in self.retrieval_template:
            raise UserError(f"language_model.retrieval_template: {self.retrieval_template!r} has no {{captions}}")
        if self.retrieved_captions and self.prompt:
            raise UserError(
                "language_model.prompt has no place beside retrieved captions: put its text into "
                "language_model.retrieval_template"
            )


@dataclass
class SyntheticConfig(Checked):
    """How pictures are drawn where ``data.root`` does not exist yet.

    Attributes:
        kind: ``dermacap``, skin in the layouts of six data sets; ``chest``, radiographs in that of ChestX-ray14; or
            ``folder``, four classes of water fleas in a folder each.
        seed: Same seed, same pictures.
        scale: Of ``dermacap``: share of DermaCAP's composition (0.1: 2,277 photographs).
        height: Of ``dermacap``, in pixels.
        width: Likewise.
        size: Of the others: side of a picture in pixels.
        patients: Of ``chest``: they have 2.05 radiographs on average.
        tube: Of ``chest``: how strongly a chest tube goes with Pneumothorax, from 0 (independent) to 1.
        hospital: Of ``chest``: how strongly one hospital's marker goes with Effusion, likewise.
        test_share: Of ``chest``: share of the patients in the official test list.
        train: Of ``folder``: images of each class to train with.
        test: Likewise, to be judged by.
    """

    prefix: ClassVar[str] = "data.synthetic"

    kind: str = setting("dermacap", one_of=("dermacap", "chest", "folder"))
    seed: int = setting(0, least=0, most=SEEDS)
    scale: float = setting(0.1, above=0, most=10)
    height: int = setting(192, least=64)
    width: int = setting(256, least=64)
    size: int = setting(128, least=32, most=2048)
    patients: int = setting(400, least=2)
    tube: float = setting(0.0, least=0, most=1)
    hospital: float = setting(0.0, least=0, most=1)
    test_share: float = setting(0.23, least=0, most=1)
    train: int = setting(200, least=1)
    test: int = setting(50, least=1)


@dataclass
class DataConfig(BuildSettings):
    """Which photographs; see :class:`clip_xai.data.settings.BuildSettings` for what the manifest depends on.

    Attributes:
        name: A name for the log.
        root: Directory with the sources, each in its publisher's layout.
        output_dir: Where the manifest and its report are written.
        cache_dir: Where frozen features are kept.
        synthetic: How to draw the sources where ``root`` does not exist; null for real data.
        limit: At most this many records of each split, or null for all.
        draw_references: While training, draw one of a record's references anew each epoch; else take always the first.
        max_tokens: Captions are cut after this many tokens (the end-of-text token included).
    """

    name: str = MISSING
    root: str = setting(MISSING, path=True)
    output_dir: str = setting(MISSING, path=True)
    cache_dir: str = setting(MISSING, path=True)
    synthetic: SyntheticConfig | None = None
    limit: int | None = setting(None, least=1)
    draw_references: bool = True
    max_tokens: int = setting(96, least=2)

    def __post_init__(self) -> None:
        # How settings go together is a matter of the data that are meant, which a run may hold.
        check(self, self.prefix)
        require_known(self.vocabulary)


@dataclass
class DataOfTheRun(DataConfig):
    """The data of the run that trained the captioner, but for some settings.

    Attributes:
        changed: Names of the settings that are other than the run's; all others of this object count for nothing.
    """

    changed: list[str] = field(default_factory=list)


@dataclass
class LoggerConfig(Checked):
    """Where losses, metrics and tables go.

    Attributes:
        wandb: Weights & Biases; offline unless the environment variable ``WANDB_MODE`` says otherwise.
        csv: A ``metrics.csv`` in the run directory.
        project: The W&B project.
        group: The W&B group, or null.
        tags: Words to find the run by.
    """

    prefix: ClassVar[str] = "logger"

    wandb: bool = True
    csv: bool = False
    project: str = setting("clip-xai", free_text=True)
    group: str | None = setting(None, free_text=True)
    tags: list[str] = field(default_factory=list)


@dataclass
class GenerationConfig(Decoding):
    """How captions are decoded; see :class:`clip_xai.models.settings.Decoding` for all but the batch size.

    Attributes:
        batch_size: Photographs per step.
    """

    batch_size: int = setting(64, least=1)


@dataclass
class TargetConfig(TargetSettings):
    """What is explained; see :class:`clip_xai.config.target_settings.TargetSettings`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.names:
            raise UserError(f"target.names=[]: choose some of {', '.join(TARGETS)}")
        for name in ("against", "classes", "templates"):
            if not all(text.strip() for text in getattr(self, name) or ()):
                raise UserError(f"target.{name} has a blank text in it: leave that out")
        for name in ("word", "span"):
            if getattr(self, name) is not None and not getattr(self, name).strip():
                raise UserError(f"target.{name} is blank: name words of the caption, or leave it out")


@dataclass
class TrainConfig(Checked):
    """The job ``train``.

    Attributes:
        plugins: Modules of one's own that register explainers, mappers ...; the working directory is searched, too.
        hparams_search: A search for settings, each trial a run of its own; null for one run.
        init_from: Weights to start from: a run directory, a checkpoint or an exported model; null for the newest run of
            the stage that this one starts from.
        ckpt_path: ``last`` or a checkpoint to resume exactly; null to start anew. Only ``stage.epochs``, ``trainer``,
            ``logger`` and ``callbacks`` may be other than they were.
        allow_overlap: Start even from weights that were trained on photographs of this run's val or test split.
        debug: Which ``debug=`` this is, if any; such a run is found by other debug runs only.
        seed: Seed of everything random.
        runs_root: Directory of all runs.
        run_dir: This run's directory.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    mapper: MapperConfig | None = None
    language_model: LanguageModelConfig | None = None
    stage: StageConfig = field(default_factory=StageConfig)
    data: DataConfig = field(default_factory=DataConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    task: TaskConfig = field(default_factory=lambda: TaskConfig("captions", "captions"))
    hparams_search: SearchConfig | None = None
    init_from: str | None = setting(None, path=True)
    ckpt_path: str | None = setting(None, path=True)
    allow_overlap: bool = False
    debug: str | None = None
    seed: int = setting(42, least=0, most=SEEDS)
    plugins: list[str] = field(default_factory=list)
    runs_root: str = setting("runs", path=True)
    run_dir: str = setting(MISSING, path=True)


@dataclass
class EvaluateConfig(Checked):
    """The job ``evaluate``.

    Attributes:
        plugins: Modules of one's own that register explainers, mappers ...; the working directory is searched, too.
        backbone: Of ``task=explanations``: a CLIP by itself; null for the model of ``ckpt``.
        data: Which photographs; null for the data of the run that trained the captioner. ``data.NAME=VALUE`` without
            ``data=`` takes those with another setting.
        ckpt: ``latest``, a run directory, a checkpoint's path or an exported model's directory.
        trained_for: The task that the model must be trained for, on the command line ``task=NAME``; null for any.
            ``task=explanations`` judges explainers on a model of any task.
        protocol: Of ``task=explanations``: how explainers are judged.
        xai: Of ``task=explanations``: which explainers.
        split: The records judged (``val``, ``test``, ``train`` or ``all``).
        allow_overlap: Judge even on photographs that the captioner, or what it started from, was trained on.
        bert_score: The scorer's model directory, or null to leave BERTScore out by name.
        clip_score: ``own`` for the captioner's own CLIP, or null to leave CLIPScore out by name.
        tokenizer: How BLEU and ROUGE cut captions into tokens: ``auto`` for each caption by the script of its
            references, or one of sacrebleu's, such as ``13a``, ``zh``, ``ja-mecab`` or ``char``.
        bootstrap: Number of resamples behind each interval.
        ledger: Of captioners: so many captions of which each content word is traced to the photograph or to the words
            before it, on photographs of 32 other patients; 0 for none.
        shortcuts: Of classifiers: fields of the records, such as the hospital, by which they might tell the classes.
        attributes: A table of more of them: ``.csv`` or ``.parquet`` with a column ``image``.
    """

    backbone: BackboneConfig | None = None
    data: DataConfig | None = None
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    xai: XaiConfig = field(default_factory=XaiConfig)
    ckpt: str = setting("latest", path=True)
    trained_for: str | None = None
    split: str = "test"
    allow_overlap: bool = False
    bert_score: str | None = setting(None, path=True)
    clip_score: str | None = setting("own", one_of=("own",))
    tokenizer: str = "auto"
    bootstrap: int = setting(1000, least=20)
    ledger: int = setting(32, least=0)
    shortcuts: list[str] = field(default_factory=list)
    attributes: str | None = setting(None, path=True)
    seed: int = setting(42, least=0, most=SEEDS)
    plugins: list[str] = field(default_factory=list)
    runs_root: str = setting("runs", path=True)
    run_dir: str = setting(MISSING, path=True)


@dataclass
class ExplainConfig(Checked):
    """The job ``explain``.

    Attributes:
        plugins: Modules of one's own that register explainers, mappers ...; the working directory is searched, too.
        backbone: A CLIP or classifier to explain by itself, without a checkpoint and captions; null for a captioner's.
        data: As in ``evaluate``, where no image is given; of a CLIP by itself they have to be named.
        ckpt: As in ``evaluate``; not looked at where a backbone is chosen.
        trained_for: As in ``evaluate``.
        image: A photograph or a directory of photographs; null for records of the data set.
        text: What similarity is measured with, one text or a list of them; null for the generated caption.
        split: The records explained where no image is given.
        samples: How many records.
        curves: Insertion and deletion curves of the maps, beside random ones: the name of a protocol; null for none.
        ledger: Of captioners: photographs of so many other patients, on which it is measured whether each content word
            rests on the photograph or on the words before it; 0 for none.
        evidence: Whether each map beats random maps and maps that never saw the model: ``wholes`` for the diagnosis,
            the whole caption, texts and classes, ``words`` for single words of the caption, too; ``none``.
    """

    backbone: BackboneConfig | None = None
    data: DataConfig | None = None
    xai: XaiConfig = field(default_factory=XaiConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    ckpt: str = setting("latest", path=True)
    trained_for: str | None = None
    image: str | None = setting(None, path=True)
    text: Any = setting(None, free_text=True)
    split: str = "test"
    samples: int = setting(16, least=1)
    curves: str | None = setting(None, one_of=CURVES)
    ledger: int = setting(16, least=0)
    evidence: str = setting("wholes", one_of=EVIDENCE)
    seed: int = setting(42, least=0, most=SEEDS)
    plugins: list[str] = field(default_factory=list)
    runs_root: str = setting("runs", path=True)
    run_dir: str = setting(MISSING, path=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        texts = self.text if isinstance(self.text, (list, tuple)) else [] if self.text is None else [self.text]
        if not all(isinstance(text, str) for text in texts):
            raise UserError(f"text: {self.text} is no text and no list of texts")
        if self.text is not None and not (texts and all(text.strip() for text in texts)):
            raise UserError('text= is blank: give a text, as in text="words to look for", or leave it out')


SCHEMAS: dict[str, type] = {"train": TrainConfig, "evaluate": EvaluateConfig, "explain": ExplainConfig}


TASKS: dict[str, type[TaskConfig]] = {"captions": TaskConfig, "classify": ClassifyConfig}


def dataclasses_in(kind: Any) -> list[type]:
    """The dataclasses that a field's type names: itself, or one that may be None; of a task, those of all tasks."""
    found = [part for part in (kind, *getattr(kind, "__args__", ())) if isinstance(part, type) and is_dataclass(part)]
    return [one for part in found for one in ((part,) if part is not TaskConfig else dict.fromkeys(TASKS.values()))]
