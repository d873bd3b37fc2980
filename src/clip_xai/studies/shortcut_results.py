"""What planted shortcuts came to, written for programs and for readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from clip_xai.data.synthetic.planted import ShortcutScene, with_artefact
from clip_xai.data.synthetic.profiles import CHEAT
from clip_xai.explanations.causes.scene_targets import Asker
from clip_xai.explanations.causes.shortcut_summary import KINDS, Reliance, Revealed, refused, reliances, revealed
from clip_xai.explanations.causes.shortcuts import Strength, maps_with
from clip_xai.explanations.shortcuts_beside import save_tables
from clip_xai.files import replacing, write_text
from clip_xai.models.captioner import Captioner
from clip_xai.report.figures import data_uri, overlay, scale_of
from clip_xai.report.pages import Table
from clip_xai.report.shortcuts_page import ArtefactPart, Shown, write_shortcuts_page
from clip_xai.studies.localise import markdown
from clip_xai.studies.shortcut_tables import method_table, plain_rows, rises, title, truth_table, verdicts
from clip_xai.text import counted, decimals
from clip_xai.xai.explainer import Explainer

SHOWING, BLIND = 3, 2  # methods whose maps are shown: the first that reveal the cheat, and the last that do not


@dataclass(frozen=True)
class Measured:
    """One artefact and seed.

    Attributes:
        artefact: Its name.
        seed: The seed.
        rows: A row for each scene and captioner, and for each of them and each method.
        passed_over: Training scenes that were not taken, because they do not show their artefact.
        scenes: The scenes judged on.
        learners: The captioners.
    """

    artefact: str
    seed: int
    rows: list[dict[str, Any]] = field(repr=False)
    passed_over: int
    scenes: list[ShortcutScene] = field(repr=False)
    learners: Mapping[Strength, Captioner] = field(repr=False)


def write_results(
    settings: Any,
    words: str,
    place: Path | None,
    fingerprints: Mapping[str, str],
    found: Sequence[Measured],
    asker: Asker,
    methods: Sequence[Explainer],
) -> tuple[dict[str, Any], str]:
    """Write everything but ``metrics.json``.

    Args:
        settings: The study's settings.
        words: The model in words.
        place: Its checkpoint, beside which the tables are kept; None for the embedded tower.
        fingerprints: Of the model's weights.
        found: What was measured.
        asker: How pictures are put to the model.
        methods: What explains it.

    Returns:
        What ``metrics.json`` holds, and the tables as text.
    """
    run_dir, seeds = Path(settings.run_dir), [str(seed) for seed in settings.seeds]
    said, parts, tables, table_rows, metrics = [], [], [], [], {}
    left_out: dict[str, None] = {}
    for artefact in settings.artefacts:
        own = [one for one in found if one.artefact == artefact]
        rows = [row for one in own for row in one.rows]
        truths, by_kind = reliances(rows), {kind: revealed(rows, kind) for kind in KINDS}
        positive = by_kind["positive"]
        where = artefact.capitalize()
        said += verdicts(truths, positive, where)
        shown = [truth_table(truths, where), method_table(positive, by_kind["absolute"], where)]
        table_rows += [row for kind in KINDS for row in plain_rows(by_kind[kind], " ".join(seeds))]
        metrics[artefact] = _plain(truths, positive, own)
        if len(own) > 1:
            apart = {str(one.seed): (reliances(one.rows), revealed(one.rows)) for one in own}
            shown.append(_seed_table(apart, positive, where))
            metrics[artefact]["seeds"] = {
                seed: _plain(*both, [one for one in own if str(one.seed) == seed]) for seed, both in apart.items()
            }
            for one in own:
                table_rows += [row for kind in KINDS for row in plain_rows(revealed(one.rows, kind), str(one.seed))]
        tables += shown
        pictures, note = _pictures(own[0], positive, asker, methods)
        parts.append(ArtefactPart(where, tuple(shown), rises(positive), pictures, note))
        passed = sum(one.passed_over for one in own)
        left_out |= {f"{where}: {title(name)}: {why}": None for name, why in refused(rows).items()}
        if passed:
            left_out[
                f"{where}: {counted(passed, 'training scene')} whose artefact the tower's square does not show."
            ] = None
    write_tables(found, table_rows, run_dir)
    text = "\n\n".join(f"## {table.title}\n\n{markdown(table)}" for table in tables)
    sentences = "\n".join(f"- {one}" for one, _ in said)
    write_text(run_dir / "shortcuts.md", f"{sentences}\n\n{text}")
    write_shortcuts_page(
        run_dir / "index.html",
        subtitle=f"{CHEAT.capitalize()} and an artefact that goes with it · {words}",
        verdicts=said,
        parts=parts,
        left_out=list(left_out),
        settings={**_settings(settings), "explainers": ", ".join(method.name for method in methods)},
    )
    if place is not None:
        save_tables(place, fingerprints, tables)
    return {"model": words, "settings": _settings(settings), "artefacts": metrics}, f"{sentences}\n\n{text}"


def write_tables(found: Sequence[Measured], summary: Sequence[Mapping[str, Any]], run_dir: Path) -> None:
    """Write ``scenes.parquet`` and ``maps.parquet``, a row a scene, captioner and method, and ``shortcuts.csv``."""
    rows = [{"seed": one.seed, **row} for one in found for row in one.rows]
    kinds = {"scenes": "added", "maps": "area"}
    for name, key in kinds.items():
        with replacing(run_dir / f"{name}.parquet") as unfinished:
            pd.DataFrame([row for row in rows if key in row]).to_parquet(unfinished, index=False)
    with replacing(run_dir / "shortcuts.csv") as unfinished:
        pd.DataFrame(list(summary)).to_csv(unfinished, index=False)


def _seed_table(
    apart: Mapping[str, tuple[list[Reliance], list[Revealed]]], together: Sequence[Revealed], where: str
) -> Table:
    """From which strength on each method reveals the cheat, seed by seed."""
    by = {seed: {one.method: one for one in found} for seed, (_, found) in apart.items()}
    rows = [
        ("the captioner cheats", "", *(_first([one.p for one in truths if one.cheats]) for truths, _ in apart.values()))
    ]
    for one in together:
        if not one.control:
            each = (by[seed][one.method].reveals_from for seed in apart)
            cells = ["–" if p is None else f"{p:g}" for p in (one.reveals_from, *each)]
            rows.append((title(one.method), *cells))
    note = (
        "The smallest p from which on the cheat is revealed: of all scenes together, and of the captioners and scenes "
        "of each seed by themselves, each corrected for all methods. Intervals over scenes do not hold how far two "
        "captioners of one strength differ; these columns show it."
    )
    return Table(
        f"{where}: seed by seed", ("method", "together", *(f"seed {seed}" for seed in apart)), tuple(rows), note
    )


def _first(strengths: Sequence[float]) -> str:
    return f"from {min(strengths):g}" if strengths else "no"


def _pictures(
    one: Measured, found: Sequence[Revealed], asker: Asker, methods: Sequence[Explainer]
) -> tuple[tuple[Shown, ...], str]:
    """Maps of a few methods at p = 0 and at the largest, on the scene that the artefact moves most."""
    last = max(one.learners, key=lambda strength: strength.p)
    moved = {row["scene"]: row["added"] for row in one.rows if "added" in row and row["p"] == last.p}
    shown_scene = max(one.scenes, key=lambda one: moved[one.scene.seed])
    scene = shown_scene.scene
    names = [each.method for each in found if not each.control]
    shows = [each.method for each in found if not each.control and each.reveals_from is not None]
    blind = [name for name in names if name not in shows]
    chosen = [*shows[:SHOWING], *blind[-BLIND:]]
    picture = Image.fromarray(with_artefact(scene, one.artefact).image)
    pictures = [Shown(f"The scene, said to be {shown_scene.diagnosis}, with the artefact", data_uri(picture))]
    learners = {strength: one.learners[strength] for strength in (Strength(0.0), last)}
    preprocess = asker.backbone.preprocess
    geometry = preprocess.geometry(picture.width, picture.height)
    for method in (each for name in chosen for each in methods if each.name == name):
        for strength, heat in maps_with(asker, learners, one.artefact, scene, method).items():
            placed = geometry.place(heat.double()).numpy()
            shown = overlay(picture, placed, scale_of(placed))
            pictures.append(Shown(f"{title(method.name)}, p = {strength.name}", data_uri(shown)))
    note = (
        f"The scene of seed {one.seed} that the artefact moves most at p = {last.p:g}, by "
        f"{decimals(moved[scene.seed], 1, '+')} nats. "
        f"Maps of '{CHEAT}' for the captioner that learned nothing and for the strongest cheat; each has its own scale."
    )
    return tuple(pictures), note


def _plain(truths: Sequence[Reliance], found: Sequence[Revealed], own: Sequence[Measured]) -> dict[str, Any]:
    return {
        "scenes": sum(len(one.scenes) for one in own),
        "training scenes passed over": sum(one.passed_over for one in own),
        "captioners": [_finite(asdict(one)) for one in truths],
        "methods": [_finite(asdict(one)) for one in found],
    }


def _settings(settings: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(settings).items() if name != "run_dir"}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and value != value else value
