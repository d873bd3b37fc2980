"""Captioners handed on: a directory that others load, its model card, the way to the hub and back."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from safetensors import safe_open

from clip_xai.errors import UserError
from clip_xai.files import read_json, write_json, write_text
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.clip import CLIPBackbone
from clip_xai.models.backbones.source import BackboneSource
from clip_xai.models.captioner import Captioner
from clip_xai.models.card import CardFacts, model_card
from clip_xai.models.causal_model import positions
from clip_xai.models.hub import hub_folder
from clip_xai.models.retrieval import INDEX, CaptionIndex
from clip_xai.models.terms import require_pushable
from clip_xai.models.weights import TOWER, CaptionerSettings, load_captioner, save_captioner

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md")
ALLOWED = (*FILES, TOWER, INDEX)  # the last two where the tower's weights, or retrieved captions, go with it


def export_captioner(
    captioner: Captioner,
    settings: CaptionerSettings,
    directory: Path,
    facts: CardFacts,
    with_backbone: bool | None = None,
    index: CaptionIndex | None = None,
) -> Path:
    """Write a directory that :func:`from_pretrained` loads; its tokenizer loads with transformers too.

    It is written beside its place, loaded and compared, and then moved there, file by file: what stands there in the
    end works. No path of this machine is in it.

    Args:
        captioner: The captioner.
        settings: What it was built from.
        directory: Made if need be; files of an export in it are replaced, others are left alone.
        facts: For the model card, ``README.md``.
        with_backbone: Whether the tower's weights go with it. If None only where nobody else could get them: random
            ones, and those that lie in a folder or file of this machine. Check the tower's licence.
        index: What prompts are retrieved from, for a captioner with retrieved captions. It holds training captions:
            the terms of the data bind it.

    Raises:
        ValueError: The settings want an index and there is none, or the other way round.
        UserError: What was written does not load, or says something else than the captioner.
    """
    if (index is None) == bool(settings.retrieved_captions):
        raise ValueError(f"{settings.retrieved_captions} retrieved captions do not fit {index} as their index")
    if with_backbone is None:
        with_backbone = captioner.backbone.source is None or is_local(settings.backbone.pretrained)
    public = without_places(settings, with_backbone)
    directory.parent.mkdir(parents=True, exist_ok=True)
    unfinished = directory.parent / f".{directory.name}.{uuid.uuid4().hex[:8]}.unfinished"
    try:
        save_captioner(captioner, public, unfinished, with_backbone)
        if index is not None:
            index.without_groups().save(unfinished / INDEX)
        write_json(unfinished / "tokenizer_config.json", _tokenizer_config(captioner))
        write_text(unfinished / "README.md", model_card(captioner, public, facts, index))
        _try(captioner, unfinished, directory)
        directory.mkdir(exist_ok=True)
        for file in sorted(unfinished.iterdir(), key=lambda file: file.name == "config.json"):
            file.replace(directory / file.name)  # the configuration last: without it, nothing is loaded
    except OSError as error:
        raise UserError(f"{directory} cannot be written ({error.strerror or error}); nothing of it was kept") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return directory


def is_local(pretrained: str | None) -> bool:
    """Tell whether weights lie in a folder or file of this machine, so that nobody else finds them by that name."""
    return pretrained is not None and ":" not in pretrained[2:] and Path(pretrained).expanduser().exists()


def without_places(settings: CaptionerSettings, holds_backbone: bool) -> CaptionerSettings:
    """Return settings that name no path of this machine."""
    backbone, start = settings.backbone, settings.language_model_pretrained
    if is_local(backbone.pretrained):
        assert backbone.pretrained is not None
        place = None if holds_backbone else Path(backbone.pretrained).name
        backbone = replace(backbone, pretrained=place)
    # The language model's weights are always in the export: where it started from is for people to read.
    start = Path(start).name if start is not None and is_local(start) else start
    return replace(settings, backbone=backbone, language_model_pretrained=start)


def _tokenizer_config(captioner: Captioner) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": positions(captioner.language_model),
        "clean_up_tokenization_spaces": False,
    }


@torch.no_grad()
def _try(captioner: Captioner, written: Path, directory: Path) -> None:
    """Load what was written and hold it against the captioner: its weights, preprocessing and tokenizers."""
    loaded = load_captioner(written)
    expected = {key: value.cpu() for key, value in captioner.state_dict().items()}
    found = loaded.state_dict()
    differs = [key for key, value in expected.items() if key not in found or not torch.equal(found[key], value)]
    tower, own = loaded.backbone, captioner.backbone
    if differs or found.keys() != expected.keys():
        raise UserError(
            f"{directory}: what was written does not load unchanged ({differs[:3]}); nothing of it was kept"
        )
    text = captioner.vocabulary.probe
    same = (
        tower.fingerprint == own.fingerprint
        and tower.preprocess == own.preprocess
        and _ids(tower, text) == _ids(own, text)
        and loaded.tokenizer.encode(text) == captioner.tokenizer.encode(text)
    )
    if not same:
        raise UserError(
            f"{directory}: what was written loads with another tower, preprocessing or tokenizer than the captioner "
            "has; nothing of it was kept"
        )


def _ids(backbone: VisionBackbone, text: str) -> list[list[int]] | None:
    """The tower's token ids of a text; None where it has no tokenizer."""
    if not isinstance(backbone, CLIPBackbone) or backbone.tokenizer is None:
        return None
    return backbone.tokenize([text]).tolist()


