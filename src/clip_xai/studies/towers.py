"""Why do published explainers fail on the embedded tower? ``python -m clip_xai.studies.towers``: small towers, judged.

Each tower is trained at a quarter of the embedded one's recipe and differs from it in one thing. Its explainers are
judged by causes that are known, on an image-text contrast, which asks the tower alone, and on words of a captioner that
is trained on it, beside the same methods at random weights. Explainers have no part in any training.

A stopped run goes on where it stopped. Choose on one ``--seed``, confirm with another: of training and of scenes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from clip_xai.config.cli import compose_job, report_errors
from clip_xai.errors import UserError
from clip_xai.explanations.causes.measures import AGREEMENT
from clip_xai.explanations.causes.tables import ALL
from clip_xai.files import replacing, write_text
from clip_xai.jobs.evaluate import evaluate
from clip_xai.jobs.train import train
from clip_xai.models.assets import TINY_GPT2
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.runs.directories import claim
from clip_xai.studies.pretrain import Recipe, train_clip
from clip_xai.text import counted, with_bounds

QUARTER: Mapping[str, Any] = {"scenes": 4_000, "test_scenes": 500, "steps": 450, "warmup": 25, "whole_pictures": 30}
#: Name -> what is different from the embedded tower, at most one thing each.
TOWERS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "mean of patches": {"readout": "avg"},
    "two blocks": {"layers": 2},
    "one head": {"head_width": 128},
    "eight heads": {"head_width": 16},
    "no patch dropout": {"patch_dropout": 0.0},
    "crowded scenes": {"least_parts": 7},
    "six blocks": {"layers": 6},
}
METHODS = ("gradcam", "gradeclip", "layercam", "legrad", "attention_gradient", "saliency", "integrated_gradients")
NOTHING_ELSE = ("several=0", "tones=0", "measured=0", "again=0", "ledger=0")


@dataclass(frozen=True)
class Plan:
    """What is trained and judged.

    Attributes:
        seed: Of training, and of the fresh scenes.
        scenes: Fresh scenes that explainers are judged on.
        methods: The explainers.
        quarter: What of the embedded tower's recipe is smaller.
        captions: Settings of the captioner's training.
    """

    seed: int = 0
    scenes: int = 40
    methods: tuple[str, ...] = METHODS
    quarter: Mapping[str, Any] = field(default_factory=lambda: dict(QUARTER))
    captions: tuple[str, ...] = (
        "data.synthetic.scale=0.035",
        "data.root=data/demo",
        "data.output_dir=data/demo_manifest",
    )


def recipe_of(name: str, plan: Plan) -> Recipe:
    """Return the recipe of a tower.

    Raises:
        UserError: There is no such tower.
    """
    if name not in TOWERS:
        raise UserError(f"there is no tower {name!r}; choose one of {', '.join(TOWERS)}")
    return replace(Recipe(seed=plan.seed, **plan.quarter), **TOWERS[name])


def tower_at(name: str, plan: Plan, work: Path) -> Path:
    """Train a tower, or find the one that an earlier run has finished; return its file of weights."""
    recipe, place = recipe_of(name, plan), work / folder_of(name)
    report = place / "recipe.json"
    if not report.is_file() or json.loads(report.read_text())["recipe"] != json.loads(json.dumps(asdict(recipe))):
        train_clip(recipe, CaptionTokenizer.load(TINY_GPT2), work / "pictures", 2, recipe.steps, place / "clip")
    return place / "clip" / "model.safetensors"


def folder_of(name: str) -> str:
    """Return a tower's folder."""
    return name.replace(" ", "_")


