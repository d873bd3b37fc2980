"""All that is used of other libraries without their promise that it stays: private names, layouts, wordings.

It stands here, one function a thing, so that a new version of a library is looked at in one place. ``TRIED`` says with
which versions; ``pyproject.toml`` ends before the next ones, and ``tests/test_private_api.py`` holds each thing against
the library that is installed. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import errno
import re
import sqlite3
from pathlib import Path
from typing import Any

#: The versions that each library was tried with.
TRIED = {
    "bert-score": "0.3.13",
    "hydra-core": "1.3.8",
    "lightning": "2.6.6",
    "open_clip_torch": "3.3.0",
    "openpyxl": "3.1.5",
    "safetensors": "0.8.0",
    "timm": "1.0.31",
    "tokenizers": "0.23.3",
    "transformers": "5.23.0",
}
#: What a subclass of timm's vision transformer may not do otherwise, if its blocks are to be run from outside.
TIMM_OWN_PASS = ("forward_features", "forward_head", "pool", "_pos_embed")
#: What Lightning warns about and nobody has to act upon; its warnings have no types of their own.
LIGHTNING_HINTS = (
    "does not have many workers",  # features come from memory, workers would only cost
    "in eval mode",  # frozen parts stand in evaluation mode on purpose
    "is not empty",
    "dirpath has changed",
    "callbacks used to create the checkpoint",  # the best of another measure is taken over by its own value
    "is smaller than the logging interval",
)
#: What torch's tree of containers warns about when Lightning looks through a batch.
TORCH_HINTS = ("LeafSpec",)
#: What Lightning's CSV logger says of a folder of ours, whose tables are written anew as a whole.
CSV_FOLDER_HINT = "Experiment logs directory"

_OS_ERROR = re.compile(r"os error (\d+)")  # how Rust prints the system's errors
_SQLITE = {10: errno.EIO, 13: errno.ENOSPC, 8: errno.EROFS}  # SQLITE_IOERR, SQLITE_FULL, SQLITE_READONLY
_SQLITE_SAYS = (
    ("database or disk is full", errno.ENOSPC),
    ("disk I/O error", errno.EIO),
    ("attempt to write a readonly database", errno.EROFS),
)


# open_clip


def open_clip_vision_tower(embed_dim: int, vision: dict[str, Any], quick_gelu: bool) -> Any:
    """Build an image tower as ``open_clip.CustomTextCLIP`` does, from the ``vision_cfg`` of a configuration."""
    from open_clip.model import _build_vision_tower

    return _build_vision_tower(embed_dim, {**vision, "timm_model_pretrained": False}, quick_gelu)


def open_clip_text_tower(embed_dim: int, text: dict[str, Any], quick_gelu: bool) -> Any:
    """Build a text tower as ``open_clip.CustomTextCLIP`` does, from the ``text_cfg`` of a configuration."""
    from open_clip.model import _build_text_tower

    return _build_text_tower(embed_dim, text, quick_gelu)


def open_clip_embeds(visual: Any, pixels: Any) -> Any:
    """Return the tokens ``[B, 1 + N, W]`` that go into the first block of open_clip's vision transformer."""
    return visual._embeds(pixels)


def open_clip_pooled(visual: Any, tokens: Any) -> Any:
    """Return what open_clip's vision transformer pools from the last block's tokens, before its projection."""
    return visual._pool(tokens)[0]


def open_clip_global_pool(visual: Any, tokens: Any) -> Any:
    """Return the row, or the mean of the rows, that open_clip's vision transformer takes of an attention pool."""
    return visual._global_pool(tokens)[0]


# timm


def timm_positions(trunk: Any, patches: Any) -> Any:
    """Return patches with positions, prefix tokens in front, as timm's vision transformer does it."""
    return trunk._pos_embed(patches)


# transformers


def causal_language_models() -> frozenset[str]:
    """Return the ``model_type`` of every model that ``AutoModelForCausalLM`` builds."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return frozenset(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


# bert-score


def bert_score_layers() -> dict[str, int]:
    """Return the layer of each model that agrees best with human judgement, as measured by bert-score's authors."""
    import bert_score

    return dict(bert_score.utils.model2layers)


def bert_score_baseline(name: str) -> Path | None:
    """Return the table of the values of unrelated texts that bert-score brings for a model, if it brings one."""
    import bert_score

    table = Path(bert_score.__file__).parent / "rescale_baseline" / "en" / f"{name}.tsv"
    return table if table.is_file() else None


def bert_score_tokenizer(scorer: Any) -> Any:
    """Return the tokenizer of a ``bert_score.BERTScorer``."""
    return scorer._tokenizer


def bert_score_offset(scorer: Any) -> float:
    """Return the F1 of unrelated texts that a ``bert_score.BERTScorer`` with a baseline takes off."""
    return float(scorer.baseline_vals[2])


# Hydra


def yaml_header(source: Any, text: str) -> dict[str, str | None]:
    """Return what the first comments of a YAML file tell Hydra, such as ``# @package _global_``."""
    return source._get_header_dict(text)


# openpyxl


def sheet_path(sheet: Any) -> str:
    """Return where the XML of a sheet lies in the archive of its workbook, which was opened to be read only."""
    return str(sheet._worksheet_path).lstrip("/")


# Lightning


def without_anonymous(logger: Any) -> Any:
    """Keep a ``WandbLogger`` from passing on ``anonymous``, of which W&B warns that it means nothing any more."""
    logger._wandb_init.pop("anonymous", None)
    return logger


# What a library says in words alone


def disk_errno(error: BaseException) -> int | None:
    """Return the ``errno`` of an error of the disk that a library does not raise as ``OSError``, or None.

    safetensors and tokenizers name the number in their texts alone, SQLite has a number of its own since Python 3.11.
    """
    database = getattr(error, "orig", error)  # SQLAlchemy's errors hold it
    if not isinstance(database, sqlite3.Error):
        found = _OS_ERROR.search(str(error))
        return int(found[1]) if found else None
    code = getattr(database, "sqlite_errorcode", None)
    if code is not None:
        return _SQLITE.get(code & 0xFF)
    return next((number for words, number in _SQLITE_SAYS if words in str(database)), None)
