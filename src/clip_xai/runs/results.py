"""The store of a run of ``explain``: one file a photograph, written the moment it is done.

``results/0001_NAME.safetensors`` holds the raw maps of every question and method (``caption/gradcam`` with the shape
``[T, h, w]``, ``caption/scores`` with ``[T]``) and, in its header, everything else that is known of the photograph.
``attributions.parquet`` lists every single map. Numpy alone reads them::

    from safetensors.numpy import load_file
    row = pandas.read_parquet("attributions.parquet").iloc[0]
    values = load_file(row.file)[row.tensor][row.row]       # [h, w], raw and signed

A map covers the box (left, top, right, bottom), in pixels of the photograph, which is what the model saw of it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from clip_xai.errors import UserError
from clip_xai.files import read_json, reading, replacing, whole_files, write_text
from clip_xai.report.assemble import Answer
from clip_xai.report.explained import slug
from clip_xai.runs.photographs import Photograph
from clip_xai.xai.attribution import Attribution

log = logging.getLogger(__name__)
ASKED = "asked.json"


@dataclass(frozen=True)
class Result:
    """What was found out about one photograph.

    Attributes:
        photograph: The photograph.
        caption: Its generated caption, or None where no captioner took part.
        answers: By the name of the question: ``caption``, ``similarity`` ...
    """

    photograph: Photograph
    caption: str | None
    answers: Mapping[str, Answer]


class ResultStore:
    """The results of one run, which several processes may write and a later call of the same command goes on with."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.folder = run_dir / "results"

    def claim(self, asked: Mapping[str, Any]) -> None:
        """Begin, or go on with, a run that asks this.

        Raises:
            UserError: The run directory holds results of another question.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dict(asked), indent=2, sort_keys=True, default=str) + "\n"
        place = self.run_dir / ASKED
        if place.is_file():
            before, now = json.loads(place.read_text()), json.loads(text)
            other = [key for key in sorted(before | now) if before.get(key) != now.get(key)]
            if other:
                raise UserError(
                    f"run_dir={self.run_dir} holds results of other settings ({', '.join(other)}): choose another "
                    "run_dir, or ask the same to go on with it"
                )
        write_text(place, text)

    def name_of(self, number: int, photograph: Photograph) -> str:
        """Name of a photograph's files: its number in the run, and letters that are safe in a file name."""
        return f"{number:04d}_{slug(photograph.path.stem)}"

    def done(self, number: int, photograph: Photograph) -> bool:
        """Whether the photograph has a result already; one that is damaged does not count."""
        place = self.folder / f"{self.name_of(number, photograph)}.safetensors"
        return place.is_file() and _is_whole(place)

    def write(self, number: int, result: Result) -> Path:
        """Write a result in one step: a killed process leaves a whole file or none."""
        tensors, answers = {}, []
        for name, answer in result.answers.items():
            tensors[f"{name}/scores"] = torch.tensor([item.score for item in answer.items])
            for attribution in answer.attributions:
                tensors[f"{name}/{attribution.method}"] = attribution.values[0].float().cpu().contiguous()
            answers.append(
                {
                    "name": name,
                    "score_name": answer.score_name,
                    "spans": list(answer.spans),
                    "settings": [dict(settings) for settings in answer.settings],
                    "notes": list(answer.notes),
                    "left_out": list(answer.left_out),
                    "attributions": [attribution.metadata() for attribution in answer.attributions],
                }
            )
        known = {"photograph": result.photograph.plain(), "caption": result.caption, "answers": answers}
        place = self.folder / f"{self.name_of(number, result.photograph)}.safetensors"
        with replacing(place) as unfinished:
            save_file(tensors, unfinished, metadata={"result": json.dumps(known, ensure_ascii=False, default=str)})
        place.with_suffix(".problem.json").unlink(missing_ok=True)
        return place

    def write_problem(self, number: int, photograph: Photograph, problem: str) -> None:
        """Remember why a photograph has no result; a later call tries it again."""
        place = self.folder / f"{self.name_of(number, photograph)}.problem.json"
        write_text(place, json.dumps({"photograph": photograph.name, "problem": problem}, ensure_ascii=False) + "\n")

    def results(self) -> Iterator[tuple[Path, Result]]:
        """Read the results one by one, in the order of the photographs."""
        for place in whole_files(self.folder, "*.safetensors"):
            if _is_whole(place):
                yield place, read_result(place)

    def problems(self) -> list[str]:
        """One line for each photograph without a result."""
        found = [read_json(place) for place in whole_files(self.folder, "*.problem.json")]
        return [f"{row['photograph']}: {row['problem']}" for row in found if row is not None]


def _is_whole(place: Path) -> bool:
    """Whether a file can be read to its end; a damaged one is named in the log."""
    try:
        with reading(place, "it does not count"), safe_open(place, framework="pt") as file:
            return bool(file.metadata()["result"])
    except UserError as error:
        log.warning("%s", error)
        return False


def read_result(place: Path) -> Result:
    """Read one file of the store.

    Raises:
        UserError: It is empty or damaged.
    """
    with reading(place, "it does not count"), safe_open(place, framework="pt") as file:
        known = json.loads(file.metadata()["result"])
        answers = {}
        for answer in known["answers"]:
            name = answer["name"]
            scores = file.get_tensor(f"{name}/scores")[None]
            attributions = []
            for metadata in answer["attributions"]:
                values = file.get_tensor(f"{name}/{metadata['method']}")[None]
                own = scores[:, scores.shape[1] - len(metadata["labels"]) :]  # some methods answer the last ones alone
                attributions.append(Attribution.from_metadata(values, own, metadata))
            spans = [None if span is None else (span[0], span[1]) for span in answer["spans"]]
            settings, notes = answer["settings"], tuple(answer["notes"])
            answers[name] = Answer(
                answer["score_name"], spans, attributions, settings, notes, tuple(answer["left_out"])
            )
    return Result(Photograph.from_plain(known["photograph"]), known["caption"], answers)


def index_rows(place: Path, run_dir: Path, result: Result) -> Iterator[dict[str, Any]]:
    """One row of ``attributions.parquet`` for each of the maps (or rows of words) of a file."""
    for name, answer in result.answers.items():
        for attribution in answer.attributions:
            assert attribution.geometry is not None
            common = {
                "image": result.photograph.name,
                "file": place.relative_to(run_dir).as_posix(),
                "tensor": f"{name}/{attribution.method}",
                "question": name,
                "method": attribution.method,
                "kind": attribution.kind,
                "text_dependent": attribution.text_dependent,
                "settings": json.dumps(dict(attribution.settings), ensure_ascii=False),
                **asdict(attribution.geometry[0]),
            }
            for row, number in enumerate(answer.rows(attribution)):
                item = answer.items[number]
                yield {
                    **common,
                    "row": row,
                    "label": item.label,
                    "score": item.score,
                    "score_name": item.score_name,
                    "start": None if item.span is None else item.span[0],
                    "end": None if item.span is None else item.span[1],
                    "shape": list(attribution.values.shape[2:]),
                    "tokens": None if attribution.tokens is None else list(attribution.tokens[row]),
                }
