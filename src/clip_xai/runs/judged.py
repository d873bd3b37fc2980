"""What a job that judges looks at: which model, and on which photographs.

The data are those that the model's run was trained on, in their test split unless another is named; other data only
where the user names them, and then page and log say so.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from clip_xai.config.schemas import DataConfig, DataOfTheRun, EvaluateConfig, ExplainConfig, SyntheticConfig
from clip_xai.data.manifest import load_manifest
from clip_xai.data.record import Record
from clip_xai.data.settings import Columns
from clip_xai.data.vocabulary import Vocabulary, is_path, load_vocabulary, unpacked
from clip_xai.errors import UserError
from clip_xai.models.retrieval import INDEX
from clip_xai.registry import load_plugins_of
from clip_xai.runs.checkpoints import CARD, RunCard, described, resolve_checkpoint, run_of
from clip_xai.runs.lineage import Lineage, header_of, lineage_in
from clip_xai.runs.records import digest_of, of_split, prepare_manifest
from clip_xai.text import counted
from clip_xai.training.checkpoint_files import read_checkpoint

log = logging.getLogger(__name__)
PLACES = ("name", "output_dir", "cache_dir", "workers")  # what does not decide which photographs there are


@dataclass(frozen=True)
class Judged:
    """A model and what it is judged on.

    Attributes:
        place: The exported model's directory, or a ``.ckpt`` file.
        data: The settings of the data.
        manifest: All their records.
        records: Those that are judged.
        notes: Sentences that a reader must see: that the data are not the run's, or that the model has seen them.
    """

    place: Path
    data: DataConfig
    manifest: list[Record]
    records: list[Record]
    notes: tuple[str, ...]


def judged(config: EvaluateConfig | ExplainConfig, fits: Callable[[Path], None] | None = None) -> Judged:
    """Find the model that ``ckpt`` names, and the photographs that it is to be judged on.

    Args:
        config: The job's settings.
        fits: Refuses settings that do not go with the model of a place, before the records of a named model are read.

    Raises:
        UserError: There is no model, nobody says on which data, or it was trained on what it would be judged on.
    """
    runs_root = Path(config.runs_root)

    def refusal(place: Path) -> str | None:
        data = data_of(config, place)
        manifest = load_manifest(prepare_manifest(data))
        return overlap_with(place, of_split(manifest, config.split, data.limit), manifest)

    strict = config.split != "train" and not getattr(config, "allow_overlap", False)
    place = resolve_checkpoint(config.ckpt, runs_root, refusal if strict else None, task=config.trained_for)
    if fits is not None:
        fits(place)
    data = data_of(config, place)
    require_vocabulary(data, place)
    manifest = load_manifest(prepare_manifest(data))
    records = of_split(manifest, config.split, data.limit)
    notes = [*other_data(config, place, data), *_seen(config, place, records, manifest)]
    log.info("model: %s", described(place))
    for note in notes:
        log.warning("%s", note)
    return Judged(place, data, manifest, records, tuple(notes))


def data_of(config: EvaluateConfig | ExplainConfig, place: Path) -> DataConfig:
    """Return the data that are named, or those of the model's run with the changes that are named.

    Raises:
        UserError: Neither is there.
    """
    if config.data is not None and not isinstance(config.data, DataOfTheRun):
        return config.data
    of_run = data_of_run(place)
    if of_run is None:
        raise UserError(
            f"{place} does not say on which data it was trained; name what it is to be judged on: "
            "data=dermacap_mini, or data=dermacap data.root=DIR data.output_dir=OUT"
        )
    if config.data is None:
        return of_run
    changed = config.data.changed
    if "root" in changed and "output_dir" not in changed and _elsewhere(config.data.root, of_run.root):
        raise UserError(
            f"data.root={config.data.root} are other data than those that the run was trained on, whose manifest "
            f"{of_run.output_dir} holds: name another folder for theirs, such as "
            f"data.output_dir={Path(config.data.root).absolute()}_manifest"
        )
    return replace(of_run, **{name: getattr(config.data, name) for name in changed})


def _elsewhere(place: str, other: str) -> bool:
    return os.path.realpath(place) != os.path.realpath(other)


def data_of_run(place: Path) -> DataConfig | None:
    """Return the data that the run of a model was trained on; None where nothing is known of it.

    Raises:
        UserError: The run's card has settings of data that are none.
    """
    card = RunCard.read(run_of(place))
    if card is None:
        return None
    load_plugins_of(run_of(place), card.plugins)
    if not card.data:
        return None
    known: dict[str, Any] = dict(card.data)
    try:
        if known.get("synthetic") is not None:
            known["synthetic"] = SyntheticConfig(**known["synthetic"])
        known["columns"] = Columns(**known.get("columns", {}))
        return DataConfig(**known)
    except TypeError as error:
        raise UserError(
            f"{run_of(place) / CARD} names its data in a way that is not understood ({error}); name them: "
            "data=dermacap data.root=DIR data.output_dir=OUT"
        ) from error


def with_absolute_places(data: DataConfig) -> dict[str, Any]:
    """Return the settings of data as plain values that hold in another working directory, too."""
    places = {name: str(Path(getattr(data, name)).absolute()) for name in ("root", "output_dir", "cache_dir")}
    if is_path(data.vocabulary):
        places["vocabulary"] = str(Path(data.vocabulary).expanduser().absolute())
    return asdict(data) | places


def asked_of_model(place: Path, fingerprints: Mapping[str, str]) -> dict[str, Any]:
    """What a run directory notes of a model: its weights count, its place does not.

    Args:
        place: The exported model's directory, or a ``.ckpt`` file.
        fingerprints: Of the model's parts.
    """
    noted = dict(fingerprints)
    index = place / INDEX
    if index.is_file():
        noted["index"] = hashlib.sha256(index.read_bytes()).hexdigest()[:16]
    return {"model": noted}


def noted_of_model(place: Path) -> dict[str, str]:
    """Where the captioner was, for a reader."""
    return {"model.captioner": str(place.absolute())}


def asked_of_data(data: DataConfig, manifest: Sequence[Record]) -> dict[str, Any]:
    """What a run directory notes of the data that something is judged on, every photograph and caption included."""
    return {
        "data": decisive(data) | {"content": f"{counted(len(manifest), 'photograph')}, digest {digest_of(manifest)}"}
    }


def decisive(data: DataConfig) -> dict[str, Any]:
    """Return the settings that decide which photographs, captions and splits there are."""
    chosen = {name: value for name, value in asdict(data).items() if name not in (*PLACES, "root")}
    return chosen | {"vocabulary": load_vocabulary(data.vocabulary).digest}


def other_data(config: EvaluateConfig | ExplainConfig, place: Path, data: DataConfig) -> list[str]:
    """Return a sentence where the data are not those of the model's run."""
    of_run = data_of_run(place)
    if of_run is None or config.data is None:
        return []
    theirs, ours = with_absolute_places(of_run), with_absolute_places(data)
    changed = [name for name in ours if name not in PLACES and ours[name] != theirs[name]]
    if not changed:
        return []
    said = ", ".join(f"{name} {ours[name]} (there {theirs[name]})" for name in changed)
    return [f"Other data than those of the model's run: {said}"]