def judged(name: str, plan: Plan, work: Path) -> pd.DataFrame:
    """Train a tower and a captioner on it, and judge explainers of both.

    Returns:
        A row for each of ``target`` and ``method``: correctness with its interval, and the difference from the same at
        random weights, paired by scene, and whether it is apart from 0, corrected for all methods.
    """
    weights, place = tower_at(name, plan, work), work / folder_of(name)
    common = ["trainer=cpu", "logger=csv", f"seed={plan.seed}"]
    stages = [place / f"stage{number}" for number in (1, 2)]
    for number, run_dir in enumerate(stages, start=1):
        typed = ["experiment=demo", f"stage={number}", f"backbone.pretrained={weights}", *common, *plan.captions]
        typed += [f"init_from={stages[0]}"] if number == 2 else []
        train(compose_job("train", typed, run_dir))  # a finished run is read, a broken one goes on
    asking = ["task=explanations", f"ckpt={stages[1]}", f"xai=[{','.join(plan.methods)}]", *common]
    asking += [f"protocol.{setting}" for setting in (f"scenes={plan.scenes}", *NOTHING_ELSE)]
    table = _rows(evaluate(compose_job("evaluate", asking, place / "judged")))
    accuracies = json.loads((place / "recipe.json").read_text())["zero_shot_accuracy"]
    return table.assign(tower=name, diagnosis=accuracies["diagnosis"], position=accuracies["position"])


def _rows(metrics: Mapping[str, Any]) -> pd.DataFrame:
    ranks = [row for row in metrics["ranks"] if row["criterion"] == AGREEMENT and row["scenes"] == ALL]
    own = [row for row in ranks if row["lead_value"] is not None]
    keys = ("target", "method", "value", "low", "high", "lead_value", "lead_low", "lead_high", "leads", "groups")
    return pd.DataFrame([{key: row[key] for key in keys} for row in own])


def leading(table: pd.DataFrame, methods: Iterable[str]) -> pd.DataFrame:
    """Return for each tower in how many of its questions each method leads its twin at random weights."""
    shown = table[table["method"].isin(list(methods))]
    return shown.pivot_table(index="tower", columns="method", values="leads", aggfunc="sum", sort=False)


def lines(table: pd.DataFrame, methods: Sequence[str]) -> str:
    """Return the towers as a table of Markdown: value (lead over random weights [95 % interval]), leads in bold."""
    columns = [(target, method) for target in dict.fromkeys(table["target"]) for method in methods]
    head = ["tower", "zero-shot diagnosis", *(f"{method}: {target}" for target, method in columns)]
    rows = [head, ["---"] * len(head)]
    for tower, of_tower in table.groupby("tower", sort=False):
        cells = [str(tower), f"{of_tower['diagnosis'].iloc[0]:.3f}"]
        for target, method in columns:
            at = (of_tower["target"] == target) & (of_tower["method"] == method)
            cells.append(_cell(of_tower[at].iloc[0]) if at.any() else "–")
        rows.append(cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(row: pd.Series) -> str:
    text = f"{row['value']:.2f} ({with_bounds(row['lead_value'], row['lead_low'], row['lead_high'], sign='+')})"
    return f"**{text}**" if row["leads"] else text


def main(arguments: list[str] | None = None) -> None:
    """Train and judge the towers, and print what came out."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/towers"))
    parser.add_argument("--towers", nargs="+", default=list(TOWERS), metavar="NAME", help=", ".join(TOWERS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=Plan.scenes)
    options = parser.parse_args(arguments)
    torch.set_flush_denormal(True)  # denormal numbers make tiny models ten times slower on some processors
    plan = Plan(options.seed, options.scenes)
    for name in options.towers:
        recipe_of(name, plan)
    claim(options.work, "towers", {"settings": json.loads(json.dumps(asdict(plan)))}, setting="--work")
    print(f"{counted(len(options.towers), 'tower')}, about half an hour each on one idle core", flush=True)
    tables = []
    for name in options.towers:
        tables.append(judged(name, plan, options.work))
        table = pd.concat(tables, ignore_index=True)
        with replacing(options.work / "towers.csv") as unfinished:
            table.to_csv(unfinished, index=False)
        shown = lines(table, ("gradcam", "gradeclip"))
        write_text(options.work / "towers.md", shown + "\n")
        Console().print(shown, markup=False, soft_wrap=True)
    print(leading(pd.concat(tables), METHODS).to_string())
    print(f"tables: {options.work}")


if __name__ == "__main__":
    with report_errors("train"):
        main()
