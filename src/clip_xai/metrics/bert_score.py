"""BERTScore through the bert-score package, from a model that is already on this disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import bert_score
import numpy as np
import transformers
from huggingface_hub import try_to_load_from_cache
from numpy.typing import NDArray

from clip_xai import private_api
from clip_xai.errors import UserError

# Tokenisers without a limit of their own say 1e30, which overflows in the Rust tokenisers.
LONGEST_TEXT = 512
LAYERS: dict[str, int] = private_api.bert_score_layers()


class ScorerUnavailable(UserError):
    """A scorer cannot be used here; the message says which and why."""


class BertScorer:
    """F1 of BERTScore, the best over the references.

    Args:
        directory: Directory of a transformers model.
        name: What the settings call the model.
        layers: Layer whose features are compared.
        baseline: Table of the values of unrelated texts, for `(x - b) / (1 - b)`; None leaves the raw values.
        batch_size: Sentences at a time.
    """

    def __init__(
        self, directory: Path, name: str, layers: int, baseline: Path | None = None, batch_size: int = 64
    ) -> None:
        self._scorer = bert_score.BERTScorer(
            model_type=str(directory),
            num_layers=layers,
            batch_size=batch_size,
            lang="en",
            rescale_with_baseline=baseline is not None,
            baseline_path=None if baseline is None else str(baseline),
        )
        tokenizer = private_api.bert_score_tokenizer(self._scorer)
        tokenizer.model_max_length = min(tokenizer.model_max_length, LONGEST_TEXT)
        rescaled = "-rescaled" if baseline is not None else ""
        versions = f"version={bert_score.__version__}(hug_trans={transformers.__version__})"
        self.settings = f"{name}_L{layers}_no-idf_{versions}{rescaled}"

    def __call__(self, captions: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        """Return F1 [N]; a caption without a word matches nothing: 0 before the baseline is taken off."""
        f1 = np.full(len(captions), self._without_a_match())
        rows = [row for row, caption in enumerate(captions) if caption.strip()]
        if rows:
            _, _, scores = self._scorer.score([captions[row] for row in rows], [list(references[row]) for row in rows])
            f1[rows] = scores.double().numpy()
        return f1

    def _without_a_match(self) -> float:
        if not self._scorer.rescale_with_baseline:
            return 0.0
        offset = private_api.bert_score_offset(self._scorer)
        return -offset / (1 - offset)


def load_bert_scorer(model: str, batch_size: int = 64) -> BertScorer:
    """Load a scorer without touching the network.

    Args:
        model: A name that bert-score knows, such as `roberta-large` or `microsoft/deberta-large-mnli`, found in the
            Hugging Face cache of this machine; or a directory of that name, such as `weights/roberta-large`. The layer
            and the baseline are bert-score's own for that model.
        batch_size: Sentences at a time.

    Raises:
        ScorerUnavailable: If bert-score does not know the model, or it is not on this disk.
    """
    name = known_name(model)
    if name is None:
        raise ScorerUnavailable(
            f"bert-score does not know the model '{model}'; choose 'roberta-large', its default, or another."
        )
    directory = Path(model) if Path(model).is_dir() else cached_model(name)
    if directory is None:
        raise ScorerUnavailable(
            f"the model '{name}' is not on this disk; 'hf download {name}' puts it into the Hugging Face cache"
        )
    return BertScorer(directory, name, LAYERS[name], private_api.bert_score_baseline(name), batch_size)


def known_name(model: str) -> str | None:
    """Return which of bert-score's models a name or a directory stands for, or None."""
    path = Path(model).as_posix()
    return max((name for name in LAYERS if path == name or path.endswith("/" + name)), key=len, default=None)


def cached_model(name: str) -> Path | None:
    """Return where a model lies in the Hugging Face cache, or None where its configuration or weights are missing."""
    for weights in ("model.safetensors", "pytorch_model.bin"):
        found = [try_to_load_from_cache(name, file) for file in ("config.json", weights)]
        if all(isinstance(path, str) for path in found):
            return Path(str(found[0])).parent
    return None
