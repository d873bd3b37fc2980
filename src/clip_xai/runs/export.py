"""Hand a captioner on: a directory with its model card, and the way to the hub.

    python -m clip_xai.runs.export latest --to DIR
    python -m clip_xai.runs.export runs/train/RUN --to DIR --licence cc-by-nc-4.0 --push ORGANISATION/MODEL
    python -m clip_xai.runs.export moxeeeem/dermlip-gpt2-captioner --original --to DIR

The last imports a checkpoint of the original CLIP-XAI captioner, from the hub or from its ``.pt`` file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from clip_xai.data.sources import SOURCES
from clip_xai.disk import disk_line
from clip_xai.errors import UserError
from clip_xai.files import read_json
from clip_xai.models.export import CardFacts, export_captioner, push_to_hub
from clip_xai.models.importing import load_original
from clip_xai.models.weights import load_captioner, load_retrieval, load_settings
from clip_xai.runs.checkpoints import resolve_checkpoint
from clip_xai.runs.directories import claim


def export(arguments: argparse.Namespace) -> Path:
    """Export what the arguments name and return the directory.

    Raises:
        UserError: There is nothing to export, or the hub refuses.
    """
    target = Path(arguments.to)
    name = (arguments.push or target.resolve().name).rpartition("/")[2]
    index = None
    if arguments.original:
        captioner, settings, decoding = load_original(
            arguments.ckpt, arguments.tokenizer, arguments.backbone, arguments.revision
        )
        facts = CardFacts(
            name,
            arguments.licence,
            data={"DermaCAP": "as the original CLIP-XAI describes it; its splits are by photograph, not by patient"},
            training={"imported from": arguments.ckpt, "decoding": _plain(asdict(decoding))},
        )
    else:
        directory = resolve_checkpoint(arguments.ckpt, Path(arguments.runs_root))
        captioner = load_captioner(directory)
        settings = load_settings(directory)
        retrieval = load_retrieval(settings, directory)
        index = None if retrieval is None else retrieval.index
        facts = run_facts(name, arguments.licence, directory, Path(arguments.runs_root))
    with_backbone = True if arguments.with_backbone else None
    chosen = {name: getattr(arguments, name) for name in ("licence", "with_backbone", "original")}
    weights = {"captioner": captioner.fingerprint()[:16]}
    claim(target, "export", {"settings": chosen, "model": weights}, setting="--to")
    export_captioner(captioner, settings, target, facts, with_backbone, index)
    return target


def run_facts(name: str, licence: str, directory: Path, runs_root: Path) -> CardFacts:
    """Read from a run's files what its model card says.

    Args:
        name: The model's name.
        licence: The weights' licence.
        directory: The run's exported model.
        runs_root: Where an evaluation of it is looked for.
    """
    run_dir = directory.parent
    written = run_dir / ".hydra" / "config.yaml"
    config: dict[str, Any] = (yaml.safe_load(written.read_text()) if written.is_file() else None) or {}
    metrics = read_json(run_dir / "metrics.json") or {}
    data, stage = config.get("data") or {}, config.get("stage") or {}
    names = stage.get("sources") or list(SOURCES)
    drawn = "drawn by this package in the layout of " if data.get("synthetic") else ""
    said = {
        SOURCES[source].title: f"{drawn}{SOURCES[source].title}" if drawn else SOURCES[source].licence
        for source in names
        if source in SOURCES and data
    }
    training = {key: _plain(value) for key, value in {**stage, **metrics}.items() if value not in (None, [], {})}
    return CardFacts(name, licence, said, training, evaluation_of(directory, runs_root))


def evaluation_of(directory: Path, runs_root: Path) -> str | None:
    """Return the Markdown of the newest evaluation of an exported model, or None."""
    found = []
    for file in runs_root.glob("evaluate/*/metrics.json"):
        judged = (read_json(file) or {}).get("settings", {}).get("captioner")
        if judged is not None and Path(judged).resolve() == directory.resolve():
            found.append(file)
    if not found:
        return None
    return max(found, key=lambda file: file.stat().st_mtime).with_name("evaluation.md").read_text(encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m clip_xai.runs.export", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("ckpt", help="latest, a run directory, an exported model, or with --original its checkpoint")
    parser.add_argument("--to", required=True, help="directory to write, new or empty")
    parser.add_argument("--licence", default="other", help="of the weights, as in cc-by-nc-4.0")
    parser.add_argument("--with-backbone", action="store_true", help="write the tower's weights too")
    parser.add_argument("--push", metavar="ORGANISATION/MODEL", help="upload it to the hub")
    parser.add_argument("--public", action="store_true", help="a new repository is private otherwise")
    parser.add_argument("--runs-root", default="runs")
    parser.add_argument("--original", action="store_true", help="import a checkpoint of the original captioner")
    parser.add_argument("--tokenizer", help="with --original: a folder with GPT-2's tokenizer.json")
    parser.add_argument("--backbone", help="with --original: where the tower's weights are")
    parser.add_argument("--revision", help="with --original: a commit of its repository")
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


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