def from_pretrained(source: str | Path, revision: str | None = None) -> Captioner:
    """Load a captioner from a directory or from the hub, in evaluation mode.

    Args:
        source: A directory that :func:`export_captioner` or a training run wrote, or ``ORGANISATION/MODEL``.
        revision: Commit, tag or branch on the hub; None for the newest.

    Raises:
        UserError: There is no captioner.

    Example:
        >>> from_pretrained("nobody/nothing-at-all")  # doctest: +SKIP
    """
    if Path(source).is_dir():
        return load_captioner(Path(source))
    advice = "name a directory that holds config.json, model.safetensors and tokenizer.json"
    return load_captioner(hub_folder(str(source), "config.json", ALLOWED, advice, revision))


def push_to_hub(
    directory: Path,
    repository: str,
    *,
    private: bool = True,
    message: str = "Upload captioner",
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Upload an exported directory and return the address of the commit.

    Only the files of an export go: nothing else that may lie in the directory.

    Args:
        directory: What :func:`export_captioner` wrote.
        repository: ``ORGANISATION/MODEL``, made if need be.
        private: Whether the repository is; one that is there already must be, or be said to be public.
        message: The commit's message.
        token: The hub's token; the one of ``hf auth login`` if None.
        endpoint: Another hub than the public one.

    Raises:
        UserError: The directory is not an export, the hub refuses, training captions would become public, or the
            tower's licence forbids sharing what training has changed.
    """
    missing = [file for file in FILES if not (directory / file).is_file()]
    if missing:
        raise UserError(f"{directory} lacks {', '.join(missing)}: export first (python -m clip_xai.jobs.export)")
    described = (read_json(directory / "config.json") or {}).get("settings") or {}
    with safe_open(directory / "model.safetensors", framework="np") as weights:
        require_pushable(BackboneSource(**described["backbone"]), weights.metadata() or {})
    if not private and (directory / INDEX).is_file():
        raise UserError(
            f"{INDEX} holds captions of the training data, which most data sets do not allow you to publish: leave "
            "--public out, or publish a captioner without retrieved captions"
        )
    hub = HfApi(endpoint=endpoint, token=token)
    try:
        if is_public(hub, repository):
            if (directory / INDEX).is_file():
                raise UserError(
                    f"{repository} is public, and {INDEX} holds captions of the training data, which most data sets do "
                    "not let you publish: name a private repository, or make this one private"
                )
            if private:
                raise UserError(f"{repository} is already public: add --public if that is intended, or name another")
        hub.create_repo(repository, private=private, exist_ok=True)
        done = hub.upload_folder(
            repo_id=repository, folder_path=directory, allow_patterns=list(ALLOWED), commit_message=message
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise UserError(f"the hub refused {repository} ({reason}); log in with `hf auth login`") from error
    return str(done.commit_url)


def is_public(hub: HfApi, repository: str) -> bool:
    """Tell whether a repository is there already and everybody can read it."""
    try:
        return not hub.repo_info(repository).private
    except RepositoryNotFoundError:
        return False
