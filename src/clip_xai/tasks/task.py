"""The seam between the jobs and what they are about: a task, and one training of it.

The jobs know run directories, checkpoints, loggers, resuming and signals; a task knows its model, its batches, its
measures and its page. A task registers itself where it is defined::

    @tasks.register("captions", title="Captions")
    class Captions(Task): ...

so that a module of one's own adds one, as it adds an explainer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from lightning import Callback, LightningDataModule, LightningModule
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy

from clip_xai.config.chosen import refuse_unused
from clip_xai.config.schemas import BackboneConfig, EvaluateConfig, TrainConfig
from clip_xai.data.record import Record
from clip_xai.data.vocabulary import Vocabulary
from clip_xai.errors import UserError
from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.captioner import Captioner
from clip_xai.models.retrieval import Retrieval
from clip_xai.registry import Registry, load_plugins_of
from clip_xai.runs.checkpoints import RunCard, run_of, task_of
from clip_xai.runs.judged import Judged
from clip_xai.runs.lineage import Lineage
from clip_xai.runs.resuming import Start


@dataclass(frozen=True)
class Provenance:
    """What a run's weights come from: goes into the header of their file.

    Attributes:
        lineage: The photographs that they and all that they started from have learned from.
        vocabulary: The words of the field that they were trained with.
    """

    lineage: Lineage
    vocabulary: Vocabulary

    def after(self, updates: int) -> dict[str, str]:
        """Return it as plain texts, for weights after so many steps of the run."""
        return self.lineage.with_updates(updates).packed() | self.vocabulary.packed()


class Training(ABC):
    """One training run of a task: the job calls its methods in the order in which they stand here.

    Attributes:
        product: What a finished run has in its directory, relative to it.
        set_aside: Photographs that cannot be read, with the reason; known after :meth:`prepare`.
        backbone: The vision tower.
        learned: The records that the weights learn from; known after :meth:`prepare`.
        sizes: How many photographs there are in ``train_photographs`` and ``val_photographs``; after :meth:`prepare`.
        module: The LightningModule; known after :meth:`prepare`.
        data: Its batches; known after :meth:`prepare`.
        judge_first: Whether it is validated before the first step, too.
    """

    product: ClassVar[Path]
    backbone: VisionBackbone
    module: LightningModule
    data: LightningDataModule
    set_aside: dict[str, str]
    learned: list[Record]
    sizes: dict[str, int]
    judge_first: bool = False

    @property
    def measured_every(self) -> int:
        """Epochs between two measurements of ``callbacks.monitor``."""
        return 1

    @abstractmethod
    def prepare(self, start: Start) -> None:
        """Load the weights that the run starts from, read the photographs and make the batches.

        Raises:
            UserError: Weights or data do not fit.
        """

    def write_first(self, run_dir: Path) -> None:  # noqa: B027
        """Write what an unfinished run's checkpoints need beside them; most tasks need nothing."""

    @abstractmethod
    def callbacks(self) -> list[Callback]:
        """Return Lightning's callbacks that belong to the task."""

    @abstractmethod
    def strategy(self) -> str | Strategy:
        """Return Lightning's strategy.

        Raises:
            UserError: It cannot do what else is asked for.
        """

    @abstractmethod
    def finish(self, best: Path, provenance: Provenance, loggers: Sequence[Logger]) -> dict[str, Any]:
        """Export the weights of the best checkpoint; in the first process alone.

        Returns:
            What the task adds to ``metrics.json``.
        """


@dataclass(frozen=True)
class Opened:
    """A trained model that is to be explained.

    Attributes:
        backbone: Its vision tower, with the head that belongs to it where it is a classifier.
        fingerprints: What a run directory notes of its weights, by part.
        words: The model in words: what it is, and its fingerprint.
        captioner: The captioner, where it writes captions.
        retrieval: Makes its prompts, where it retrieves captions.
        of_labels: Whether it answers with labels of a table or of folders, which are of any field.
    """

    backbone: VisionBackbone
    fingerprints: dict[str, str]
    words: str
    captioner: Captioner | None = None
    retrieval: Retrieval | None = None
    of_labels: bool = False

    @classmethod
    def alone(cls, chosen: BackboneConfig) -> Opened:
        """Return the CLIP, or the classifier, that ``backbone=NAME`` chooses, by itself."""
        backbone = build_backbone(**vars(chosen))
        name = backbone.name if chosen.library is None else f"{chosen.architecture} of {backbone.name}"
        name += "" if backbone.source is not None else " at random weights"
        return cls(backbone, {"tower": backbone.fingerprint[:16]}, tower_in_words(backbone, name))


