"""Captioners handed on: a directory that others load, its model card, the way to the hub and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from clip_xai.errors import UserError
from clip_xai.files import write_json, write_text
from clip_xai.models.captioner import Captioner
from clip_xai.models.hub import hub_folder
from clip_xai.models.retrieval import INDEX, CaptionIndex
from clip_xai.models.weights import CaptionerSettings, load_captioner, save_captioner

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md")
ALLOWED = (*FILES, INDEX)  # the last only of a captioner with retrieved captions


@dataclass(frozen=True)
class CardFacts:
    """What a model card says beyond what the model itself knows.

    Attributes:
        name: The model's name.
        licence: Identifier of the weights' licence, such as ``cc-by-nc-4.0``; ``other`` where nobody has chosen one.
        data: Data set -> what is said of it: photographs, licence, terms.
        training: Setting -> value, how it was trained.
        evaluation: The evaluation's Markdown, baselines included, or None where there was none.
    """

    name: str
    licence: str = "other"
    data: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, str] = field(default_factory=dict)
    evaluation: str | None = None


def export_captioner(
    captioner: Captioner,
    settings: CaptionerSettings,
    directory: Path,
    facts: CardFacts,
    with_backbone: bool | None = None,
    index: CaptionIndex | None = None,
) -> Path:
    """Write a directory that :func:`from_pretrained` loads; its tokenizer loads with transformers too.

    Args:
        captioner: The captioner.
        settings: What it was built from.
        directory: Made if need be.
        facts: For the model card, ``README.md``.
        with_backbone: Whether the tower's weights go with it. If None only where they are random. Mind the tower's
            licence.
        index: What prompts are retrieved from, for a captioner with retrieved captions. It holds training captions:
            mind the terms of the data.

    Raises:
        ValueError: The settings want an index and there is none, or the other way round.
    """
    if (index is None) == bool(settings.retrieved_captions):
        raise ValueError(f"{settings.retrieved_captions} retrieved captions do not fit {index} as their index")
    save_captioner(captioner, settings, directory, with_backbone)
    if index is not None:
        index.save(directory / INDEX)
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": captioner.language_model.config.n_positions,
        "clean_up_tokenization_spaces": False,
    }
    write_json(directory / "tokenizer_config.json", tokenizer)
    write_text(directory / "README.md", model_card(captioner, settings, facts, index))
    return directory


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
        private: Whether a new repository is.
        message: The commit's message.
        token: The hub's token; the one of ``hf auth login`` if None.
        endpoint: Another hub than the public one.

    Raises:
        UserError: The directory is no export, the hub refuses, or training captions would become public.
    """
    missing = [file for file in FILES if not (directory / file).is_file()]
    if missing:
        raise UserError(f"{directory} lacks {', '.join(missing)}: export first (python -m clip_xai.runs.export)")
    if not private and (directory / INDEX).is_file():
        raise UserError(
            f"{INDEX} holds captions of the training data, which most data sets do not let you publish: leave --public "
            "out, or publish a captioner without retrieved captions"
        )
    hub = HfApi(endpoint=endpoint, token=token)
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        done = hub.upload_folder(
            repo_id=repository, folder_path=directory, allow_patterns=list(ALLOWED), commit_message=message
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise UserError(f"the hub did not take {repository} ({reason}); log in with `hf auth login`") from error
    return str(done.commit_url)


def model_card(
    captioner: Captioner, settings: CaptionerSettings, facts: CardFacts, index: CaptionIndex | None = None
) -> str:
    """Return the model card in Markdown with the hub's header."""
    origin = settings.backbone.pretrained or ""
    bases = [origin.removeprefix("hf-hub:")] if origin.startswith("hf-hub:") else []
    start = settings.language_model_pretrained
    bases += [start] if start and "/" in start and not Path(start).exists() else []
    sections = [
        _header(facts.licence, bases),
        f"# {facts.name}\n\nDescribes a photograph of skin in words. **Research software, not a medical device: "
        "nothing it writes is a diagnosis.**",
        "## Model\n\n" + _table(("part", "what", "parameters"), _parts(captioner, settings)),
        f"The mapper reads the tower's {_READS[captioner.reads]}."
        + (f" Prompt: `{settings.prompt}`." if settings.prompt else ""),
        _use(settings, index),
        "## Data\n\n" + (_list(facts.data) or "Not stated."),
        "## Training\n\n" + (_list(facts.training) or "Not stated."),
        _evaluation(facts.evaluation),
        f"## Licence\n\n{_licence(facts.licence)} Tower and language model keep the terms of their publishers; so do "
        "the photographs, of which none is part of this model.",
        "## Limits\n\nWhat a caption says beyond the photograph, such as age or history, is a guess. Skin tones and "
        "diagnoses that were rare in training are described worse; judge every group that the model is to serve.",
    ]
    return "\n\n".join(sections) + "\n"


_READS = {
    "pooled": "pooled embedding: its words have no place of their own",
    "patches": "patch tokens",
    "tokens": "class token, where it has one, and patch tokens",
}


def _header(licence: str, bases: Sequence[str]) -> str:
    lines = ["---", f"license: {licence}", "language: en", "library_name: clip-xai", "pipeline_tag: image-to-text"]
    lines += ["base_model:", *(f"- {json.dumps(base)}" for base in bases)] if bases else []
    return "\n".join([*lines, "tags:", "- dermatology", "- image-captioning", "---"])


def _parts(captioner: Captioner, settings: CaptionerSettings) -> list[tuple[str, str, str]]:
    model = captioner.language_model
    adapters = sum(p.numel() for name, p in model.named_parameters() if ".lora_" in name)
    tower = f"{settings.backbone.name} ({settings.backbone.pretrained or 'weights in this model'}), frozen"
    options = ", ".join(f"{key} {value}" for key, value in settings.mapper_settings.items())
    rows = [
        ("tower", tower, _count(captioner.backbone.parameters())),
        ("mapper", settings.mapper + (f" ({options})" if options else ""), _count(captioner.mapper.parameters())),
        ("language model", settings.language_model, f"{sum(p.numel() for p in model.parameters()) - adapters:,}"),
    ]
    if settings.lora is not None:
        rows.append(("adapters", f"LoRA of rank {settings.lora['rank']}", f"{adapters:,}"))
    return rows


def _use(settings: CaptionerSettings, index: CaptionIndex | None) -> str:
    lines = [
        "from clip_xai.models.export import from_pretrained",
        "",
        'captioner = from_pretrained("DIRECTORY OR ORGANISATION/MODEL")',
        "pixels = captioner.backbone.preprocess(photograph)[None]",
    ]
    said, prompts = "", ""
    if index is not None:
        count, template = settings.retrieved_captions, settings.retrieval_template
        lines.insert(0, "from pathlib import Path\n")
        lines.insert(2, "from clip_xai.models.retrieval import CaptionIndex")
        lines += [
            f'index = CaptionIndex.load(Path("DIRECTORY/{INDEX}"))',
            f"prompts = index.prompts(captioner.backbone.encode_image(pixels), {count}, template={template!r})",
        ]
        prompts = ", prompts=prompts"
        said = (
            f"\n\n**Retrieval**: the prompt of each photograph holds the captions of its {count} nearest training "
            f"photographs, none of its own patient or lesion: `{template}`. `{INDEX}` keeps {len(index.captions):,} "
            "training captions with their image embeddings and groups; the terms of the data hold for it."
        )
    lines.append(f"print(captioner.generate(captioner.read(pixels){prompts})[0].text)")
    return "## Use\n\n```python\n" + "\n".join(lines) + "\n```" + said


def _evaluation(markdown: str | None) -> str:
    if markdown is None:
        return "## Evaluation\n\nNot evaluated: no number is claimed."
    # The evaluation's own headings go one level down.
    lines = ["#" + line if line.startswith("#") else line for line in markdown.strip().splitlines()]
    return "\n".join(lines)


def _licence(licence: str) -> str:
    return "Nobody has chosen a licence for these weights yet." if licence == "other" else f"Weights: {licence}."


def _list(items: Mapping[str, str]) -> str:
    return "\n".join(f"- **{key}**: {value}" for key, value in items.items())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def _count(parameters: object) -> str:
    return f"{sum(p.numel() for p in parameters):,}"  # type: ignore[attr-defined]
