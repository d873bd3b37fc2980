"""What is asked about one scene: words of its caption and an image-text contrast, and the scores of its drawings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clip_xai.data.synthetic.profiles import PROFILES
from clip_xai.data.vocabulary import Vocabulary, load_vocabulary
from clip_xai.explanations.causes.scenes import DrawnScene
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.clip import CLIPBackbone
from clip_xai.models.backbones.recording import evaluation_mode
from clip_xai.models.captioner import Caption, Captioner
from clip_xai.models.settings import Decoding
from clip_xai.xai.slots import (
    DIAGNOSIS,
    STRUCTURES,
    Slot,
    sampled_captions,
    share_stating,
    slot_log_odds,
    slots_of,
    states,
)
from clip_xai.xai.target import CaptionTarget, ContrastTarget, SimilarityTarget, Target

STRUCTURE, CONTRAST = "structure", "contrast"
TARGETS = (DIAGNOSIS, STRUCTURE, CONTRAST)
_CHUNK = 64


class Asker:
    """A model and how scenes are put to it; the texts of all diagnoses are embedded once.

    Attributes:
        backbone: The tower.
        captioner: The captioner behind it; None for a CLIP by itself.
        decoding: How the caption of a scene is written.
        samples: Captions drawn of each drawing for what is written anew.
        seed: Seed of these draws, the same for all drawings of a scene.
        vocabulary: The captioner's words; those of skin for a CLIP by itself.
    """

    def __init__(
        self,
        backbone: VisionBackbone,
        captioner: Captioner | None = None,
        decoding: Decoding | None = None,
        samples: int = 16,
        seed: int = 0,
    ) -> None:
        self.backbone, self.captioner = backbone, captioner
        self.decoding, self.samples, self.seed = decoding or Decoding(), samples, seed
        self.vocabulary: Vocabulary = load_vocabulary() if captioner is None else captioner.vocabulary
        self.diagnoses = tuple(PROFILES)
        self.texts: SimilarityTarget | None = None
        if isinstance(backbone, CLIPBackbone):
            texts = [self.vocabulary.comparison.replace("{}", name) for name in self.diagnoses]
            self.texts = SimilarityTarget.from_texts(backbone, texts)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.backbone.parameters()).device

    @torch.no_grad()
    def encoded(self, pictures: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Encode pictures ``[3, S, S]`` once: the embeddings ``[C, D]``, and what the mapper reads of them, if any."""
        pooled, read = [], []
        with evaluation_mode(self.backbone):
            for start in range(0, len(pictures), _CHUNK):
                features = self.backbone.features(torch.stack(list(pictures[start : start + _CHUNK])).to(self.device))
                pooled.append(features.pooled)
                if self.captioner is not None:
                    read.append(features.read(self.captioner.reads))
        return torch.cat(pooled), torch.cat(read) if read else None

    @torch.no_grad()
    def written(self, read: Tensor) -> list[Caption]:
        """Write the captions of what the mapper reads of pictures."""
        assert self.captioner is not None
        return self.captioner.generate(read, self.decoding, rows=[0] * len(read) if self.decoding.sample else None)


@dataclass(frozen=True)
class Statement:
    """One thing that is asked about a scene.

    Attributes:
        name: ``diagnosis`` or ``structure``, a word of the caption; or ``contrast``, of the tower alone.
        label: For people.
        value: What the word states, or the diagnosis of the contrast's first text.
        causes: Names of the parts that it ought to rest on: all structures, or the one that is named.
        right: Whether the scene shows what is stated.
        slot: The word's place in the caption; None for the contrast.
    """

    name: str
    label: str
    value: str
    causes: tuple[str, ...]
    right: bool
    slot: Slot | None = None


