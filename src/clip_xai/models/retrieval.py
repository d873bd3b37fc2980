"""Captions of like photographs for the prompt, as SmallCap (arXiv 2209.15323) takes them.

What is retrieved comes from training captions alone, and never from the group of the photograph that asks: a second
photograph of the same lesion would whisper the answer while training, and nothing would whisper it afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.files import reading, replacing
from clip_xai.models.settings import TEMPLATE
from clip_xai.text import counted

INDEX = "retrieval.safetensors"  # beside a captioner's weights
_CHUNK = 1024  # photographs that ask at a time


class CaptionIndex:
    """Training captions under the image embeddings of their photographs.

    Example:
        >>> import torch
        >>> index = CaptionIndex(torch.eye(3), ["a nevus.", "a wart.", "a burn."], ["p1", "p2", "p3"])
        >>> index.nearest(torch.tensor([[1.0, 0.2, 0.1]]), 2, ["p1"])
        [['a wart.', 'a burn.']]
    """

    def __init__(self, embeddings: Tensor, captions: Sequence[str], groups: Sequence[str]) -> None:
        """Take the training records.

        Args:
            embeddings: Pooled image embeddings ``[R, D]``, of any length.
            captions: R captions.
            groups: R groups (patient, lesion), as in the manifest.

        Raises:
            ValueError: The numbers differ, or there is none.
        """
        if not len(embeddings) == len(captions) == len(groups) or not len(captions):
            raise ValueError(
                f"embeddings, captions and groups make no index: {len(embeddings)}, {len(captions)}, {len(groups)}"
            )
        self.embeddings = F.normalize(embeddings.float(), dim=-1)
        self.captions = list(captions)
        self.groups = list(groups)
        numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        self._numbers = numbers
        self._group = torch.tensor([numbers[group] for group in groups])

    def nearest(self, embeddings: Tensor, count: int, groups: Sequence[str | None] | None = None) -> list[list[str]]:
        """Return for each embedding ``[B, D]`` the captions of the most similar photographs, the nearest first.

        The same words are given once, and so is each group.

        Args:
            embeddings: Pooled image embeddings.
            count: How many captions.
            groups: The group of each photograph that asks; none of its own captions is given. None where it has none,
                as a new photograph.

        Raises:
            UserError: Too few other groups are known.
        """
        asking = F.normalize(embeddings.float(), dim=-1).cpu()
        known = self.embeddings.cpu().T
        own: list[str | None] = [None] * len(asking) if groups is None else list(groups)
        # A training set that asks for itself would make a matrix of its length squared.
        similar = (scores for part in asking.split(_CHUNK) for scores in part @ known)
        found = []
        for scores, group in zip(similar, own, strict=True):
            if group is not None and group in self._numbers:
                scores = scores.masked_fill(self._group == self._numbers[group], -torch.inf)
            found.append(self._distinct(scores, count))
        return found

    def prompts(
        self, embeddings: Tensor, count: int, groups: Sequence[str | None] | None = None, template: str = TEMPLATE
    ) -> list[str]:
        """Return for each embedding a prompt, as ``Captioner.generate`` and ``Captioner.loss`` take them.

        Args:
            embeddings: Pooled image embeddings ``[B, D]``.
            count: How many captions are in it.
            groups: The group of each photograph that asks, or None.
            template: Text with ``{captions}`` where they stand.

        Raises:
            UserError: The template has no place for captions, or too few other groups are known.
        """
        if "{captions}" not in template:
            raise UserError(f"the retrieval template {template!r} has no {{captions}}")
        lists = self.nearest(embeddings, count, groups)
        return [template.replace("{captions}", " ".join(captions)) for captions in lists]

    def without_groups(self) -> CaptionIndex:
        """Return the index with a number in the place of each group, to be handed on: a patient is nobody's business.

        Whoever asks with one of the training photographs gets its own captions, too.
        """
        return CaptionIndex(self.embeddings, self.captions, [f"#{self._numbers[group] + 1}" for group in self.groups])

    def save(self, file: Path) -> None:
        """Write the index as one safetensors file; captions and groups are stored as bytes."""
        texts = {"captions": self.captions, "groups": self.groups}
        packed = {key: _packed(value) for key, value in texts.items()}
        with replacing(file) as unfinished:
            save_file({"embeddings": self.embeddings.contiguous(), **packed}, unfinished)

    @classmethod
    def load(cls, file: Path) -> CaptionIndex:
        """Read an index.

        Raises:
            UserError: The file is none.
        """
        if not file.is_file():
            raise UserError(f"{file}: there is no index of training captions; build one while training")
        with reading(file, "build it anew while training"), safe_open(file, "pt") as stored:
            if set(stored.keys()) != {"embeddings", "captions", "groups"}:
                raise UserError(f"{file} is not an index of training captions")
            texts = [_unpacked(stored.get_tensor(key)) for key in ("captions", "groups")]
            return cls(stored.get_tensor("embeddings"), *texts)

    def _distinct(self, scores: Tensor, count: int) -> list[str]:
        size = 0
        while size < len(scores):
            # Nearly always the answer is among a few of the highest; sorting all for each photograph takes minutes.
            size = min(len(scores), max(8 * count, 8 * size))
            rows = (scores >= scores.topk(size).values[-1]).nonzero().squeeze(1)
            captions = self._first_of(rows[scores[rows].argsort(descending=True, stable=True)], scores, count)
            if len(captions) == count:
                return captions
        raise UserError(f"only {counted(len(captions), 'other training caption')} known; ask for fewer than {count}")

    def _first_of(self, rows: Tensor, scores: Tensor, count: int) -> list[str]:
        """Captions of rows in their order, each once and one of each group, at most so many."""
        captions: dict[str, None] = {}
        seen: set[int] = set()
        for row in rows.tolist():
            group = int(self._group[row])
            if scores[row] == -torch.inf or len(captions) == count:
                break
            if group not in seen and self.captions[row] not in captions:
                captions[self.captions[row]] = None
                seen.add(group)
        return list(captions)


@dataclass(frozen=True)
class Retrieval:
    """The prompts that a captioner was trained with.

    Attributes:
        index: Captions of its training records.
        count: How many of them are in a prompt.
        template: Text with ``{captions}`` where they stand.
    """

    index: CaptionIndex
    count: int
    template: str = TEMPLATE

    def prompts(self, embeddings: Tensor, groups: Sequence[str | None] | None = None) -> list[str]:
        """Return a prompt for each pooled image embedding ``[B, D]``; see :meth:`CaptionIndex.prompts`."""
        return self.index.prompts(embeddings, self.count, groups, self.template)


def _packed(texts: Sequence[str]) -> Tensor:
    """Texts as bytes, one zero byte after each; a caption holds none."""
    data = b"".join(text.replace("\0", " ").encode() + b"\0" for text in texts)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _unpacked(data: Tensor) -> list[str]:
    return bytes(data.tolist()).decode().split("\0")[:-1]
