"""Finding earlier runs: each run directory has a ``run.json`` that says what it is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from clip_xai.errors import UserError

EXPORT = "export"
LAST = Path("checkpoints") / "last.ckpt"


@dataclass(frozen=True)
class RunCard:
    """What a training run is.

    Attributes:
        backbone: Name of the backbone.
        mapper: Name of the mapper.
        language_model: Name of the language model.
        stage: Number of the stage.
        started: When, as ISO 8601 in UTC with microseconds: sorts by time.
    """

    backbone: str
    mapper: str
    language_model: str
    stage: int
    started: str

    @classmethod
    def now(cls, backbone: str, mapper: str, language_model: str, stage: int) -> RunCard:
        """The card of a run that starts at this moment."""
        return cls(
            backbone, mapper, language_model, stage, datetime.now(timezone.utc).isoformat(timespec="microseconds")
        )

    def write(self, run_dir: Path) -> None:
        """Write ``run.json``."""
        (run_dir / "run.json").write_text(json.dumps(asdict(self), indent=2) + "\n")

    def like(self, other: RunCard, stage: int) -> bool:
        """Whether this is a run of that stage with the same backbone, mapper and language model."""
        parts = (self.backbone, self.mapper, self.language_model)
        return parts == (other.backbone, other.mapper, other.language_model) and self.stage == stage


def train_runs(runs_root: Path) -> list[tuple[RunCard, Path]]:
    """All training runs under a root, the oldest first."""
    cards = [(RunCard(**json.loads(file.read_text())), file.parent) for file in runs_root.glob("train/*/run.json")]
    return sorted(cards, key=lambda pair: pair[0].started)


def resolve_checkpoint(ckpt: str, runs_root: Path) -> Path:
    """Return the directory of the exported model (``model.safetensors``, ``config.json``, tokenizer).

    Args:
        ckpt: ``latest``, a run directory, or the directory of an exported model. The latest is the newest run under
            ``runs_root``; where there is none yet, the newest of the demo's.
        runs_root: Where ``latest`` is looked for.

    Raises:
        UserError: Nothing is there.
    """
    if ckpt == "latest":
        demos = sorted(runs_root.glob("demo/*"))  # named by when they started
        finished = _finished(runs_root) or [export for demo in demos for export in _finished(demo)]
        if not finished:
            raise UserError(f"ckpt=latest: no finished run under {runs_root}/train; run first: python train.py stage=1")
        return finished[-1]
    path = Path(ckpt)
    for candidate in (path, path / EXPORT):
        if _is_export(candidate):
            return candidate
    raise UserError(f"{ckpt} holds no exported model; name a run directory under {runs_root}/train, or latest")


def newest_export(like: RunCard, stage: int, runs_root: Path) -> Path:
    """Return the exported model of the newest finished run of a stage with the same parts.

    Raises:
        UserError: There is none; the message has the command to run first.
    """
    exports = [run_dir / EXPORT for card, run_dir in train_runs(runs_root) if card.like(like, stage)]
    finished = [export for export in exports if _is_export(export)]
    if not finished:
        parts = f"backbone={like.backbone} mapper={like.mapper} language_model={like.language_model}"
        raise UserError(
            f"stage={like.stage} starts from a finished stage {stage} with the same parts and there is none under "
            f"{runs_root}/train; run first: python train.py {parts} stage={stage} (or give init_from=PATH)"
        )
    return finished[-1]


def newest_last(like: RunCard, runs_root: Path) -> Path:
    """Return ``last.ckpt`` of the newest run of the same stage with the same parts.

    Raises:
        UserError: There is none.
    """
    files = [run_dir / LAST for card, run_dir in train_runs(runs_root) if card.like(like, like.stage)]
    kept = [file for file in files if file.is_file()]
    if not kept:
        raise UserError(
            f"ckpt_path=last: no run of this backbone, mapper, language model and stage under {runs_root}/train"
        )
    return kept[-1]


def checkpoint_to_resume(ckpt_path: str | None, card: RunCard, runs_root: Path) -> Path | None:
    """Return the checkpoint that ``ckpt_path`` names, or None.

    Args:
        ckpt_path: ``last``, a checkpoint, a run directory, or None.
        card: This run's; ``last`` is the newest run like it.
        runs_root: Where ``last`` is looked for.

    Raises:
        UserError: There is none.
    """
    if ckpt_path is None:
        return None
    path = newest_last(card, runs_root) if ckpt_path == "last" else Path(ckpt_path)
    path = path / LAST if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"ckpt_path={ckpt_path}: there is no such checkpoint")
    return path


def _finished(runs_root: Path) -> list[Path]:
    """The exported models of all finished training runs under a root, the oldest first."""
    exports = [run_dir / EXPORT for _, run_dir in train_runs(runs_root)]
    return [export for export in exports if _is_export(export)]


def _is_export(path: Path) -> bool:
    return (path / "config.json").is_file() and (path / "model.safetensors").is_file()
