"""Rendered radiographs: what a mask claims, what a seed decides, and whether shortcuts are what they are called."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from clip_xai.data.synthetic.chest.plan import LABELS, Film, Shortcuts, films_of_patient, in_test_list, sample_film
from clip_xai.data.synthetic.chest.ranges import cardiothoracic_ratio, measure
from clip_xai.data.synthetic.chest.render import ARTEFACTS, STRUCTURES, part_names, render

FILMS = [sample_film(5, patient, 0) for patient in range(1, 250)]


def showing(label: str) -> Film:
    return next(film for film in FILMS if film.labels == (label,))


def crowded() -> list[Film]:
    """Films that show every finding and every artefact between them, several at once."""
    chosen: list[Film] = []
    for part in (*LABELS, *ARTEFACTS):
        if not any(part in part_names(film) for film in chosen):
            chosen.append(max((film for film in FILMS if part in part_names(film)), key=lambda film: len(film.labels)))
    return chosen


def test_leaving_a_part_out_changes_the_pixels_of_its_mask_and_no_others() -> None:
    met = set()
    for number, film in enumerate(crowded()):
        whole = render(film, 64)
        for part in part_names(film):
            if number and part in STRUCTURES:
                continue
            met.add(part)
            changed = render(film, 64, without=(part,)).image != whole.image
            assert not (changed & ~whole.masks[part]).any(), (film.name, part)
            if part in LABELS or part in ARTEFACTS:
                assert changed.any(), (film.name, part)
    assert met == {*STRUCTURES, *LABELS, *ARTEFACTS}


def test_a_finding_changes_most_of_what_its_mask_claims() -> None:
    for label in LABELS:
        film = showing(label)
        film = replace(film, pose=replace(film.pose, noise=0.0, level=0.1, gain=0.8, gamma=1.0))
        whole, without = render(film, 128), render(film, 128, without=(label,))
        changed = whole.image != without.image
        # The heart is there without Cardiomegaly too, and markings are what is missing in a Pneumothorax.
        least = {"Cardiomegaly": 0.25, "Pneumothorax": 0.5}.get(label, 0.9)
        assert changed[whole.masks[label]].mean() > least, label


def test_opacities_are_brighter_and_a_pneumothorax_is_darker() -> None:
    for label in LABELS:
        film = showing(label)
        whole = render(film, 64)
        mask = whole.masks[label]
        without = render(film, 64, without=(label,)).image[mask].astype(float)
        shown = whole.image[mask].astype(float)
        if label == "Pneumothorax":
            assert shown.mean() < without.mean() - 2
        else:
            assert shown.mean() > without.mean() + 5, label


def test_a_seed_decides_every_byte_in_another_process_too() -> None:
    code = (
        "import hashlib; from clip_xai.data.synthetic.chest.render import *; "
        "print(hashlib.sha256(render(sample_film(5, 3, 0), 64).image.tobytes()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    elsewhere = subprocess.check_output([sys.executable, "-c", code], text=True, env=environment).strip()
    here = [hashlib.sha256(render(film, 64).image.tobytes()).hexdigest() for film in (FILMS[2], FILMS[2], FILMS[3])]
    assert elsewhere == here[0] == here[1] != here[2]


def test_a_patient_keeps_anatomy_hospital_and_lasting_findings() -> None:
    for patient in range(1, 60):
        films = films_of_patient(5, patient)
        assert 1 <= len(films) <= 5
        assert len({film.pose for film in films}) == len(films)
        for film in films:
            assert (film.anatomy, film.hospital) == (films[0].anatomy, films[0].hospital)
            lasting = [finding for finding in film.findings if finding.label in ("Cardiomegaly", "Mass", "Nodule")]
            assert lasting == [
                finding for finding in films[0].findings if finding.label in ("Cardiomegaly", "Mass", "Nodule")
            ]


def test_findings_lie_on_the_side_and_in_the_zone_that_are_recorded() -> None:
    seen = set()
    for film in FILMS[:60]:
        straight = replace(film, pose=replace(film.pose, shift=(0.0, 0.0), scale=1.0, turn=0.0, breath=0.0))
        drawn = render(straight, 64)
        for finding in film.findings:
            mask = drawn.masks[finding.label]
            if finding.label == "Cardiomegaly":
                assert mask[:, :32].any() and mask[:, 32:].sum() > mask[:, :32].sum()
                continue
            rows, columns = np.nonzero(mask)
            # The patient's left is on the right of a film.
            assert ("left" if columns.mean() > 31.5 else "right") == finding.side, (film.name, finding)
            seen.add((finding.side, finding.zone))
            if finding.label in ("Mass", "Nodule"):
                dome = film.anatomy.domes[int(finding.side == "left")]
                down = (rows.mean() / 32 - 1 + 1 / 64 - film.anatomy.apex) / (dome - film.anatomy.apex)
                low = ("upper", "middle", "lower").index(finding.zone) / 3
                assert low - 0.12 < down < low + 1 / 3 + 0.12, (film.name, finding, down)
    assert len(seen) >= 5


def test_the_heart_is_as_wide_as_the_planned_ratio_says() -> None:
    for film in FILMS[:10]:
        straight = replace(film, pose=replace(film.pose, turn=0.0, shift=(0.0, 0.0)), artefacts=())
        ratio = film.anatomy.enlarged_ratio if "Cardiomegaly" in film.labels else film.anatomy.ratio
        assert cardiothoracic_ratio(render(straight, 128), straight) == pytest.approx(ratio, abs=0.03)
        assert (ratio > 0.5) == ("Cardiomegaly" in film.labels)


def test_measures_lie_within_what_is_documented() -> None:
    outside = [row for row in measure(FILMS[:90], 64) if not row.within]
    assert not outside, outside


def test_shortcuts_at_their_ends_and_in_between() -> None:
    pairs = {}
    for strength in (0.0, 0.5, 1.0):
        films = [sample_film(8, patient, 0, Shortcuts(strength, strength)) for patient in range(1, 500)]
        pairs[strength] = [
            (
                share([f for f in films if "Pneumothorax" in f.labels], "chest tube"),
                share([f for f in films if "Pneumothorax" not in f.labels], "chest tube"),
            ),
            (
                share([f for f in films if f.hospital == "south"], "Effusion"),
                share([f for f in films if f.hospital == "north"], "Effusion"),
            ),
        ]
    for with_it, without in pairs[0.0]:
        assert abs(with_it - without) < 0.12
    assert pairs[1.0][0] == (1.0, 0.0) and pairs[1.0][1][1] == 0.0
    for with_it, without in pairs[0.5]:
        assert with_it > without + 0.1


def test_a_shortcut_moves_nothing_but_what_it_ties() -> None:
    for patient in range(1, 80):
        free, tied = sample_film(8, patient, 1), sample_film(8, patient, 1, Shortcuts(0.9, 0.0))
        assert free.findings == tied.findings and free.pose == tied.pose and free.anatomy == tied.anatomy
        assert set(free.artefacts) ^ set(tied.artefacts) <= {"chest tube"}


def test_a_tube_lies_on_the_side_of_its_pneumothorax() -> None:
    films = [film for film in FILMS if film.tube_side and "Pneumothorax" in film.labels]
    assert films
    for film in films:
        assert film.tube_side == next(f.side for f in film.findings if f.label == "Pneumothorax")


def test_sizes_show_the_same_composition() -> None:
    for label in LABELS:
        film = showing(label)
        small = render(film, 64).masks[label]
        large = render(film, 192).masks[label].reshape(64, 3, 64, 3).mean((1, 3)) > 0.5
        assert (small & large).sum() / (small | large).sum() > 0.5, label


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32"):
        render(FILMS[0], 16)
    with pytest.raises(ValueError, match="does not show Hernia"):
        render(FILMS[0], 64, without=("Hernia",))
    with pytest.raises(ValueError, match="between 0 and 1"):
        Shortcuts(tube=1.5)


def test_the_share_of_the_test_list() -> None:
    tested = [in_test_list(0, patient, 0.23) for patient in range(1, 1000)]
    assert 0.18 < np.mean(tested) < 0.28


def share(films: list[Film], part: str) -> float:
    return float(np.mean([part in part_names(film) for film in films]))
