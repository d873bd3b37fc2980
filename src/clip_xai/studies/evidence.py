"""Calibrate the evidence on heat maps: ``python -m clip_xai.studies.evidence [ckpt=latest] [samples=200] [xai=basic]``.

Over photographs of the validation split (``split=val``): the gains of random fields, pooled into the distribution
that ``explain.py`` reads p-values off, and each method's mean map, which is a control without any model. Both are
written beside the checkpoint, where ``explain.py`` finds them by itself. The table says whether evidence means
something: random fields must have it in at most 5 % of cases, maps without any model show why fields alone are not
enough, and on a score that one region decides the region's own map must have it (power) and its negative must not.
Takes the settings of ``explain``; writes ``evidence.json`` and ``evidence.md`` into the run directory.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clip_xai.config.cli import compose_job, report_errors
from clip_xai.config.schemas import ExplainConfig
from clip_xai.data.images import number_of
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.explanations.blind_maps import NAMES, blind_maps
from clip_xai.explanations.evidence_calibration import (
    FEWEST_PHOTOGRAPHS,
    Calibration,
    calibration_beside,
    folder_of,
    p_value,
    plain_settings,
    standardised,
)
from clip_xai.explanations.lesion_maps import cells_of, finite
from clip_xai.explanations.map_evidence import field_gains, heat_of, kinds_of
from clip_xai.explanations.questions import ask, in_brief, with_prompt
from clip_xai.files import write_json, write_text
from clip_xai.jobs.explain import model_of, question_asked
from clip_xai.metrics.intervals import mean_interval
from clip_xai.models.settings import REPORTED
from clip_xai.progress import track
from clip_xai.report.assemble import Answer
from clip_xai.report.map_evidence import ALPHA
from clip_xai.report.pages import Table
from clip_xai.runs.directories import claim, code_digest, plugin_digest
from clip_xai.runs.instantiate import decoding, device_of, explainers_of
from clip_xai.runs.judged import asked_of_data, asked_of_model, judged, noted_of_model
from clip_xai.runs.records import evenly
from clip_xai.studies.deciding_region import deciding_region
from clip_xai.studies.localise import markdown
from clip_xai.tasks.task import Opened
from clip_xai.text import counted
from clip_xai.xai.explainer import Explainer, defined_for, explain_apart
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.random_fields import LENGTHS, gaussian_fields, nearest_length, smoothness_length
from clip_xai.xai.relevance_gain import relevance_gains, units_of
from clip_xai.xai.target import Target
from clip_xai.xai.targets.question import Question

log = logging.getLogger(__name__)
PROBES = 2  # fields of each length that take no part in the null and are judged as if they were heat maps
FIELD = "random field"
MECHANISM = "a region that decides"
REGION, NEGATIVE = "the region's own map", "its negative"


@dataclass
class Gathered:
    """Gains and maps in the order the photographs came.

    Attributes:
        fields: Gains ``[FIELDS]`` by kind of item and length.
        probes: The same of held-out fields, ``[PROBES]``.
        blind: Gains of the maps without any model, ``[3]``, by kind.
        groups: The photograph's group of each row, by kind.
        known: Gains of the region's own map and of its negative, ``[2]``, where one region decides.
        known_lengths: Correlation length of the region's own map.
        maps: Sums of each method's maps by kind, each over its absolute sum, how many, and the method's settings.
        photographs: How many came.
    """

    fields: dict[tuple[str, float], list[NDArray[np.floating]]] = field(default_factory=dict)
    probes: dict[tuple[str, float], list[NDArray[np.floating]]] = field(default_factory=dict)
    blind: dict[str, list[NDArray[np.floating]]] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    known: list[NDArray[np.floating]] = field(default_factory=list)
    known_lengths: list[float] = field(default_factory=list)
    maps: dict[tuple[str, str], tuple[Tensor, int, str]] = field(default_factory=dict)
    photographs: int = 0

    def add(self, answer: Answer, bank: PerturbationBank, target: Target, seed: int, group: str) -> None:
        """Take what is explained of one photograph."""
        kinds = kinds_of(answer, words=True)
        self._add_what_knows_nothing(bank, target, kinds, seed, group)
        for attribution, settings in zip(answer.attributions, answer.settings, strict=True):
            rows = answer.rows(attribution)
            for item, what in kinds.items():
                values = heat_of(attribution, item - rows.start) if item in rows else None
                if values is None or not values.abs().sum() > 0:
                    continue
                sums, count, _ = self.maps.get((attribution.method, what), (torch.zeros_like(values), 0, ""))
                scaled = values / values.abs().sum()
                self.maps[attribution.method, what] = (sums + scaled, count + 1, plain_settings(settings))

    def add_mechanism(self, bank: PerturbationBank, seed: int, group: str) -> None:
        """Take a score of one photograph that a single region decides."""
        pixels, target, truth = deciding_region(bank, seed)
        self._add_what_knows_nothing(pixels, target, {0: MECHANISM}, seed, group)
        self.known.append(relevance_gains(pixels, target, torch.stack([truth, -truth]), seed=seed)[:, 0].numpy())
        self.known_lengths.append(float(smoothness_length(truth[None])[0]))

    def _add_what_knows_nothing(
        self, bank: PerturbationBank, target: Target, kinds: Mapping[int, str], seed: int, group: str
    ) -> None:
        units = units_of(bank)
        blind = relevance_gains(bank, target, blind_maps(bank.pixels, bank.backbone.preprocess, units), seed=seed,
                                key="blind").numpy()  # fmt: skip
        for length in LENGTHS:
            own = field_gains(bank, target, length, seed)
            held_out = gaussian_fields(PROBES, units, length, seed=(seed + 1) % 2**31)
            probes = relevance_gains(bank, target, held_out, seed=seed, key=("probes", length)).numpy()
            for item, what in kinds.items():
                self.fields.setdefault((what, length), []).append(own[:, item])
                self.probes.setdefault((what, length), []).append(probes[:, item])
        for item, what in kinds.items():
            self.blind.setdefault(what, []).append(blind[:, item])
            self.groups.setdefault(what, []).append(group)

    def calibration(self, model: dict[str, str], where: str) -> Calibration:
        """What is written beside the checkpoint."""
        fields = {
            pair: np.stack(gains).astype(np.float32) for pair, gains in self.fields.items() if pair[0] != MECHANISM
        }
        means = {pair: ((sums / count).float(), said) for pair, (sums, count, said) in self.maps.items()}
        return Calibration(model, self.photographs, where, fields, means)


def gather(
    model: Opened, records: Sequence[Record], methods: Sequence[Explainer], question: Question, config: ExplainConfig
) -> Gathered:
    """Explain photographs and measure what random fields and maps without any model gain on each."""
    how, gathered = decoding(config.generation) or REPORTED, Gathered()
    brief = in_brief(question)
    left_out: set[str] = set()
    for record in track(records, "Random fields"):
        pixels = model.backbone.preprocess.read(record.image)[None].to(next(model.backbone.parameters()).device)
        bank = PerturbationBank(model.backbone, pixels)
        seed = (config.seed + number_of(record.image)) % 2**31
        with with_prompt(model.captioner, model.retrieval, pixels, record.group):
            caption = None
            if model.captioner is not None:
                with torch.no_grad():
                    caption = model.captioner.generate(model.captioner.read(pixels), how)[0]
                if not caption.text.strip():
                    log.warning("%s: its caption is empty and it does not count", record.image)
                    continue
            every = ask(question, model.backbone, model.captioner, caption, pixels)
            shorter = every if brief is None else ask(brief, model.backbone, model.captioner, caption, pixels)
            for name, whole in every.items():
                asked = shorter.get(name, whole)
                able, refused = defined_for(methods, model.backbone, asked.target)
                able, found, failed = explain_apart(able, model.backbone, pixels, asked.target, bank)
                for reason in dict.fromkeys(one for one in (*refused, *failed) if one not in left_out):
                    log.warning("%s: no mean map of %s: %s", record.image, name, reason)
                left_out.update((*refused, *failed))
                if found:
                    answer = Answer(asked.score_name, asked.spans, found, [method.settings for method in able])
                    gathered.add(answer, bank, asked.target, seed, record.group)
        gathered.add_mechanism(bank, seed, record.group)
        gathered.photographs += 1
    return gathered


def validity(gathered: Gathered, seed: int = 0) -> list[dict[str, Any]]:
    """Return how often what must not have evidence has it, and what must, with intervals clustered by group.

    The null of each photograph comes from the photographs of the other half, so that none judges itself.

    Args:
        gathered: What was measured.
        seed: Seed of the intervals.
    """
    rows = []
    for (what, length), gains in gathered.fields.items():
        fields, groups = np.stack(gains), gathered.groups[what]
        blind = np.stack(gathered.blind[what])
        half = np.unique(np.asarray(groups), return_inverse=True)[1] % 2  # a patient's photographs stay together
        nulls = [np.sort(np.abs(standardised(fields[half != side])).ravel()) for side in (0, 1)]
        judged_maps = {FIELD: np.stack(gathered.probes[what, length])}
        if what == MECHANISM and length == nearest_length(float(np.median(gathered.known_lengths))):
            known_gains = np.stack(gathered.known)
            judged_maps |= {REGION: known_gains[:, [0]], NEGATIVE: known_gains[:, [1]]}
        judged_maps |= {f"control: {name}": blind[:, [place]] for place, name in enumerate(NAMES)}
        for name, own in judged_maps.items():
            known = [nulls[side] if len(nulls[side]) else None for side in half]
            chances = np.array(
                [[p_value(gain, fields[row], known[row]) for gain in own[row]] for row in range(len(own))]
            )
            beats = (chances <= ALPHA).astype(float)
            measured: dict[str, Any] = {"map": name, "what": what, "length": length}
            members = [group for group in groups for _ in range(own.shape[1])]
            shares = {"beats_random": beats}
            if not name.startswith("control"):
                shares["evidence"] = beats * (own > blind.max(axis=1, keepdims=True))
            for key, values in shares.items():
                found = mean_interval(values.ravel(), members, seed=seed, span=(0.0, 1.0), share=True)
                measured[key] = finite(asdict(found))
            rows.append(measured)
    return rows


def table_of(rows: Sequence[dict[str, Any]], note: str) -> Table:
    """The shares for a reader."""
    cells = tuple(
        (row["map"], row["what"], f"{row['length']:.0%}", cells_of(row["beats_random"])[0],
         cells_of(row.get("evidence"))[0], str(row["beats_random"]["n"]))
        for row in rows
    )  # fmt: skip
    head = ("map", "explained", "length of the fields", f"p up to {ALPHA:g}", "and beats blind maps", "n")
    return Table("Does evidence mean anything?", head, cells, note)


def calibrate(config: ExplainConfig) -> tuple[list[dict[str, Any]], Table, Path]:
    """Measure fields and mean maps on the photographs of a split, and write them beside the checkpoint.

    Returns:
        One row for each map whose evidence is known beforehand, the table for a reader, and the calibration's file.

    Raises:
        UserError: There is no photograph, or a setting is given that is of no meaning here.
    """
    for name in ("backbone", "image"):
        if getattr(config, name) is not None:
            raise UserError(f"{name}= is a setting of explain.py; a calibration is of a checkpoint and its data: leave "
                            "it out and choose with ckpt, data, split and samples")  # fmt: skip
    on = judged(config)
    chosen = evenly(on.records, config.samples)
    if not chosen:
        raise UserError(f"split={config.split} holds no photograph: choose another with split=")
    model = model_of(config, on.place)
    where = f"{on.data.name}, split {config.split}"
    known = calibration_beside(on.place, model.fingerprints)
    Calibration(model.fingerprints, len(chosen), where, {}, {}).beside(known)  # refused before the work, not after it
    methods = explainers_of(config.xai)
    question = question_asked(config, on.place)
    own = {name: getattr(config, name) for name in ("split", "samples", "seed", "text")}
    asked: dict[str, Any] = {"settings": own}
    asked["settings"] |= {name: asdict(getattr(config, name)) for name in ("xai", "target", "generation")}
    asked |= asked_of_model(on.place, model.fingerprints) | asked_of_data(on.data, on.manifest)
    asked["code"] = code_digest("data", "models", "metrics", "xai") + plugin_digest(methods)
    claim(Path(config.run_dir), "evidence", asked, noted_of_model(on.place) | {"data.name": on.data.name})
    (model.captioner or model.backbone).to(device_of(config.trainer))
    gathered = gather(model, chosen, methods, question, config)
    if not gathered.photographs:
        raise UserError(f"none of {counted(len(chosen), 'photograph')} has a caption to explain")
    words = question.vocabulary.groups[1]
    file = gathered.calibration(model.fingerprints, where).beside(known).save(folder_of(on.place))
    said = f"{counted(gathered.photographs, 'photograph')} of {where}. "
    if gathered.photographs < FEWEST_PHOTOGRAPHS:
        said += f"Too few: explain.py takes p-values from {FEWEST_PHOTOGRAPHS} on, and mean maps alone from these. "
    said += (
        f"Share with a 95 % interval over {words}; the null of each photograph is of the other half. A "
        f"random field must not pass more often than {ALPHA:g}; maps without any model do, which is why a heat map "
        f"has to beat them too. '{MECHANISM.capitalize()}' is a score in closed form on the same cells: the share of "
        f"{REGION} is the power, that of {NEGATIVE} must be 0. Written for explain.py: {file}"
    )
    rows = validity(gathered, config.seed)
    return rows, table_of(rows, said), file


def main(arguments: list[str]) -> None:
    """Calibrate with the settings of ``explain`` and print the table."""
    run_dir = Path("runs") / "evidence" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    with report_errors("explain"):
        defaults = ["xai=basic", f"samples={FEWEST_PHOTOGRAPHS}", "split=val"]
        config = compose_job("explain", [*defaults, *arguments], run_dir)
        rows, table, _ = calibrate(config)
        write_json(Path(config.run_dir) / "evidence.json", rows)
        write_text(Path(config.run_dir) / "evidence.md", markdown(table))
        print(markdown(table))


if __name__ == "__main__":
    main(sys.argv[1:])
