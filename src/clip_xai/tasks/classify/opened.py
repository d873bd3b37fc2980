"""A trained classifier from its place."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from clip_xai.errors import UserError
from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.models.backbones.classifier import VisionClassifier
from clip_xai.models.classifier_weights import (
    HEAD,
    ClassifierSettings,
    load_classifier,
    load_classifier_state,
    put_head_on,
    read_classifier_settings,
)
from clip_xai.tasks.classify.labels import LABELS
from clip_xai.tasks.classify.module import TOWER_KEY, classifier_state_of
from clip_xai.tasks.task import Opened
from clip_xai.training.checkpoint_files import read_checkpoint


def open_classifier(place: Path) -> tuple[VisionClassifier, ClassifierSettings]:
    """Return the classifier of a place, in evaluation mode, and what it was built from.

    Args:
        place: The directory of an exported model, or a ``.ckpt`` file.

    Raises:
        UserError: Nothing usable is there.
    """
    if place.suffix != ".ckpt":
        classifier, settings, _ = load_classifier(place)
        return classifier, settings
    content = read_checkpoint(place)
    settings = read_classifier_settings(content["hyper_parameters"]["settings"])
    state = classifier_state_of(content)
    tower = build_backbone(**asdict(settings.backbone))
    held = any(not key.startswith(HEAD) for key in state)
    if not held and content.get(TOWER_KEY) not in (None, tower.fingerprint):
        raise UserError(
            f"{place} was trained on another {tower.name} tower than {settings.backbone.pretrained} holds now; train "
            "again or restore the tower's weights"
        )
    classifier = put_head_on(tower, settings)
    load_classifier_state(classifier, state, place)
    return classifier.eval(), settings


def fingerprints_of(classifier: VisionClassifier) -> dict[str, str]:
    """What a run directory notes of a classifier's weights."""
    return {"classifier": classifier.fingerprint[:16]}


def opened(place: Path) -> Opened:
    """The classifier of a place as it is explained."""
    classifier, settings = open_classifier(place)
    source = settings.backbone
    tower = source.name if source.library is None else f"{source.architecture} of {source.name}"
    words = f"classifier {place}, fingerprint {classifier.fingerprint[:12]} · tower {tower}"
    return Opened(classifier, fingerprints_of(classifier), words, of_labels=settings.of == LABELS)
