"""The store of a run of ``explain``: one file a photograph, written the moment it is done.

``results/0001_NAME.safetensors`` holds the raw maps of every question and method (``caption/gradcam`` with the shape
``[T, h, w]``, ``caption/scores`` with ``[T]``) and, in its header, everything else that is known of the photograph.
``attributions.parquet`` lists every single map. Numpy alone reads them::

    from safetensors.numpy import load_file
    row = pandas.read_parquet("attributions.parquet").iloc[0]
    values = load_file(row.file)[row.tensor][row.row]       # [h, w], raw and signed

Where insertion and deletion curves were asked, ``caption/curves/insertion`` and ``deletion`` hold them (``[R, K]``, the
R rows named in the header), ``shares`` the K shares of the picture and ``areas`` the areas ``[R, 2]``.

Where evidence was asked, the index says of each map whether it has any (``evidence``), its symmetric relevance gain, p
and q of random fields as smooth, their standard deviation, and the blind map that gains most (see
:mod:`clip_xai.explanations.map_evidence`).

A map covers the box (left, top, right, bottom), in pixels of the photograph, which is what the model saw of it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from clip_xai.explanations.photographs import Photograph
from clip_xai.files import reading, replacing, write_json
from clip_xai.report.assemble import Answer
from clip_xai.report.explained import slug
from clip_xai.report.ledger import Ledger, ledger_from_plain
from clip_xai.report.map_evidence import MapEvidence
from clip_xai.report.measured_curves import CurveRow, MeasuredCurves
from clip_xai.xai.attribution import Attribution

log = logging.getLogger(__name__)
PHOTOGRAPHS = "photographs.json"


@dataclass(frozen=True)
class _Expected:
    """A photograph's file, path and stamp; the stamp of one that is no longer asked for is empty."""

    file: str
    photograph: str
    stamp: str


@dataclass(frozen=True)
class Result:
    """What was found out about one photograph.

    Attributes:
        photograph: The photograph.
        caption: Its generated caption, or None where no captioner took part.
        answers: By the name of the question: ``caption``, ``similarity`` ...
        ledger: What the words of the caption rest on; None where that was not asked.
    """

    photograph: Photograph
    caption: str | None
    answers: Mapping[str, Answer]
    ledger: Ledger | None = None


class ResultStore:
    """The results of one run, which several processes may write and a later call of the same command goes on with.

    A photograph keeps its file for good, whatever comes and goes beside it; ``photographs.json`` says which is whose. A
    result counts while the photograph, its mask and what is known of it are what they were when it was explained.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.folder = run_dir / "results"
        self._expected: list[_Expected] | None = None

    def expect(self, photographs: Sequence[Photograph]) -> int:
        """Give each photograph its file; no other result counts from now on.

        Returns:
            How many photographs of earlier calls are not among them.
        """
        known = self._read_list()
        files = {one.photograph: one.file for one in known}
        free = itertools.count(1 + max((int(name[:4]) for name in self._taken() if name[:4].isdigit()), default=0))
        expected = []
        for photograph in photographs:
            key = str(photograph.path.absolute())
            name = files.get(key) or f"{next(free):04d}_{slug(photograph.path.stem)}"
            expected.append(_Expected(name, key, stamp_of(photograph)))
        self._expected = expected
        now = {one.photograph for one in expected}
        gone = [replace(one, stamp="") for one in known if one.photograph not in now]
        self._gone = gone
        return sum(bool(one.stamp) for one in known if one.photograph not in now)

    def write_list(self) -> None:
        """Write ``photographs.json``, in which also photographs of earlier calls keep their files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.run_dir / PHOTOGRAPHS, [asdict(one) for one in (*self._now(), *self._gone)])

    def name_of(self, number: int) -> str:
        """Name of a photograph's files: a number of its own, and letters that are safe in a file name.

        Args:
            number: Its place among those that are expected, from 1.
        """
        return self._now()[number - 1].file

    def done(self, number: int) -> bool:
        """Whether a photograph has a result already, of what it is now."""
        return self._is_of(self._now()[number - 1])

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
                    "contexts": list(answer.contexts),
                    **_written_curves(name, answer.curves, tensors),
                    "evidence": [asdict(one) for one in answer.evidence],
                    "attributions": [attribution.metadata() for attribution in answer.attributions],
                }
            )
        known = {"photograph": result.photograph.plain(), "caption": result.caption, "answers": answers}
        known |= {} if result.ledger is None else {"ledger": asdict(result.ledger)}
        one = self._now()[number - 1]
        place = self.folder / f"{one.file}.safetensors"
        header = {"result": json.dumps(known, ensure_ascii=False, default=str), "stamp": one.stamp}
        with replacing(place) as unfinished:
            save_file(tensors, unfinished, metadata=header)
        place.with_suffix(".problem.json").unlink(missing_ok=True)
        return place

    def write_problem(self, number: int, photograph: Photograph, problem: str) -> None:
        """Remember why a photograph has no result; a later call tries it again."""
        place = self.folder / f"{self.name_of(number)}.problem.json"
        write_json(place, {"photograph": photograph.name, "problem": problem})

    def results(self) -> Iterator[tuple[Path, Result]]:
        """Read the results one by one, in the order of the photographs."""
        for one in self._now():
            if self._is_of(one):
                place = self.folder / f"{one.file}.safetensors"
                yield place, read_result(place)

    def problems(self) -> list[str]:
        """One line for each photograph without a result."""
        found = []
        for one in self._now():
            place = self.folder / f"{one.file}.problem.json"
            if not place.is_file() or self._is_of(one):
                continue
            try:
                row = json.loads(place.read_text(encoding="utf-8"))
                found.append(f"{row['photograph']}: {row['problem']}")
            except (ValueError, TypeError, KeyError):
                log.warning("%s is damaged: it does not count", place)
        return found

    def _now(self) -> list[_Expected]:
        if self._expected is None:
            self._expected = [one for one in self._read_list() if one.stamp]
            self._gone = [one for one in self._read_list() if not one.stamp]
        return self._expected

    def _read_list(self) -> list[_Expected]:
        try:
            rows = json.loads((self.run_dir / PHOTOGRAPHS).read_text(encoding="utf-8"))
            return [_Expected(**row) for row in rows]
        except (OSError, ValueError, TypeError):
            return []  # then every photograph is explained anew, under a number that no file has

    def _taken(self) -> list[str]:
        return [path.name for path in self.folder.glob("*")]

    def _is_of(self, one: _Expected) -> bool:
        place = self.folder / f"{one.file}.safetensors"
        if not place.is_file():
            return False
        try:
            with safe_open(place, framework="np") as file:
                return (file.metadata() or {}).get("stamp") == one.stamp
        except (SafetensorError, OSError):
            log.warning("%s is damaged: its photograph is explained again", place)
            return False


