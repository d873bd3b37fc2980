"""Hand a captioner on: a directory with its model card, and the way to the hub.

    python -m clip_xai.jobs.export latest --to DIR
    python -m clip_xai.jobs.export runs/train/RUN --to DIR --licence cc-by-nc-4.0 --push ORGANISATION/MODEL
    python -m clip_xai.jobs.export moxeeeem/dermlip-gpt2-captioner --original --to DIR
    python -m clip_xai.jobs.export coco_weights.pt --clipcap --tower openai_b32 --to DIR

The last two import a checkpoint of the original CLIP-XAI captioner, from the hub or from its ``.pt`` file, and one of
ClipCap, whose file does not name its tower.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from clip_xai.data.sources import SOURCES
from clip_xai.data.vocabulary import GROUPS
from clip_xai.disk import disk_line
from clip_xai.errors import UserError
from clip_xai.files import read_json
from clip_xai.models.captioner import Captioner
from clip_xai.models.card import CardFacts
from clip_xai.models.clipcap import load_clipcap
from clip_xai.models.export import export_captioner, is_local, push_to_hub, without_places
from clip_xai.models.importing import load_original
from clip_xai.models.terms import merged_terms, require_pushable
from clip_xai.models.weights import CaptionerSettings
from clip_xai.runs.checkpoints import CAPTIONS, resolve_checkpoint, run_of
from clip_xai.runs.directories import look, note
from clip_xai.runs.lineage import Learned, Lineage
from clip_xai.tasks.captions.opened import open_captioner, settings_of
from clip_xai.text import plural

log = logging.getLogger(__name__)
SAW_RENDERED_ALONE = (
    "This captioner has seen rendered pictures alone: what it says of a photograph of a person means nothing."
)
FINGERPRINT = "captioner's fingerprint"  # of an evaluation's notes


def export(arguments: argparse.Namespace) -> Path:
    """Export what the arguments name and return the directory.

    Raises:
        UserError: There is nothing to export, or the hub refuses.
    """
    target = Path(arguments.to)
    name = (arguments.push or target.resolve().name).rpartition("/")[2]
    index = None
    _require_meant(arguments)
    if arguments.original or arguments.clipcap:
        captioner, settings, facts = imported(name, arguments)
    else:
        place = resolve_checkpoint(arguments.ckpt, Path(arguments.runs_root), task=CAPTIONS)
        captioner, retrieval = open_captioner(place)
        settings = settings_of(place)
        index = None if retrieval is None else retrieval.index
        facts = run_facts(name, arguments.licence, place, captioner, Path(arguments.runs_root))
    if arguments.push:
        require_pushable(settings.backbone, captioner.provenance)
    public = without_places(settings, holds_backbone=False)
    facts = replace(facts, terms=merged_terms(public, data_terms(captioner, facts.data), index))
    for part, terms in facts.terms.items():
        print(f"{part}: {terms}", file=sys.stderr)
    with_backbone = True if arguments.with_backbone else None
    chosen = {name: getattr(arguments, name) for name in ("licence", "with_backbone", "original")}
    # The same weights with other heads are another captioner.
    others = ("clipcap", "heads")
    chosen |= {name: getattr(arguments, name) for name in others if getattr(arguments, name)}
    weights = {"captioner": captioner.fingerprint()[:16]}
    asked = {"settings": chosen, "model": weights}
    if look(target, "export", asked, setting="--to") is not None:
        log.info("%s holds this export already", target)
        return target
    export_captioner(captioner, settings, target, facts, with_backbone, index)
    note(target, "export", asked)
    if is_local(settings.backbone.pretrained):
        log.warning(
            "the tower's weights, which lie at %s, are part of %s: check their licence before you hand it on",
            settings.backbone.pretrained,
            target,
        )
    return target


def imported(name: str, arguments: argparse.Namespace) -> tuple[Captioner, CaptionerSettings, CardFacts]:
    """Read the checkpoint of others that the arguments name.

    Args:
        name: The model's name, for its card.
        arguments: The command's.

    Raises:
        UserError: It cannot be read, or something has to be said of it.
    """
    given = arguments
    if given.original:
        captioner, settings, decoding = load_original(
            given.ckpt, given.tokenizer, given.backbone, given.revision, given.heads
        )
        data = {"DermaCAP": "as the original CLIP-XAI describes it; its splits are by photograph, not by patient"}
        language = "en"
    else:
        captioner, settings, decoding = load_clipcap(
            given.ckpt, given.tower, given.tokenizer, given.backbone, given.heads, given.normalize_embedding
        )
        data, language = {}, None
    training = {"imported from": shown_place(given.ckpt), "decoding": _plain(asdict(decoding))}
    return captioner, settings, CardFacts(name, given.licence, data, training, language=language, decoding=decoding)


def run_facts(name: str, licence: str, place: Path, captioner: Captioner, runs_root: Path) -> CardFacts:
    """Read from a run's files, and from what its weights say of themselves, what its model card says.

    Args:
        name: The model's name.
        licence: The weights' licence.
        place: The run's exported model, or a checkpoint.
        captioner: What was loaded from there.
        runs_root: Where an evaluation of it is looked for, besides beside the run.
    """
    run_dir = run_of(place)
    written = run_dir / ".hydra" / "config.yaml"
    config: dict[str, Any] = (yaml.safe_load(written.read_text(encoding="utf-8")) if written.is_file() else None) or {}
    stage, metrics = config.get("stage") or {}, read_json(run_dir / "metrics.json") or {}
    training = {key: _plain(value) for key, value in {**stage, **metrics}.items() if value not in (None, [], {})}
    lineage = Lineage.unpacked(captioner.provenance)
    if lineage is None:
        return CardFacts(name, licence, {}, training, evaluation_of(place, captioner, runs_root))
    training |= {f"run {number}": step for number, step in enumerate(lineage.steps, start=1)}
    own = any(learned.source not in SOURCES for learned in lineage.learned)
    return CardFacts(
        name,
        licence,
        said_of(lineage.learned, captioner.vocabulary.groups),
        training,
        evaluation_of(place, captioner, runs_root),
        # The captions that this package composes or adapts are English; whose language others are in, nobody says.
        "en" if lineage.learned and not own else None,
        warning=SAW_RENDERED_ALONE if lineage.only_rendered else "",
    )


def said_of(learned: Sequence[Learned], group_words: tuple[str, str] = GROUPS) -> dict[str, str]:
    """Return for each source that a model has learned from how much of it, and under which terms.

    Args:
        learned: What it has learned from.
        group_words: What a group is, singular and plural.
    """
    found: dict[str, str] = {}
    for source in dict.fromkeys(one.source for one in learned):
        most = max((one for one in learned if one.source == source), key=lambda one: one.photographs)
        count = f"{most.photographs:,} {plural(most.photographs, 'photograph')} of {most.groups:,} "
        count += plural(most.groups, *group_words)
        known = SOURCES.get(source)
        if most.rendered == most.photographs:
            layout = f" in the layout of {known.title}" if known else ""
            found[f"{source}, rendered"] = f"{count}, all drawn by this package{layout}: no publisher's are among them"
        elif known is None:
            found[source] = f"{count}; no licence stated"
        else:
            drawn = f", {most.rendered:,} of them drawn by this package" if most.rendered else ""
            found[known.title] = f"{count}{drawn}; {known.licence}; {known.terms}"
    return found


def data_terms(captioner: Captioner, described: Mapping[str, str]) -> dict[str, str]:
    """Return for each source that a captioner has learned from its licence and terms.

    Args:
        captioner: The captioner; its lineage is in its weights.
        described: What its card says of its data, for weights without a lineage.
    """
    lineage = Lineage.unpacked(captioner.provenance)
    if lineage is None:
        return dict(described)
    found: dict[str, str] = {}
    for source in dict.fromkeys(one.source for one in lineage.learned):
        known = SOURCES.get(source)
        if all(one.rendered == one.photographs for one in lineage.learned if one.source == source):
            found[f"{source}, rendered"] = "MIT, drawn by this package"
        else:
            found[source] = "no licence stated" if known is None else f"{known.licence}; {known.terms}"
    return found


def evaluation_of(place: Path, captioner: Captioner, runs_root: Path) -> str | None:
    """Return the Markdown of the newest evaluation of a model, or None.

    Args:
        place: Its exported model or checkpoint.
        captioner: What was loaded from there; an evaluation knows it by its fingerprint.
        runs_root: Where evaluations are looked for; those beside the run count, too.
    """
    found, fingerprint = [], captioner.fingerprint()[:12]
    roots = {root.resolve() for root in (runs_root, run_of(place).parent.parent)}
    for file in (file for root in roots for depth in ("", "*/") for file in root.glob(f"evaluate/{depth}metrics.json")):
        noted = (read_json(file) or {}).get("settings") or {}
        judged = noted.get("captioner")
        known = noted.get(FINGERPRINT)
        same = known == fingerprint if known else judged is not None and Path(judged).resolve() == place.resolve()
        if same and file.with_name("evaluation.md").is_file():
            found.append(file)
    if not found:
        return None
    newest = max(found, key=lambda file: file.stat().st_mtime)
    text = newest.with_name("evaluation.md").read_text(encoding="utf-8")
    judged = (read_json(newest) or {})["settings"].get("captioner")
    return text if judged is None else text.replace(str(judged), shown_place(str(judged)))


def shown_place(place: str) -> str:
    """Return a place as others may read it: the last two parts of a path of this machine."""
    path = Path(place)
    return "/".join(path.absolute().parts[-2:]) if path.exists() or path.is_absolute() else place


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m clip_xai.jobs.export", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("ckpt", help="latest, a run directory, an exported model, or a checkpoint of others to import")
    parser.add_argument("--to", required=True, help="directory to write, new or empty")
    parser.add_argument("--licence", default="other", help="of the weights, as in cc-by-nc-4.0")
    parser.add_argument("--with-backbone", action="store_true", help="write the tower's weights too")
    parser.add_argument("--push", metavar="ORGANISATION/MODEL", help="upload it to the hub")
    parser.add_argument("--public", action="store_true", help="a new repository is private otherwise")
    parser.add_argument("--runs-root", default="runs")
    others = parser.add_argument_group("checkpoints of others")
    scheme = others.add_mutually_exclusive_group()
    scheme.add_argument("--original", action="store_true", help="import a checkpoint of the original captioner")
    scheme.add_argument("--clipcap", action="store_true", help="import a checkpoint of ClipCap")
    others.add_argument("--tokenizer", help="a folder with GPT-2's tokenizer.json")
    others.add_argument("--backbone", help="where the tower's weights are")
    others.add_argument("--heads", type=int, help="attention heads of its GPT-2, if not width / 64")
    others.add_argument("--revision", help="with --original: a commit of its repository")
    others.add_argument("--tower", help="with --clipcap: the backbone it was trained on, such as openai_b32")
    others.add_argument(
        "--normalize-embedding",
        action="store_true",
        help="with --clipcap: it was trained on embeddings of length 1, as transformer_weights.pt was",
    )
    given = parser.parse_args(arguments)
    try:
        directory = export(given)
        print(directory)
        if given.push:
            print(push_to_hub(directory, given.push, private=not given.public))
    except Exception as error:
        line = str(error) if isinstance(error, UserError) else disk_line(error, {"--to": Path(given.to)})
        if line is None:
            raise
        print(line, file=sys.stderr)
        return 1
    return 0


def _require_meant(arguments: argparse.Namespace) -> None:
    """Refuse what would count for nothing with the other arguments."""
    schemes = {"original": ("revision",), "clipcap": ("tower", "normalize_embedding")}
    schemes = {name: (*own, "tokenizer", "backbone", "heads") for name, own in schemes.items()}
    for name in dict.fromkeys(name for names in schemes.values() for name in names):
        where = [scheme for scheme, names in schemes.items() if name in names]
        if getattr(arguments, name) not in (None, False) and not any(getattr(arguments, one) for one in where):
            flags = " or ".join(f"--{scheme}" for scheme in where)
            raise UserError(f"--{name.replace('_', '-')} goes with {flags} alone: add that, or leave it out")


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