@dataclass(frozen=True)
class SceneQuestion:
    """All that is asked about one scene.

    Attributes:
        asker: The model.
        drawn: The scene.
        asked: T things.
        caption: The caption of the whole scene; None for a CLIP by itself.
        contrast: The two texts, where they are asked about.
        left_out: What could not be asked, with the reason.
    """

    asker: Asker
    drawn: DrawnScene
    asked: list[Statement]
    caption: Caption | None
    contrast: ContrastTarget | None
    left_out: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, asker: Asker, drawn: DrawnScene) -> SceneQuestion:
        """Write the caption of a scene, and find in it the diagnosis and a structure that the scene shows."""
        pooled, read = asker.encoded([drawn.pixels])
        scene, asked, left_out = drawn.scene, [], {}
        structures = tuple(part.name for part in drawn.players if part.kind == "structure")
        caption = None
        if asker.captioner is not None and read is not None:
            [caption] = asker.written(read)
            slots = slots_of(asker.captioner, caption.token_ids) if caption.text.strip() else []
            stated = next((slot for slot in slots if slot.kind == DIAGNOSIS), None)
            if stated is None:
                left_out[DIAGNOSIS] = "the caption does not state one"
            else:
                right = asker.vocabulary.agree(stated.value, scene.diagnosis)
                asked.append(Statement(DIAGNOSIS, stated.value, stated.value, structures, right, stated))
            seen = next((slot for slot in slots if slot.kind == STRUCTURES and slot.value in structures), None)
            if seen is None:
                left_out[STRUCTURE] = "the caption does not name one that the scene shows"
            else:
                asked.append(Statement(STRUCTURE, seen.value, seen.value, (seen.value,), True, seen))
        contrast = None
        if asker.texts is not None:
            own = asker.diagnoses.index(scene.diagnosis)
            similar = asker.texts.score(pooled)[0].clone()
            for number, name in enumerate(asker.diagnoses):
                if asker.vocabulary.agree(name, scene.diagnosis):
                    similar[number] = -torch.inf
            rival = int(similar.argmax())
            embeddings = asker.texts.text_embeddings[[own, rival]]
            labels = [asker.diagnoses[own], asker.diagnoses[rival]]
            # With the temperature of the tower, the margin of two texts is the log-odds of the one against the other.
            contrast = ContrastTarget(embeddings, labels, "logit", asker.texts.logit_scale)
            label = f"{asker.diagnoses[own]}, not {asker.diagnoses[rival]}"
            right = bool(contrast.score(pooled)[0, 0] > 0)
            asked.append(Statement(CONTRAST, label, scene.diagnosis, structures, right))
        else:
            left_out[CONTRAST] = "the tower does not read texts"
        return cls(asker, drawn, asked, caption, contrast, left_out)

    def targets(self) -> list[tuple[Target, list[tuple[int, int]]]]:
        """Return what explainers are asked: targets, and for each which score of theirs is which thing asked."""
        found: list[tuple[Target, list[tuple[int, int]]]] = []
        words = [number for number, one in enumerate(self.asked) if one.slot is not None]
        if words and self.asker.captioner is not None and self.caption is not None:
            parts = [self.asked[number].slot.tokens for number in words]  # type: ignore[union-attr]
            labels = [self.asked[number].label for number in words]
            target = CaptionTarget(self.asker.captioner, self.caption.token_ids, parts, labels)
            found.append((target, list(enumerate(words))))
        if self.contrast is not None:
            found.append((self.contrast, [(0, len(self.asked) - 1)]))
        return found

    def scores(self, pooled: Tensor, read: Tensor | None) -> NDArray[np.float64]:
        """Score drawings of the scene, ``[C, T]``, in nats: log-odds of a word on the fixed caption, or of two texts.

        Args:
            pooled: Their embeddings, ``[C, D]``.
            read: What the mapper reads of them.
        """
        columns = []
        for one in self.asked:
            if one.slot is not None:
                assert self.asker.captioner is not None and self.caption is not None and read is not None
                found = slot_log_odds(self.asker.captioner, read, self.caption.token_ids, one.slot)
            else:
                assert self.contrast is not None
                found = self.contrast.score(pooled)[:, 0]
            columns.append(found.double().cpu().numpy())
        return np.stack(columns, axis=1) if columns else np.empty((len(pooled), 0))

    def scores_anew(self, read: Tensor) -> NDArray[np.float64]:
        """Score drawings by captions written anew, ``[C, T]``: log-odds of the share of samples that state the value.

        All drawings are sampled with the same random numbers. NaN for the contrast, which is not of a caption.

        Args:
            read: What the mapper reads of the drawings.
        """
        rows = len(read)
        found = np.full((rows, len(self.asked)), np.nan)
        if self.asker.captioner is None or all(one.slot is None for one in self.asked):
            return found
        number = self.drawn.scene.seed % 2**20
        captions = sampled_captions(self.asker.captioner, read, self.asker.samples, self.asker.seed, [number] * rows)
        for column, one in enumerate(self.asked):
            if one.slot is not None:
                known = (one.slot.kind, one.slot.value, self.asker.vocabulary)
                shares = np.array([share_stating(drawn, *known) for drawn in captions])
                found[:, column] = np.log(shares) - np.log1p(-shares)
        return found

    def holds(self, pictures: Sequence[Tensor]) -> NDArray[np.bool_]:
        """Tell of pictures whether a caption written anew states each thing, or the contrast is above 0: ``[C, T]``."""
        pooled, read = self.asker.encoded(pictures)
        captions = None if read is None else self.asker.written(read)
        found = np.zeros((len(pictures), len(self.asked)), dtype=bool)
        for column, one in enumerate(self.asked):
            if one.slot is not None and captions is not None:
                slot = (one.slot.kind, one.slot.value, self.asker.vocabulary)
                found[:, column] = [states(caption.text, *slot) for caption in captions]
            elif self.contrast is not None:
                found[:, column] = (self.contrast.score(pooled)[:, 0] > 0).cpu().numpy()
        return found
