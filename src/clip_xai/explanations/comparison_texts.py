"""What a similarity is to be read against: the same photograph's similarity to other texts."""

from __future__ import annotations

import torch
from torch import Tensor

from clip_xai.data.vocabulary import Vocabulary, load_vocabulary
from clip_xai.models.backbones.clip import CLIPBackbone
from clip_xai.models.backbones.recording import evaluation_mode
from clip_xai.report.explained import number
from clip_xai.xai.targets.similarity import SimilarityTarget


class ComparisonTexts:
    """``a photo of DIAGNOSIS`` for every diagnosis of a vocabulary, embedded once for a tower.

    A cosine alone says little: between any photograph and any text of one field it moves within a few hundredths. Its
    rank among texts of one form, and their range, are its scale.
    """

    def __init__(self, backbone: CLIPBackbone, vocabulary: Vocabulary | None = None) -> None:
        """Embed the texts.

        Args:
            backbone: The tower, with its text side.
            vocabulary: Its diagnoses stand in its text of comparison; that of skin if None.
        """
        known = vocabulary or load_vocabulary()
        self.form = known.comparison.replace("{}", "…")
        self.texts = [known.comparison.replace("{}", name) for name in known.diagnoses]
        with torch.no_grad(), evaluation_mode(backbone):
            self.embeddings = backbone.encode_text(self.texts)
        self.logit_scale = backbone.logit_scale.detach()

    def contexts(self, image_embedding: Tensor, target: SimilarityTarget) -> list[str]:
        """Return for each of the T texts of a similarity what its score is to be read against.

        Args:
            image_embedding: ``[1, D]``.
            target: The similarity; the other texts are scored by its own kind.
        """
        others = SimilarityTarget(self.embeddings, self.texts, target.kind, self.logit_scale)
        with torch.no_grad():
            known, scores = others.score(image_embedding)[0], target.score(image_embedding)[0]
        low, high = number(float(known.min())), number(float(known.max()))
        said = []
        for label, score in zip(target.labels, scores, strict=True):
            rest = torch.tensor([text != label for text in self.texts], device=known.device)
            rank = 1 + int((known[rest] > score).sum())
            said.append(
                f"Rank {rank} of {int(rest.sum()) + 1} beside “{self.form}” of every diagnosis known here, "
                f"whose {target.score_name} spans {low} to {high}."
            )
        return said
