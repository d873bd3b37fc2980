"""Where a backbone's files come from, and the weights in them: safetensors, or pickles of tensors alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from tokenizers import BertWordPieceTokenizer, Tokenizer
from torch import Tensor, nn
from transformers import CLIPTokenizer

from clip_xai.errors import UserError
from clip_xai.models.backbones.processor import FILE as PROCESSOR
from clip_xai.models.backbones.processor import WHOLE_FILE
from clip_xai.models.finite import require_finite, require_trained
from clip_xai.models.hub import hub_folder
from clip_xai.models.reading import read_json

WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
    "model.safetensors.index.json",
)
OPEN_CLIP_CONFIG, CONFIG = "open_clip_config.json", "config.json"
CONFIG_FILES = (OPEN_CLIP_CONFIG, CONFIG, PROCESSOR, WHOLE_FILE)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt")
# Tables that libraries rebuild; older files hold them as weights.
REBUILT = ("position_ids", "token_type_ids", "relative_position_index", "attn_mask")


@dataclass(frozen=True)
class Published:
    """The files of a published model.

    Attributes:
        weights: The file of weights, or the index of several.
        folder: Where its configuration and tokenizer are looked for; None for a lone file, beside which there is none.
        settings: What open_clip's table of published weights says of the preprocessing, if it is from there.
    """

    weights: Path
    folder: Path | None
    settings: dict[str, Any]

    def config(self, name: str) -> dict[str, Any] | None:
        """Return a JSON file of the folder, None if there is none."""
        file = None if self.folder is None else self.folder / name
        return read_json(file) if file is not None and file.is_file() else None


@contextmanager
def following(published: Published | None, file: str | None) -> Iterator[None]:
    """Say of an error while a model is built that the file which describes it is at fault.

    Args:
        published: The model's files.
        file: The one that describes it; None where none does, so that an error is the program's own.
    """
    try:
        yield
    except (UserError, MemoryError, ImportError):
        raise
    except Exception as error:  # libraries check settings by exceptions of their own, or not at all
        if published is None or published.folder is None or file is None:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"{published.folder / file} describes no model that can be built ({reason}): correct it, or download "
            "it again"
        ) from error


def find(name: str, architecture: str, pretrained: str, revision: str | None) -> Published:
    """Find a model's files.

    Args:
        name: The backbone's name, for the error.
        architecture: A model name of open_clip, for the tags of its published weights.
        pretrained: ``hf-hub:ORGANISATION/MODEL``, the same without ``hf-hub:``, a folder, a file, or a tag of
            open_clip such as ``openai``.
        revision: Commit, tag or branch of the hub's repository.

    Raises:
        UserError: There is nothing; the line says what is missing, where it may be put, and how to do without.
    """
    advice = (
        "download once with network, or put the files into a folder and set backbone.pretrained=FOLDER, "
        "or run on random weights with backbone.pretrained=null"
    )
    place = Path(pretrained)
    if place.is_file():
        # Checkpoints of one's own training often lie beside the configuration that they were trained with.
        own = any((place.parent / file).is_file() for file in (OPEN_CLIP_CONFIG, CONFIG))
        return Published(place, place.parent if own else None, {})
    settings = open_clip.get_pretrained_cfg(architecture, pretrained)
    if place.is_dir():
        folder = place
    elif settings:
        repository = str(settings.get("hf_hub", "")).strip("/")
        if repository.count("/") > 1:  # some name the file as well
            repository = repository.rpartition("/")[0]
        folder = _from_hub(repository or pretrained, revision, advice)
    elif pretrained.startswith("hf-hub:") or (pretrained.count("/") == 1 and pretrained[0] not in "./~"):
        hub_name = pretrained.removeprefix("hf-hub:")
        try:
            folder = _from_hub(hub_name, revision, advice)
        except UserError:
            if pretrained.startswith("hf-hub:"):
                raise
            raise UserError(
                f"backbone {name}: there is no file or folder {pretrained}, and the hub does not provide it: {advice}"
            ) from None
    else:
        raise UserError(f"backbone {name}: there is no file or folder {pretrained}: {advice}")
    weights = next((folder / file for file in WEIGHT_FILES if (folder / file).is_file()), None)
    if weights is None and (folder / "adapter_config.json").is_file():
        raise UserError(
            f"backbone {name}: {pretrained} holds adapters alone: merge them into their model, and give that "
            "one's folder"
        )
    if weights is None:
        raise UserError(f"backbone {name}: {pretrained} does not hold {WEIGHT_FILES[0]} or {WEIGHT_FILES[1]}: {advice}")
    return Published(weights, folder, dict(settings or {}))


def _from_hub(repository: str, revision: str | None, advice: str) -> Path:
    patterns = [*CONFIG_FILES, *TOKENIZER_FILES, "*.safetensors", "open_clip*.bin", "pytorch_model.bin", "*.index.json"]
    return hub_folder(repository, WEIGHT_FILES, patterns, advice, revision)


def load_exactly(model: nn.Module, state: dict[str, Tensor], origin: Path, unused: Collection[str] = ()) -> None:
    """Load weights, every key accounted for.

    Args:
        model: Gets them.
        state: What the file holds.
        origin: The file, for the error.
        unused: Beginnings of keys that this model has no use for (the text tower's, where it is not built).

    Raises:
        UserError: A weight is missing, has another shape, is unknown, or is no number that was learned.
    """
    own = model.state_dict()
    kept = {
        key: value.reshape(own[key].shape) if key in own and value.numel() == own[key].numel() == 1 else value
        for key, value in state.items()
        if key in own or not (key.endswith(REBUILT) or key.startswith(tuple(unused)))
    }
    missing, unexpected = sorted(own.keys() - kept.keys()), sorted(kept.keys() - own.keys())
    reshaped = sorted(key for key in own.keys() & kept.keys() if own[key].shape != kept[key].shape)
    adapters = [key for key in unexpected if ".lora_" in key]
    if adapters:
        raise UserError(f"{origin} holds adapters ({adapters[0]}): merge them into their model, and give that")
    if missing or unexpected or reshaped:
        raise UserError(
            f"{origin} does not fit the model: missing {missing[:3]}, unexpected {unexpected[:3]}, "
            f"with another shape {reshaped[:3]}; an architecture of your own needs its {OPEN_CLIP_CONFIG} or {CONFIG} "
            "beside the weights"
        )
    require_trained(own, kept, origin)
    require_finite(kept, origin)
    model.load_state_dict(kept)


def read_tokenizer(folders: Sequence[Path | None]) -> tuple[Tokenizer, str] | None:
    """Return the first tokenizer found in some folders and its file, None if none has one."""
    for folder in folders:
        found = None if folder is None else _tokenizer_in(folder)
        if found is not None:
            return found
    return None


def _tokenizer_in(folder: Path) -> tuple[Tokenizer, str] | None:
    whole, words, pieces = (folder / name for name in ("tokenizer.json", "vocab.txt", "vocab.json"))
    if whole.is_file():
        return _read(whole, lambda: Tokenizer.from_file(str(whole))), str(whole)
    if words.is_file():
        settings = folder / "tokenizer_config.json"
        # BERT's own default where the publisher says nothing.
        lower = read_json(settings).get("do_lower_case", True) if settings.is_file() else True
        wordpiece = BertWordPieceTokenizer(str(words), lowercase=lower)
        return Tokenizer.from_str(wordpiece.to_str()), str(words)
    if pieces.is_file() and (folder / "merges.txt").is_file():  # older files of CLIP's
        return _read(pieces, lambda: _clip_pieces(folder)), str(pieces)
    return None


def _read(file: Path, read: Callable[[], Tokenizer]) -> Tokenizer:
    read_json(file)  # damaged files are named before the library's own words
    try:
        return read()
    except Exception as error:  # the library raises nothing more precise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise UserError(f"{file} is not a tokenizer that can be read ({reason}): download it again") from error


def _clip_pieces(folder: Path) -> Tokenizer:
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer


def tokenizer_from_hub(repository: str, name: str) -> tuple[Tokenizer, str]:
    """Return a tokenizer from a repository of its own.

    Raises:
        UserError: It is neither in the cache nor on the hub.
    """
    advice = (
        f"put its tokenizer.json or vocab.txt beside the weights of backbone {name}, or leave the text tower out with "
        "backbone.text=false, or run on random weights with backbone.pretrained=null"
    )
    folder = hub_folder(repository, TOKENIZER_FILES, TOKENIZER_FILES, advice)
    found = read_tokenizer([folder])
    if found is None:
        raise UserError(f"{repository} does not hold a tokenizer.json or vocab.txt; {advice}")
    return found