def lineage_of(place: Path) -> Lineage | None:
    """Return what a model was trained on; None where its file does not say."""
    if place.suffix == ".ckpt":
        content = read_checkpoint(place)
        lineage = Lineage.unpacked(content)
        return lineage and lineage.with_updates(content["global_step"])
    return lineage_in(place / "model.safetensors")


def vocabulary_of(place: Path) -> Vocabulary | None:
    """Return the vocabulary that a model was trained with; None where its file does not say.

    Args:
        place: The exported model's directory, a ``.ckpt`` file, or a tower's ``.safetensors``.

    Raises:
        UserError: The file is damaged, or names a vocabulary that this version does not have.
    """
    if place.suffix == ".ckpt":
        return unpacked(read_checkpoint(place))
    return unpacked(header_of(place if place.suffix == ".safetensors" else place / "model.safetensors"))


def tower_weights(pretrained: str | None) -> Path | None:
    """Return the file of safetensors that ``backbone.pretrained`` names; None for a published name or another format.

    Args:
        pretrained: The file, or a folder that holds ``model.safetensors``, as the contrastive stage writes it.
    """
    place = Path(pretrained or "")
    file = place / "model.safetensors" if pretrained and place.is_dir() else place
    return file if file.suffix == ".safetensors" and file.is_file() else None


def other_vocabulary(data: DataConfig, place: Path) -> str | None:
    """Return why data do not go with a model whose words are other than theirs; None where they do."""
    theirs, ours = vocabulary_of(place), load_vocabulary(data.vocabulary)
    if theirs is None or theirs.digest == ours.digest:
        return None
    if theirs.name == ours.name:
        return (
            f"data.vocabulary={data.vocabulary} has changed since {place} was trained with it: restore the file, or "
            "train again"
        )
    name = theirs.name if theirs.content is None else f"FILE, the path of {theirs.name}.yaml"
    return f"data.vocabulary={data.vocabulary}, and {place} was trained with {theirs.name}: set data.vocabulary={name}"


def require_vocabulary(data: DataConfig, place: Path) -> None:
    """Refuse data whose words are other than those that a model was trained with.

    Raises:
        UserError: They are.
    """
    reason = other_vocabulary(data, place)
    if reason is not None:
        raise UserError(reason)


def overlap_with(place: Path, records: Sequence[Record], manifest: Sequence[Record]) -> str | None:
    """Return why a model must not be judged on records, or chosen by them; None where it may."""
    lineage = lineage_of(place)
    if lineage is None:
        return "it does not say what it was trained on, being of an earlier version or from elsewhere"
    count = lineage.overlap(records, manifest)
    if not count:
        return None
    groups = (vocabulary_of(place) or load_vocabulary()).groups[1]
    of_all = f"{count} of {counted(len(records), 'photograph')}"
    start = f", or what it started from ({'; '.join(lineage.steps)})," if lineage.steps else ""
    return f"it{start} was trained on {of_all}, or on others of their {groups}"


def _seen(
    config: EvaluateConfig | ExplainConfig, place: Path, records: Sequence[Record], manifest: Sequence[Record]
) -> list[str]:
    """Refuse what must not be judged, or return the sentence that says so where the user wants it all the same."""
    reason = overlap_with(place, records, manifest)
    if reason is None:
        return []
    unknown = lineage_of(place) is None
    if isinstance(config, EvaluateConfig) and not (unknown or config.allow_overlap or config.split == "train"):
        raise UserError(
            f"ckpt={place} must not be judged on split={config.split}: {reason}; choose another split or model, or set "
            "allow_overlap=true"
        )
    short = "The model may have seen these photographs" if unknown else "No judgement of unseen photographs"
    return [f"{short}: {reason}"]
