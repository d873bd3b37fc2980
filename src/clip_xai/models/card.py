"""The model card of a captioner that is handed on: Markdown with the hub's header, from what is known of it."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from clip_xai.models.captioner import Captioner
from clip_xai.models.retrieval import INDEX, CaptionIndex
from clip_xai.models.settings import Decoding
from clip_xai.models.weights import CaptionerSettings
from clip_xai.text import markdown, plural


@dataclass(frozen=True)
class CardFacts:
    """What a model card says beyond what the model itself knows. All of it is escaped where it is written.

    Attributes:
        name: The model's name.
        licence: Identifier of the weights' licence, such as ``cc-by-nc-4.0``; ``other`` where nobody has chosen one.
        data: Data set -> what is said of it: photographs, licence, terms.
        training: Setting -> value, how it was trained.
        evaluation: The evaluation's Markdown, baselines included, or None where there was none.
        terms: Part -> the terms that bind it: tower, data sets, index of captions.
        language: Code of the captions' language, such as ``en``; None where it is not known.
        decoding: How it is to be used, for a captioner that was made for another decoding than ours; None for ours.
        warning: What a reader must know before anything else; empty for most.
    """

    name: str
    licence: str = "other"
    data: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, str] = field(default_factory=dict)
    evaluation: str | None = None
    language: str | None = None
    decoding: Decoding | None = None
    warning: str = ""
    terms: Mapping[str, str] = field(default_factory=dict)


def model_card(
    captioner: Captioner, settings: CaptionerSettings, facts: CardFacts, index: CaptionIndex | None = None
) -> str:
    """Return the model card."""
    origin = settings.backbone.pretrained or ""
    bases = [origin.removeprefix("hf-hub:")] if origin.startswith("hf-hub:") else []
    start = settings.language_model_pretrained
    bases += [start] if start and "/" in start and not Path(start).exists() else []
    words = captioner.vocabulary
    sections = [
        _header(facts, bases, words.specialty),
        f"# {markdown(facts.name)}\n\nDescribes {words.picture} in words. **Research software, not a medical "
        "device: nothing it writes is a diagnosis.**" + (f"\n\n**{markdown(facts.warning)}**" if facts.warning else ""),
        "## Model\n\n" + _table(("part", "what", "parameters"), _parts(captioner, settings)),
        f"The mapper reads the tower's {_READS[captioner.reads]}."
        + (f" Prompt: `{_code(settings.prompt)}`." if settings.prompt else ""),
        _use(settings, index, facts.decoding, words.groups[0]),
        "## Data\n\n" + (_list(facts.data) or "Not stated."),
        "## Training\n\n" + (_list(facts.training) or "Not stated."),
        _evaluated(facts.evaluation),
        f"## Licence\n\n{_licence(facts.licence)} Tower and language model keep the terms of their publishers; so do "
        "the photographs, of which none is part of this model." + _terms(facts.terms),
        "## Limits\n\nWhat a caption says beyond the photograph, such as age or history, is a guess. "
        f"{markdown(words.limits)}; judge every group that the model is to serve.",
    ]
    return "\n\n".join(sections) + "\n"


_READS = {
    "pooled": "pooled embedding: its words have no place of their own",
    "patches": "patch tokens",
    "tokens": "class token, where it has one, and patch tokens",
}


def _header(facts: CardFacts, bases: Sequence[str], specialty: str) -> str:
    said: dict[str, Any] = {"license": facts.licence}
    if facts.language is not None:
        said["language"] = facts.language
    said |= {"library_name": "clip-xai", "pipeline_tag": "image-to-text"}
    if bases:
        said["base_model"] = list(bases)
    said["tags"] = [specialty, "image-captioning"]
    return f"---\n{yaml.safe_dump(said, sort_keys=False, allow_unicode=True)}---"


def _parts(captioner: Captioner, settings: CaptionerSettings) -> list[tuple[str, str, str]]:
    model = captioner.language_model
    adapters = sum(p.numel() for name, p in model.named_parameters() if ".lora_" in name)
    tower = f"{settings.backbone.name} ({settings.backbone.pretrained or 'weights in this model'}), frozen"
    options = ", ".join(f"{key} {value}" for key, value in settings.mapper_settings.items())
    rows = [
        ("tower", tower, _count(captioner.backbone)),
        ("mapper", settings.mapper + (f" ({options})" if options else ""), _count(captioner.mapper)),
        ("language model", settings.language_model, f"{sum(p.numel() for p in model.parameters()) - adapters:,}"),
    ]
    if settings.lora is not None:
        rows.append(("adapters", f"LoRA of rank {settings.lora['rank']}", f"{adapters:,}"))
    return rows


def _use(settings: CaptionerSettings, index: CaptionIndex | None, decoding: Decoding | None, group: str) -> str:
    what, how = "REPORTED  # as captions are evaluated", "REPORTED"
    if decoding is not None:
        usual = asdict(Decoding())
        chosen = [f"{key}={value!r}" for key, value in asdict(decoding).items() if value != usual[key]]
        what, how = "Decoding", f"Decoding({', '.join(chosen)})".replace("`", "\\x60")  # no end of the code block
    lines = [
        f"from clip_xai.models.settings import {what}",
        "from clip_xai.models.export import from_pretrained",
        "",
        'captioner = from_pretrained("DIRECTORY OR ORGANISATION/MODEL")',
        "pixels = captioner.backbone.preprocess(photograph)[None]",
    ]
    said, prompts = "", ""
    if index is not None:
        count, template = settings.retrieved_captions, settings.retrieval_template
        lines.insert(0, "from pathlib import Path\n")
        lines.insert(3, "from clip_xai.models.retrieval import CaptionIndex")
        lines += [
            f'index = CaptionIndex.load(Path("DIRECTORY/{INDEX}"))',
            f"prompts = index.prompts(captioner.backbone.encode_image(pixels), {count}, template={template!r})",
        ]
        prompts = ", prompts=prompts"
        said = (
            f"\n\n**Retrieval**: the prompt of each photograph holds the captions of its {count} nearest training "
            f"photographs, none of its own {group}: `{_code(template)}`. `{INDEX}` keeps "
            f"{len(index.captions):,} {plural(len(index.captions), 'training caption')}, with embeddings and groups; "
            "the terms of the data hold for it."
        )
    lines.append(f"print(captioner.generate(captioner.read(pixels), {how}{prompts})[0].text)")
    return "## Use\n\n```python\n" + "\n".join(lines) + "\n```" + said


def _evaluated(report: str | None) -> str:
    if report is None:
        return "## Evaluation\n\nNot evaluated: no number is claimed."
    # It is Markdown of this package; what of it came from the data's names may hold HTML, in those of earlier versions
    # as it stood. Its headings go one level down.
    lines = [html.escape(html.unescape(line), quote=False).replace("&gt;", ">") for line in report.strip().splitlines()]
    return "\n".join("#" + line if line.startswith("#") else line for line in lines)


def _licence(licence: str) -> str:
    if licence == "other":
        return "Nobody has chosen a licence for these weights yet."
    return f"Weights: {markdown(licence)}."


def _terms(terms: Mapping[str, str]) -> str:
    if not terms:
        return ""
    return f"\n\nThe terms of all these parts were merged here, and the strictest of them hold:\n\n{_list(terms)}"


def _list(items: Mapping[str, str]) -> str:
    return "\n".join(f"- **{markdown(key)}**: {markdown(value)}" for key, value in items.items())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([markdown(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def _code(text: str) -> str:
    """Return a text for a code span, which has no escapes."""
    return " ".join(text.split()).replace("`", "'")


def _count(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()):,}"