def stamp_of(photograph: Photograph) -> str:
    """Return a digest of a photograph: its bytes, its mask's, and what is known of it."""
    known = {key: value for key, value in photograph.plain().items() if key not in ("path", "mask")}
    digest = hashlib.sha256(json.dumps(known, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    for path in (photograph.path, photograph.mask):
        digest.update(b"\0" if path is None or not path.is_file() else hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


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
            notes, left_out, contexts = (tuple(answer.get(key, ())) for key in ("notes", "left_out", "contexts"))
            answers[name] = Answer(
                answer["score_name"],
                spans,
                attributions,
                answer["settings"],
                notes,
                left_out,
                contexts,
                _read_curves(name, answer.get("curves"), file),
                tuple(MapEvidence(**one) for one in answer.get("evidence", ())),
            )
    ledger = ledger_from_plain(known.get("ledger"))
    return Result(Photograph.from_plain(known["photograph"]), known["caption"], answers, ledger)


CURVE_TENSORS = ("shares", "insertion", "deletion", "areas")


def _written_curves(
    name: str, curves: MeasuredCurves | None, tensors: dict[str, torch.Tensor]
) -> dict[str, dict[str, Any]]:
    """Put the curves of a question among the tensors; return what the header says of them, if there are any."""
    if curves is None:
        return {}
    tensors |= {
        f"{name}/curves/{key}": torch.tensor(getattr(curves, key), dtype=torch.float32) for key in CURVE_TENSORS
    }
    said = {key: getattr(curves, key) for key in ("protocol", "words", "score_name", "note")}
    return {"curves": said | {"rows": [asdict(row) for row in curves.rows]}}


def _read_curves(name: str, said: dict[str, Any] | None, file: Any) -> MeasuredCurves | None:
    if said is None:
        return None
    arrays = {key: file.get_tensor(f"{name}/curves/{key}").numpy() for key in CURVE_TENSORS}
    return MeasuredCurves(**{**said, "rows": tuple(CurveRow(**row) for row in said["rows"])}, **arrays)


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
            judged = {one.item: one for one in answer.evidence if one.method == attribution.method}
            for row, number in enumerate(answer.rows(attribution)):
                item, evidence = answer.items[number], judged.get(number)
                yield {
                    **common,
                    "row": row,
                    "label": item.label,
                    "score": item.score,
                    "score_name": item.score_name,
                    "start": None if item.span is None else item.span[0],
                    "end": None if item.span is None else item.span[1],
                    "shape": list(attribution.values.shape[2:]),
                    "evidence": None if evidence is None else evidence.holds,
                    "gain": None if evidence is None else evidence.gain,
                    "gain_p": None if evidence is None else evidence.p_value,
                    "gain_q": None if evidence is None else evidence.q_value,
                    "gain_calibrated": None if evidence is None else evidence.calibrated,
                    "gain_of_random": None if evidence is None else evidence.spread,
                    "gain_of_blind": None if evidence is None else evidence.best_blind[1],
                    "blind": None if evidence is None else evidence.best_blind[0],
                    "tokens": None if attribution.tokens is None else list(attribution.tokens[row]),
                }
