"""Classifiers in and out of a directory: ``model.safetensors`` and ``config.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.files import reading, replacing, write_json
from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.blueprint import TOWER
from clip_xai.models.backbones.classifier import VisionClassifier
from clip_xai.models.backbones.source import BackboneSource
from clip_xai.models.finite import require_finite
from clip_xai.models.heads import build_head, reads_of
from clip_xai.models.reading import read_json, read_state
from clip_xai.models.weights import tower_of

TASK = "classify"
HEAD = "trained_head."


@dataclass(frozen=True)
class ClassifierSettings:
    """All that is needed to build a classifier again, as plain values.

    Attributes:
        backbone: The tower and the place of its weights.
        classes: Names of the classes, in the order of the logits.
        multilabel: Whether a photograph can show several of them at once.
        head: ``linear`` or ``attention_pool``.
        of: What is classified: ``labels``, ``diagnosis`` or ``malignancy``.
        uncertain: What an uncertain label counts for.
    """

    backbone: BackboneSource
    classes: tuple[str, ...]
    multilabel: bool
    head: str = "linear"
    of: str = "labels"
    uncertain: str = "ignored"


def put_head_on(backbone: VisionBackbone, settings: ClassifierSettings) -> VisionClassifier:
    """Return the classifier that settings describe on a backbone, its head at random weights."""
    head = build_head(settings.head, backbone.embed_dim, backbone.width, len(settings.classes))
    return VisionClassifier.on(backbone, head, settings.classes, reads_of(settings.head), settings.multilabel)


def build_classifier(settings: ClassifierSettings) -> VisionClassifier:
    """Return the classifier that settings describe, on the tower's own weights."""
    return put_head_on(build_backbone(**asdict(settings.backbone)), settings)


def classifier_state(classifier: VisionClassifier, with_backbone: bool) -> dict[str, Tensor]:
    """Return the head's weights, and the tower's on request, as contiguous tensors of their own."""
    return {
        key: value.detach().clone().contiguous()
        for key, value in classifier.state_dict().items()
        if with_backbone or key.startswith(HEAD)
    }


def load_classifier_state(classifier: VisionClassifier, state: dict[str, Tensor], origin: Path) -> None:
    """Load what :func:`classifier_state` gave, every key accounted for.

    Raises:
        UserError: A key is missing or unknown, or a weight has another shape or is not finite.
    """
    require_finite(state, origin)
    own = classifier.state_dict()
    with_backbone = any(not key.startswith(HEAD) for key in state)
    wanted = {key for key in own if with_backbone or key.startswith(HEAD)}
    odd = sorted(wanted ^ set(state)) or [key for key in sorted(wanted) if own[key].shape != state[key].shape]
    if odd:
        raise UserError(
            f"{origin} does not fit this classifier: {', '.join(odd[:3])} missing, unknown or of another shape"
        )
    classifier.load_state_dict(state, strict=False)


def save_classifier(
    classifier: VisionClassifier,
    settings: ClassifierSettings,
    directory: Path,
    with_backbone: bool,
    provenance: dict[str, str],
) -> None:
    """Write a classifier to a directory that :func:`load_classifier` reads.

    Args:
        classifier: The classifier.
        settings: What it was built from.
        directory: Made if need be.
        with_backbone: Write the tower's weights too: those that have changed or are random have no other place.
        provenance: What the file's header says of the weights.

    Raises:
        UserError: A weight is not finite; nothing is written.
    """
    state = classifier_state(classifier, with_backbone)
    require_finite(state, "the classifier")
    directory.mkdir(parents=True, exist_ok=True)
    with replacing(directory / "model.safetensors") as unfinished:
        save_file(state, unfinished, metadata=provenance)
    if with_backbone and classifier.blueprint is not None:
        write_json(directory / TOWER, classifier.blueprint.plain())
    config = {
        "format": 1,
        "task": TASK,
        "settings": asdict(settings),
        "fingerprint": classifier.fingerprint,
        "preprocess_fingerprint": classifier.preprocess.fingerprint,
        "holds_backbone": with_backbone,
    }
    write_json(directory / "config.json", config)


def load_classifier(directory: Path) -> tuple[VisionClassifier, ClassifierSettings, dict[str, str]]:
    """Load a classifier from a directory, in evaluation mode.

    Returns:
        The classifier, what it was built from, and what its file says of its weights.

    Raises:
        UserError: The directory holds no classifier, or the tower at hand is not the one it was trained on.
    """
    file, weights = directory / "config.json", directory / "model.safetensors"
    if not file.is_file():
        raise UserError(
            f"{directory} holds no classifier (no config.json); train one first: python train.py task=classify"
        )
    config = read_json(file)
    if config.get("task") != TASK:
        raise UserError(f"{directory} holds no classifier: it was trained for task={config.get('task', 'captions')}")
    with reading(file, "name another classifier, or train it again"):
        settings = read_classifier_settings(config["settings"])
    classifier = put_head_on(tower_of(directory, settings.backbone, bool(config["holds_backbone"])), settings)
    load_classifier_state(classifier, read_state(weights), weights)
    if classifier.fingerprint != config["fingerprint"]:
        raise UserError(
            f"{directory} was trained on another {settings.backbone.name} tower than {settings.backbone.pretrained} "
            "holds now; train again or restore the tower's weights"
        )
    if classifier.preprocess.fingerprint != config["preprocess_fingerprint"]:
        raise UserError(
            f"{directory} was trained on photographs preprocessed otherwise than {settings.backbone.pretrained} asks "
            "for now; train again or restore its preprocessing"
        )
    with safe_open(weights, framework="pt") as opened:
        provenance = dict(opened.metadata() or {})
    return classifier.eval(), settings, provenance


def read_classifier_settings(values: dict[str, Any]) -> ClassifierSettings:
    """Build settings from the plain containers of ``config.json`` or a checkpoint."""
    backbone = BackboneSource(**values["backbone"])
    return ClassifierSettings(**{**values, "backbone": backbone, "classes": tuple(values["classes"])})
