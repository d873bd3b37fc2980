"""Which explainer shows that a captioner cheats? ``python -m clip_xai.studies.shortcuts [ckpt=latest] [seeds=[0]]``.

An artefact is planted into half of all training scenes so that it goes with melanoma: P(artefact | melanoma) =
(1 + p) / 2. Captioners on one frozen tower learn from them at p = 0, .2, .5, .8 and 1, and a second one at p = 0.
Then, on fresh scenes with the artefact added, removed and moved: how far does it move the diagnosis, which share of
each method's heat lies on it, and from which p on is that share apart from p = 0?

The captioners start from that of ``ckpt=``, and the tables are kept beside it for the page of ``task=explanations``;
without ``ckpt=`` from one that learns scenes without the artefact on the embedded tower first.

Half of the lesions do not tell which diagnosis they are of: rendered lesions say it so plainly that a captioner, which
sees them as well as the artefact, otherwise has no use for a shortcut.

Settings: ``scenes=32 training=1600 epochs=8 first_epochs=6 unclear=.5 seeds=[0] artefacts=[ruler] run_dir=DIR``, and
``xai=``, ``trainer=`` and ``generation.`` as for ``explain.py``.
``artefacts=[ruler,ink,dark_corner,colour_cast,letter]`` plants them all, one at a time. The same command in the same
directory goes on. Writes ``index.html``, ``shortcuts.csv``, ``maps.parquet``, ``scenes.parquet``, ``metrics.json`` and
``shortcuts.md``.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from clip_xai.config.cli import compose_job, report_errors
from clip_xai.config.schemas import ExplainConfig
from clip_xai.data.synthetic.planted import ShortcutScene, artefact_named
from clip_xai.errors import UserError
from clip_xai.explanations.causes.cheats import (
    PER_SEED,
    UNCLEAR,
    CheatingData,
    Recipe,
    cheating_captioner,
    innocent_captioner,
    visible_scenes,
)
from clip_xai.explanations.causes.scene_targets import Asker
from clip_xai.explanations.causes.scenes import FRESH
from clip_xai.explanations.causes.shortcuts import LEARNERS, Strength, scene_rows
from clip_xai.explanations.causes.store import load_rows, save_rows
from clip_xai.files import replacing, write_json
from clip_xai.models.backbones.source import BackboneSource
from clip_xai.models.captioner import Captioner
from clip_xai.models.weights import CaptionerSettings, build_captioner, load_state, trainable_state
from clip_xai.progress import track
from clip_xai.ranges import SEEDS, Checked, setting
from clip_xai.runs.checkpoints import resolve_checkpoint
from clip_xai.runs.directories import claim, code_digest, plugin_digest
from clip_xai.runs.instantiate import decoding, device_of, explainers_of
from clip_xai.studies.shortcut_results import Measured, write_results
from clip_xai.tasks.explanations.evaluation import require_askable
from clip_xai.tasks.task import task_at
from clip_xai.text import counted
from clip_xai.xai.explainer import Explainer

FIRST_RATE = 3e-3
_EMBEDDED = CaptionerSettings(BackboneSource("tiny", "tiny", "embedded:tiny"), "resampler", {"prefix_length": 8})
_OF_EXPLAIN = ("xai", "trainer", "generation", "ckpt", "runs_root", "plugins")
# Seconds of one idle core for the embedded tower.
_PICTURE, _STEP, _MAP, _TRUTH = 0.035, 0.13, 0.3, 3.0


@dataclass
class StudySettings(Checked):
    """What is measured.

    Attributes:
        scenes: Fresh scenes to judge on, for each artefact and seed.
        training: Scenes that the captioners learn from.
        epochs: How often they see each of them.
        first_epochs: Without ``ckpt=``, how often the captioner sees them before, without the artefact.
        unclear: Share of scenes whose lesion does not tell which diagnosis it is; without them nothing has to cheat.
        seeds: Each gives other scenes, texts and weights; all together are judged, and each by itself.
        artefacts: What is planted, one at a time.
        run_dir: Where everything is written.
    """

    scenes: int = setting(32, least=12, most=2**14)
    training: int = setting(1_600, least=8, most=2**14)
    epochs: int = setting(8, least=1)
    first_epochs: int = setting(6, least=1)
    unclear: float = setting(UNCLEAR, least=0, most=1)
    seeds: tuple[int, ...] = (0,)
    artefacts: tuple[str, ...] = ("ruler",)
    run_dir: str = setting("runs/shortcuts", path=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or not all(0 <= one < SEEDS for one in self.seeds):
            raise UserError("seeds: give different whole numbers, as in seeds=[0,1]")
        if not self.artefacts:
            raise UserError("artefacts: name one at least, as in artefacts=[ruler]")
        try:
            self.artefacts = tuple(dict.fromkeys(artefact_named(one) for one in self.artefacts))
        except ValueError as error:
            raise UserError(f"artefacts: {error}") from error


@dataclass(frozen=True)
class Start:
    """What the captioners start from.

    Attributes:
        captioner: The captioner, in evaluation mode.
        words: The model in words.
        fingerprints: Of its weights.
        place: Its checkpoint; None for the embedded tower, whose captioner has to learn first.
    """

    captioner: Captioner
    words: str
    fingerprints: dict[str, str]
    place: Path | None = field(default=None)


def start_of(config: ExplainConfig, named: bool) -> Start:
    """Return the captioner of ``ckpt=``, or an untrained one on the embedded tower.

    Args:
        config: Settings of ``explain``.
        named: Whether a checkpoint is named.

    Raises:
        UserError: It does not write captions of rendered scenes, or retrieves captions for them.
    """
    if not named:
        torch.manual_seed(0)
        captioner = build_captioner(_EMBEDDED).eval()
        tower = captioner.backbone.fingerprint
        return Start(captioner, f"captioners on the embedded tower, fingerprint {tower[:12]}", {"tower": tower[:16]})
    place = resolve_checkpoint(config.ckpt, Path(config.runs_root), task="captions")
    model = task_at(place).opened(place)
    require_askable(model)
    if model.captioner is None or model.retrieval is not None:
        raise UserError(
            f"ckpt={config.ckpt} was trained behind retrieved captions, and there are none of planted scenes: name "
            "another, or leave out ckpt="
        )
    return Start(model.captioner, f"captioners trained on from {model.words}", dict(model.fingerprints), place)


def study(
    settings: StudySettings, start: Start, methods: Sequence[Explainer], config: ExplainConfig
) -> tuple[dict[str, Any], str]:
    """Plant, train, judge and write; see the module.

    Args:
        settings: What is measured.
        start: What captioners start from.
        methods: What explains them.
        config: Settings of ``explain``: the machine and how captions are written.

    Returns:
        What ``metrics.json`` holds, and the tables as text.
    """
    run_dir = Path(settings.run_dir)
    asked = {name: value for name, value in asdict(settings).items() if name != "run_dir"}
    asked |= {"xai": asdict(config.xai), "generation": asdict(config.generation)}
    code = code_digest("data", "models", "metrics", "xai", "explanations") + plugin_digest(methods)
    claim(run_dir, "shortcuts", {"settings": asked, "model": start.fingerprints, "code": code})
    print(estimate(settings, start, methods), flush=True)
    start.captioner.to(device_of(config.trainer))
    asker = Asker(start.captioner.backbone, start.captioner, decoding(config.generation))
    found: list[Measured] = []
    for seed in settings.seeds:
        for artefact in settings.artefacts:
            place = run_dir / f"seed_{seed}" / artefact.replace(" ", "_")
            learners, passed_over = captioners(place, asker, artefact, settings, start, seed)
            rows, scenes = _judged(place, asker, learners, artefact, settings, methods, seed)
            found.append(Measured(artefact, seed, rows, passed_over, scenes, learners))
    return write_results(settings, start.words, start.place, start.fingerprints, found, asker, methods)


def estimate(settings: StudySettings, start: Start, methods: Sequence[Explainer]) -> str:
    """Say what is going to be drawn, trained and explained, before it is."""
    parts = len(settings.seeds) * len(settings.artefacts)
    drawn = 3 * settings.training + 8 * settings.scenes
    steps = settings.epochs * len(LEARNERS) + (settings.first_epochs if start.place is None else 0)
    steps *= -(-settings.training // Recipe().batch_size)
    maps = settings.scenes * 3 * len(methods)
    said = (
        f"{counted(len(settings.artefacts), 'artefact')}, {counted(len(settings.seeds), 'seed')}: "
        f"{counted(drawn * parts, 'picture')} to draw, {counted(steps * parts, 'training step')} for "
        f"{counted(len(LEARNERS) * parts, 'captioner')}, {maps * parts} explanations, each of six captioners at once"
    )
    if start.place is not None:
        return said
    seconds = parts * (drawn * _PICTURE + steps * _STEP + maps * _MAP + settings.scenes * _TRUTH)
    minutes = counted(max(1, round(seconds / 60)), "minute")
    return f"{said}; about {minutes} of one idle core, if the methods are those of xai=judged"


def captioners(
    place: Path, asker: Asker, artefact: str, settings: StudySettings, start: Start, seed: int
) -> tuple[dict[Strength, Captioner], int]:
    """Train the captioners of one artefact, or load those that were trained before.

    Returns:
        The captioners, and how many training scenes were passed over, because they do not show their artefact.
    """
    data: CheatingData | None = None
    first: Captioner | None = None
    note, found = place / "training.json", {}
    for strength in LEARNERS:
        file = place / "captioners" / f"{strength.name.replace(' ', '_')}.safetensors"
        if not file.is_file():
            if data is None or first is None:
                data = CheatingData.drawn(asker, artefact, settings.training, seed, settings.unclear)
                save_rows([{"passed_over": data.passed_over}], note)
                first = start.captioner
                if start.place is None:
                    first = innocent_captioner(first, data, Recipe(settings.first_epochs, FIRST_RATE), seed)
            learned = cheating_captioner(
                first, data, strength.p, Recipe(settings.epochs), seed, lot=int(strength.again)
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as unfinished:
                save_file(trainable_state(learned, with_backbone=False), unfinished)
        # Also what was trained just now, so that a run that was stopped goes on with the very same weights.
        found[strength] = _loaded(start.captioner, file)
    return found, int((load_rows(note) or [{"passed_over": 0}])[0]["passed_over"])


def _loaded(captioner: Captioner, file: Path) -> Captioner:
    learner = copy.deepcopy(captioner, {id(captioner.backbone): captioner.backbone})
    load_state(learner, load_file(file, device=str(next(captioner.parameters()).device)), file)
    return learner.eval()


def _judged(
    place: Path, asker: Asker, learners: Mapping[Strength, Captioner], artefact: str, settings: StudySettings,
    methods: Sequence[Explainer], seed: int,
) -> tuple[list[dict[str, Any]], list[ShortcutScene]]:  # fmt: skip
    rows, scenes = [], []
    known_as = (artefact, asker.backbone.preprocess, settings.unclear)
    drawn = list(visible_scenes(FRESH + seed * PER_SEED, settings.scenes, *known_as))
    for number, one in enumerate(track(drawn, f"Maps with and without {artefact}, seed {seed}")):
        file = place / "scenes" / f"{number:06d}.json"
        known = load_rows(file)
        if known is None:
            known = scene_rows(asker, learners, artefact, one.scene, methods, seed)
            save_rows(known, file)
        rows += known
        scenes.append(one.scene)
    return rows, scenes


def settings_of(arguments: Sequence[str]) -> tuple[StudySettings, list[str]]:
    """Read settings as they are typed; those of ``explain`` come back as they are.

    Raises:
        UserError: One is unknown or out of its range.
    """
    given: dict[str, Any] = {}
    rest = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name.split(".")[0].split("@")[0].lstrip("+") in _OF_EXPLAIN:
            rest.append(argument)
        elif name not in StudySettings.__dataclass_fields__:
            known = ", ".join((*StudySettings.__dataclass_fields__, *_OF_EXPLAIN))
            raise UserError(f"{argument}: choose one of {known}, as in scenes=32")
        elif name == "run_dir":
            given[name] = value
        elif name == "unclear":
            given[name] = _number(argument, value)
        else:
            several = [one.strip().strip("'\"") for one in value.strip("[]").split(",") if one.strip()]
            if name != "artefacts" and not all(one.isdigit() for one in several):
                raise UserError(f"{argument}: give whole numbers, as in {name}={'[0,1]' if name == 'seeds' else 32}")
            if name in ("seeds", "artefacts"):
                given[name] = tuple(several if name == "artefacts" else map(int, several))
            elif len(several) != 1:
                raise UserError(f"{argument}: give one whole number")
            else:
                given[name] = int(several[0])
    return StudySettings(**{"run_dir": f"runs/shortcuts/{datetime.now():%Y-%m-%d_%H-%M-%S}", **given}), rest


def _number(argument: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise UserError(f"{argument}: give a number from 0 to 1, as in unclear=.5") from error


def main(arguments: list[str]) -> None:
    """Run the study and print its tables."""
    with report_errors("explain"):
        settings, rest = settings_of(arguments)
        config: ExplainConfig = compose_job(
            "explain", ["xai=judged", "generation=greedy", *rest], Path(settings.run_dir)
        )
        methods = [method for method in explainers_of(config.xai) if method.modality == "image"]
        if not methods:
            raise UserError("xai= names explainers of words alone, and maps of the picture are judged: add xai=gradcam")
        named = any(one.startswith("ckpt=") for one in rest)
        metrics, text = study(settings, start_of(config, named), methods, config)
        write_json(Path(settings.run_dir) / "metrics.json", metrics)
        print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
