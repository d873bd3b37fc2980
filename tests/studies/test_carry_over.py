"""The study of carrying over, on tables whose answer is planted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clip_xai.errors import UserError
from clip_xai.explanations.causes.measures import CRITERIA
from clip_xai.studies.carry_over import FEWEST_PHOTOGRAPHS, Compared, JudgedRun, main

METHODS = ("gradcam", "layercam", "saliency", "occlusion")


def judged(place: Path, means: dict[str, float], scenes: int = 20, measured: float = 1.0, seed: int = 0) -> Path:
    """A run of task=explanations; its measures are the effects times a factor."""
    place.mkdir()
    lot, rows, of_maps = np.random.default_rng(seed), [], []
    for scene in range(scenes):
        for name, mean in means.items():
            value = mean + 0.01 * float(lot.normal())
            rows.append({"scene": scene, "target": "contrast", "label": "a", "method": name, "weights": "trained",
                         **dict.fromkeys(CRITERIA, np.nan), "agreement": value})  # fmt: skip
            of_maps.append(_measured(str(scene), "relevance_gain/mean", name, measured * value))
    pd.DataFrame(rows).to_parquet(place / "maps.parquet")
    pd.DataFrame(of_maps).to_parquet(place / "measured.parquet")
    return place


def photographs(place: Path, means: dict[str, float], count: int) -> Path:
    place.mkdir()
    rows = [_measured(f"photo {number}", measure, name, mean)
            for number in range(count) for name, mean in means.items()
            for measure in ("relevance_gain/mean", "auprc")]  # fmt: skip
    pd.DataFrame(rows).to_parquet(place / "measured.parquet")
    return place


def _measured(picture: str, measure: str, method: str, value: float) -> dict[str, object]:
    return {"picture": picture, "group": picture, "target": "contrast", "label": "a", "measure": measure,
            "method": method, "weights": "trained", "value": value}  # fmt: skip


MEANS = dict(zip(METHODS, (0.9, 0.8, 0.7, 0.6), strict=True))
TURNED = {name: -mean for name, mean in MEANS.items()}


def test_two_runs_alike_and_two_turned_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, same = judged(tmp_path / "a", MEANS), judged(tmp_path / "b", MEANS)
    turned = judged(tmp_path / "c", TURNED, measured=-1.0)
    main([str(first), str(same), f"run_dir={tmp_path / 'alike'}"])
    found = json.loads((tmp_path / "alike" / "carry_over.json").read_text())
    row = next(one for one in found["carry over"] if (one["ranked by"], one["target"]) == ("agreement", "any"))
    assert row["tau"] == row["tau, high"] == 1 and row["halves"] == row["halves of the first"] == 1
    assert found["predictors"]["the first run"][0] | {"tau": 1.0} == found["predictors"]["the first run"][0]
    assert "Does the ranking of the first run carry over to the second run?" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "alike" / "carry_over.csv")
    assert set(table["ranked by"]) == {"agreement", "relevance_gain/mean"} and (table["tau"] == 1).all()
    page = (tmp_path / "alike" / "index.html").read_text()
    assert "Which measure foretells the true effects? (the second run)" in page
    compared = Compared.of(JudgedRun.read(first), JudgedRun.read(turned))
    assert compared.found["agreement", "any"].tau.value == -1
    assert compared.foretold["the second run"][0].found.tau.value == -1


def test_runs_that_measured_no_map_are_compared_by_their_criteria(tmp_path: Path) -> None:
    places = [judged(tmp_path / name, MEANS) for name in "ab"]
    for place in places:
        pd.DataFrame([]).to_parquet(place / "measured.parquet")  # as protocol.measured=0 leaves it
    compared = Compared.of(*map(JudgedRun.read, places))
    assert {by for by, _ in compared.found} == {"agreement"} and compared.found["agreement", "any"].tau.value == 1


def test_photographs_say_when_they_are_too_few(tmp_path: Path) -> None:
    first = JudgedRun.read(judged(tmp_path / "a", MEANS))
    few = Compared.of(first, JudgedRun.read(photographs(tmp_path / "few", MEANS, 3)))
    assert few.names == ("the first run", "photographs")
    assert "3 photographs, 3 with a mask or boxes: too few" in few.sentences()[0][0] and few.sentences()[0][1]
    assert "too few" in few.tables()[0].note
    assert few.found["relevance_gain/mean", "any"].tau.value == 1
    assert np.isnan(few.found["relevance_gain/mean", "any"].tau.low)  # of three photographs
    enough = Compared.of(first, JudgedRun.read(photographs(tmp_path / "many", TURNED, FEWEST_PHOTOGRAPHS)))
    assert not enough.warnings and enough.found["relevance_gain/mean", "any"].tau.value == -1
    by = {one.measure: one.found.tau.value for one in enough.foretold["photographs"]}
    assert by == {"relevance_gain/mean": -1, "auprc": -1}  # of photographs, against the scenes' true effects


def test_of_a_few_scenes_the_page_says_so_and_names_no_best_measure(tmp_path: Path) -> None:
    runs = [JudgedRun.read(judged(tmp_path / name, MEANS, scenes=3)) for name in "ab"]
    few = Compared.of(*runs)
    *warnings, (said, warning) = few.sentences()
    assert [said for said, warning in warnings if warning] == [
        f"3 scenes in {name}: too few to tell an order of methods from luck (10 are needed for an interval)."
        for name in ("the first run", "the second run")
    ]
    assert warning and said == "Whether correctness carries over is not known from so few: Kendall's tau 1.00."
    carried, *_, foretold = few.tables()
    assert [row[4:7] for row in carried.rows if row[0] == "correctness"] == [("–", "–", "–")] * 2  # no halves of three
    assert np.isnan(few.foretold["the first run"][0].best) and foretold.rows[0][4] == "–"
    assert foretold.note.startswith("Of 3 scenes nobody can say which comes nearest (10 are needed).")
    assert [row[:2] for row in carried.rows if row[0].startswith("relevance")] == [
        ("relevance gain (SRG), mean", "all")
    ]  # by what is asked only in the files


@pytest.mark.parametrize(
    ("means", "scenes", "shown"),
    [(MEANS, 10, True), (MEANS, 9, False), (TURNED, 20, False), (dict.fromkeys(METHODS, 0.5), 20, False)],
    ids=["alike", "alike of few scenes", "turned round", "luck"],
)
def test_only_what_is_shown_is_marked_as_confirmed(
    means: dict[str, float], scenes: int, shown: bool, tmp_path: Path
) -> None:
    runs = [judged(tmp_path / "a", MEANS, scenes), judged(tmp_path / "b", means, scenes, seed=1)]
    main([*map(str, runs), f"run_dir={tmp_path / 'found'}"])
    page = (tmp_path / "found" / "index.html").read_text()
    lines = re.findall(r"<li( class=\"warning\")?>([^<]*Kendall[^<]*)</li>", page)
    [(marked, said)] = lines
    assert (not marked) == said.startswith("Correctness carries over with") == shown


def test_a_measure_that_orders_nothing_is_named_below_the_table(tmp_path: Path) -> None:
    level = [JudgedRun.read(judged(tmp_path / name, MEANS, measured=0.0)) for name in "ab"]
    [carried, *others] = Compared.of(*level).tables()
    assert {row[0] for row in carried.rows} == {"correctness"} and not others
    assert "Puts no two methods in an order, and is left out: relevance gain (SRG), mean." in carried.note


def test_what_cannot_be_compared_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, photos = judged(tmp_path / "a", MEANS), photographs(tmp_path / "p", MEANS, 3)
    with pytest.raises(UserError, match=r"neither maps\.parquet nor measured\.parquet"):
        JudgedRun.read(tmp_path)
    with pytest.raises(UserError, match="is of photographs: name the run"):
        Compared.of(JudgedRun.read(photos), JudgedRun.read(run))
    other = judged(tmp_path / "b", {"rise": 0.5, "cci": 0.4, "gradcam": 0.3})
    with pytest.raises(UserError, match="do not have 3 methods"):
        Compared.of(JudgedRun.read(run), JudgedRun.read(other))
    with pytest.raises(SystemExit):
        main([str(run)])
    assert "two run directories are compared, and 1 were named" in capsys.readouterr().err
