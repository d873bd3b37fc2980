"""Measure the maps of any model on any photographs: ``python -m clip_xai.studies.measures [protocol=default]``.

Takes the settings of ``explain`` (``ckpt=``, or a CLIP or classifier by itself with ``backbone=``; ``image=``, or the
records of a data set; ``xai=``, ``target=``, ``text=``) and the name of a protocol, of which the measures count. Every
map stands beside those at random weights and beside maps that never saw the model. Photographs with a mask or boxes
say, too, whether the heat lies on them. Writes ``measured.parquet`` (a row for each photograph, thing asked, measure
and method), ``measures.csv`` and ``measures.md`` into the run directory.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from clip_xai.config.cli import compose_job, report_errors
from clip_xai.config.protocol_settings import ProtocolConfig
from clip_xai.config.schemas import EvaluateConfig, ExplainConfig
from clip_xai.errors import UserError
from clip_xai.explanations.measures.photographs import PhotographAsker, all_maps
from clip_xai.explanations.measures.protocol import PictureMeasures, measures_of
from clip_xai.explanations.measures.summary import summarised, summary_rows
from clip_xai.explanations.measures.tables import measure_tables
from clip_xai.explanations.questions import with_prompt
from clip_xai.files import replacing, write_text
from clip_xai.jobs.explain import choose, model_of, question_asked
from clip_xai.models.backbones.blueprint import random_twin
from clip_xai.progress import track
from clip_xai.report.pages import Table
from clip_xai.runs.directories import claim, code_digest, plugin_digest
from clip_xai.runs.instantiate import decoding, device_of, explainers_of
from clip_xai.studies.localise import markdown
from clip_xai.text import counted

log = logging.getLogger(__name__)
FEWEST = 100  # photographs from which on their ranking means something


def measured_photographs(config: ExplainConfig, protocol: ProtocolConfig) -> tuple[list[dict[str, Any]], list[Table]]:
    """Measure all maps of some photographs by a protocol.

    Args:
        config: Settings of ``explain``.
        protocol: Which measures, and of how many photographs methods are asked again; all others are measured, too.

    Returns:
        A row for each photograph, thing asked, measure, method and weights; and the tables for a reader.

    Raises:
        UserError: Nothing is there to be measured.
    """
    measures = measures_of(protocol)
    chosen = choose(config)
    question = question_asked(config, chosen.place)
    model = model_of(config, chosen.place)
    methods = [method for method in explainers_of(config.xai) if method.modality == "image"]
    if not methods:
        raise UserError("xai= names explainers of words alone, and maps of the picture are measured: add xai=gradcam")
    names = ("image", "text", "split", "samples", "seed")
    asked: dict[str, Any] = {"settings": {name: getattr(config, name) for name in names}}
    asked["settings"] |= {name: asdict(getattr(config, name)) for name in ("xai", "target", "generation")}
    asked |= {"protocol": asdict(protocol), "model": model.fingerprints}
    asked["code"] = code_digest("data", "models", "metrics", "xai", "explanations") + plugin_digest(methods)
    claim(Path(config.run_dir), "measures", asked)
    device = device_of(config.trainer)
    (model.captioner or model.backbone).to(device)
    torch.manual_seed(config.seed)
    twin = random_twin(model.backbone).to(device) if protocol.twin else None
    photographs = list(chosen.photographs)

    def others(count: int) -> Sequence[Tensor]:
        """Records of the data that are not measured."""
        judged = {photograph.path for photograph in photographs}
        free = [record for record in chosen.records if record.image not in judged]
        if not free:
            raise UserError("f_fidelity tunes the tower on photographs that are not measured, and there are none: take "
                            "fewer with samples=, or leave it out")  # fmt: skip
        return [model.backbone.preprocess.read(record.image) for record in free[:count]]

    of_all = replace(protocol, measured=len(photographs))
    of_picture = PictureMeasures.of(of_all, methods, model.backbone, others, config.seed)
    asker = PhotographAsker(model.backbone, question, model.captioner, decoding(config.generation), config.seed)
    rows: list[dict[str, Any]] = []
    said: dict[str, int] = {}
    for number, photograph in enumerate(track(photographs, "Measuring maps")):
        sentences: list[str] = []
        try:
            pixels = model.backbone.preprocess.read(photograph.path)[None].to(device)
            with with_prompt(model.captioner, model.retrieval, pixels, photograph.group or None):
                picture = asker.asked(photograph)
                maps, sentences = all_maps(picture, methods, twin, config.seed)
                measure = of_picture.at(number)
                assert measure is not None  # all are measured
                found = measure.of(picture, maps)
            rows += found.rows
            sentences += found.left_out
        except UserError as error:
            sentences.append(f"{photograph.name} is left out: {error}")
        for sentence in sentences:
            said[sentence] = said.get(sentence, 0) + 1
    for sentence, count in said.items():
        log.warning("%s (%s)", sentence, counted(count, "photograph"))
    if not rows:
        raise UserError(f"none of {counted(len(photographs), 'photograph')} could be measured; the log says why")
    tables = measure_tables(summarised(rows, measures, config.seed), measures, question.vocabulary.groups[1])
    few = len(photographs) < FEWEST
    warning = f" {counted(len(photographs), 'photograph')}: too few for a ranking ({FEWEST})." if few else ""
    return rows, [replace(table, note=f"{table.note} {model.words}.{warning}") for table in tables]


def write_measures(
    rows: Sequence[dict[str, Any]], tables: Sequence[Table], config: ExplainConfig, protocol: ProtocolConfig
) -> None:
    """Write what was measured for programs and for readers."""
    run_dir = Path(config.run_dir)
    with replacing(run_dir / "measured.parquet") as unfinished:
        pd.DataFrame(list(rows)).to_parquet(unfinished, index=False)
    summary = summary_rows(summarised(rows, measures_of(protocol), config.seed))
    with replacing(run_dir / "measures.csv") as unfinished:
        pd.DataFrame(summary).to_csv(unfinished, index=False)
    write_text(run_dir / "measures.md", "\n".join(f"## {table.title}\n\n{markdown(table)}" for table in tables))


def protocol_named(arguments: Sequence[str], run_dir: Path) -> ProtocolConfig:
    """Return the protocol that the arguments which begin with ``protocol`` name.

    Raises:
        UserError: It does not have a setting that is named.
    """
    composed: EvaluateConfig = compose_job("evaluate", list(arguments), run_dir)
    return composed.protocol


def main(arguments: list[str]) -> None:
    """Measure with the settings of ``explain`` and print the tables."""
    run_dir = Path("runs") / "measures" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    of_protocol = [one for one in arguments if one.startswith("protocol")]
    with report_errors("evaluate"):
        protocol = protocol_named(of_protocol, run_dir)
    with report_errors("explain"):
        own = [one for one in arguments if one not in of_protocol]
        config = compose_job("explain", ["xai=judged", *own], run_dir)
        rows, tables = measured_photographs(config, protocol)
        write_measures(rows, tables, config, protocol)
        for table in tables:
            print(f"{table.title}\n\n{markdown(table)}")


if __name__ == "__main__":
    main(sys.argv[1:])
