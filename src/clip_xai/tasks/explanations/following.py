"""What words of captions rest on, and how maps that follow the words are judged: tables of ``task=explanations``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip_xai.explanations.causes.followed_measures import followed_rows, followed_table, measure_followed
from clip_xai.explanations.causes.measures import AGREEMENT
from clip_xai.explanations.causes.one_scene import SceneCauses
from clip_xai.explanations.causes.scene_targets import DIAGNOSIS, STRUCTURE
from clip_xai.explanations.causes.tables import ALL, EVERY
from clip_xai.explanations.run_ledger import RunLedger
from clip_xai.files import replacing
from clip_xai.report.pages import Table
from clip_xai.tasks.explanations.page import Rankings


def words_leading(found: Rankings) -> list[str]:
    """Methods whose direct maps beat their random-weights twin on words of captions."""
    places = [one for target in (DIAGNOSIS, STRUCTURE) for one in found.get((AGREEMENT, target, ALL), ())]
    return [one.method[0] for one in places if one.leads]


def metrics(scenes: Sequence[SceneCauses], found: Rankings, seed: int) -> dict[str, Any]:
    """Return what the words of captions rest on, and how maps that follow them do; nothing without a ledger."""
    taken = run_ledger_of(scenes)
    if not taken.ledgers:
        return {}
    leading = words_leading(found)
    by_target = {
        target or EVERY: followed_rows(measure_followed(scenes, target, seed), leading)
        for target in (None, DIAGNOSIS, STRUCTURE)
    }
    return {"ledger": taken.measured, "followed": by_target}


def tables(scenes: Sequence[SceneCauses], found: Rankings, seed: int) -> list[Table]:
    """The same for a reader."""
    taken = run_ledger_of(scenes)
    table = followed_table(measure_followed(scenes, None, seed), words_leading(found))
    return [*([taken.page_table] if taken.ledgers else []), *([] if table is None else [table])]


def run_ledger_of(scenes: Sequence[SceneCauses]) -> RunLedger:
    """The ledgers of the scenes' captions, each scene a patient of its own."""
    taken = {number: scene.ledger for number, scene in enumerate(scenes) if scene.ledger is not None}
    return RunLedger(taken, {number: str(scenes[number].seed) for number in taken}, ("scene", "scenes"))


def write_ledger(scenes: Sequence[SceneCauses], run_dir: Path) -> None:
    """Write ``ledger.parquet``, where there is a ledger."""
    taken = run_ledger_of(scenes)
    if taken.ledgers:
        with replacing(run_dir / "ledger.parquet") as unfinished:
            taken.table([str(scene.seed) for scene in scenes]).to_parquet(unfinished, index=False)
