"""Which method a page opens with, and what stands beside each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from clip_xai.explanations.measured import evidence_in
from clip_xai.report.evidence import Evidence, Localised, Measured, opening_method
from clip_xai.report.html import write_explanations
from tests.report.planted import explained

METHODS = ("gradeclip", "attention_rollout", "occlusion")


def localised(trained: tuple[float, float, float], random: tuple[float, float, float] | None) -> Localised:
    return Localised(Measured(*trained), None if random is None else Measured(*random))


def test_the_page_opens_with_what_localised_best_above_its_random_weights() -> None:
    evidence = Evidence(
        "24 photographs",
        {
            "attention_rollout": localised((0.90, 0.85, 0.95), (0.88, 0.80, 0.93)),  # no better than untrained
            "occlusion": localised((0.60, 0.50, 0.70), (0.20, 0.10, 0.30)),
            "gradeclip": localised((0.55, 0.45, 0.65), (0.20, 0.10, 0.30)),
        },
    )
    method, said = opening_method(METHODS, evidence, "measure")
    assert method == "occlusion"
    assert "localised best" in said and "0.60 [0.50, 0.70]" in said and "0.20 [0.10, 0.30]" in said
    assert "does not show that a map is faithful" in said
    assert "overlap" in evidence.of("attention_rollout")
    assert "not measured" in evidence.of("rise")


def test_a_map_below_its_random_weights_is_said_to_be_worse() -> None:
    worse = localised((0.19, 0.12, 0.27), (0.41, 0.28, 0.54))
    assert worse.text.endswith("training made this map worse at locating the finding") and "overlap" not in worse.text
    unsure = Localised(Measured(0.5, None, None), Measured(0.4, None, None))
    assert "there is no interval" in unsure.text and not unsure.learned


def test_what_needs_no_model_stands_beside_the_best_method() -> None:
    rows = [
        {
            "method": method,
            "what": what,
            "weights": weights,
            "auprc": {"value": value, "low": low, "high": high, "n": 16},
        }
        for method, what, weights, value, low, high in (
            ("occlusion", "similarity", "trained", 0.30, 0.19, 0.42),
            ("occlusion", "similarity", "random", 0.10, 0.07, 0.15),
            ("control: centre", "any", "trained", 0.31, 0.17, 0.48),
        )
    ]
    evidence = evidence_in(rows, {})
    assert evidence is not None and evidence.methods.keys() == {"occlusion"}
    method, said = opening_method(["occlusion"], evidence, "measure")
    assert method == "occlusion" and "Without any model: centre of the picture 0.31." in said


def test_without_a_measurement_the_page_says_so_and_names_the_command() -> None:
    assert opening_method(METHODS, None, "python -m measure") == (
        "gradeclip",
        "How well these methods localise was not measured for this model; their order says nothing about their worth. "
        "Measure it: python -m measure",
    )
    assert opening_method((), None, "measure") == (None, "")


def test_of_methods_at_their_random_level_none_is_called_best() -> None:
    evidence = Evidence("24 photographs", {"occlusion": localised((0.6, 0.5, 0.7), (0.5, 0.4, 0.6))})
    method, said = opening_method(METHODS, evidence, "measure")
    assert method == "gradeclip"
    assert "None of these methods localises above its own random-weights level" in said


def test_the_page_holds_the_choice_and_each_method_its_evidence(tmp_path: Path) -> None:
    evidence = Evidence("24 photographs", {"occlusion": localised((0.6, 0.5, 0.7), (0.2, 0.1, 0.3))})
    image = explained()
    items = (*image.items[:-1], replace(image.items[-1], context="Rank 2 of 24."))
    page = write_explanations([replace(image, items=items)], tmp_path / "a.html", title="A", evidence=evidence)
    text = page.read_text(encoding="utf-8")
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert data["opening"]["method"] == "occlusion"
    found = {one["method"]: one["evidence"] for one in data["images"][0]["explanations"]}
    assert found["occlusion"].startswith("AUPRC of heat against masks of the finding 0.60")
    assert found["gradeclip"] == "Localisation of this method was not measured for this model."
    assert found["token_gradxinput"] == ""  # lesions say nothing about words
    assert data["images"][0]["items"][-1]["context"] == "Rank 2 of 24."