def tower_in_words(backbone: VisionBackbone, name: str | None = None) -> str:
    """Name a vision tower by name and fingerprint, for page and log.

    Args:
        backbone: The tower.
        name: In the place of its own, which does not tell which of a library's networks it is.
    """
    return f"tower {name or backbone.name}, fingerprint {backbone.fingerprint[:12]}"


@dataclass(frozen=True)
class Judgement:
    """What an evaluation came to.

    Attributes:
        metrics: What ``metrics.json`` holds.
        summary: Numbers for the loggers, by name.
        tables: Name -> columns and rows for the loggers.
    """

    metrics: dict[str, Any]
    summary: dict[str, float] = field(default_factory=dict)
    tables: dict[str, tuple[Sequence[str], list[list[Any]]]] = field(default_factory=dict)


class Task(ABC):
    """What models are trained for, judged by and asked about.

    Attributes:
        name: As in ``task=NAME``.
        title: For people.
        captions: Whether its models write captions.
        classifies: Whether its models end in a classifier.
        of_any_model: Whether it trains nothing and judges models of any task.
        unused: Settings, or whole groups of them, that it does not read: typed all the same, they are refused.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    of_any_model: ClassVar[bool] = False
    captions: ClassVar[bool] = False
    classifies: ClassVar[bool] = False
    unused: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def training(self, config: TrainConfig) -> Training:
        """Build the model that a run trains.

        Raises:
            UserError: The settings ask for what the task cannot do.
        """

    @abstractmethod
    def evaluate(self, config: EvaluateConfig, on: Judged) -> Judgement:
        """Judge a trained model beside its baselines; write tables and page into ``config.run_dir``.

        Raises:
            UserError: No photograph can be read, or the directory holds something else.
        """

    def evaluate_backbone(self, config: EvaluateConfig) -> Judgement:
        """Judge the model that ``config.backbone`` chooses, by itself; a task of trained models refuses.

        Raises:
            UserError: The task judges trained models, or this model does not fit.
        """
        raise UserError(
            f"task={self.name} judges trained models: leave out backbone= and choose one with ckpt=, or judge the "
            "explainers of a CLIP by itself with task=explanations"
        )

    @abstractmethod
    def opened(self, place: Path, vocabulary: str | None = None) -> Opened:
        """Return a trained model of a place, in evaluation mode.

        Args:
            place: The directory of an exported model, or a ``.ckpt`` file.
            vocabulary: Name or file of the field's words, where the weights do not say with which they were trained.

        Raises:
            UserError: Nothing usable is there.
        """


tasks: Registry[type[Task]] = Registry("task", "tasks", package="clip_xai.tasks")


def task_at(place: Path) -> Task:
    """Return the task that a model was trained for; the plugins that its run was made with are loaded.

    Args:
        place: The exported model's directory, or a ``.ckpt`` file.

    Raises:
        UserError: A plugin is not there, or there is no such task.
    """
    card = RunCard.read(run_of(place))
    if card is not None:
        load_plugins_of(run_of(place), card.plugins)
    return tasks.named(task_of(place), "task")()


def refuse_settings_unused_by(name: str) -> None:
    """Refuse what was typed and a task does not read.

    Args:
        name: The task's.

    Raises:
        UserError: The line names the setting and the task.
    """
    refuse_unused(f"task={name}", tasks.named(name, "task").unused)


def refuse_settings_unused_at(place: Path) -> None:
    """Refuse what was typed and the task of a model does not read.

    Args:
        place: The exported model's directory, or a ``.ckpt`` file.

    Raises:
        UserError: The line names the setting and the task.
    """
    refuse_settings_unused_by(task_at(place).name)
