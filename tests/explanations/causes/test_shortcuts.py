"""Planted shortcuts: a captioner learns on the same every time, and summaries are those of loops over scenes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from clip_xai.data.synthetic.describe import describe
from clip_xai.data.synthetic.planted import shortcut_scenes
from clip_xai.data.synthetic.profiles import PROFILES
from clip_xai.explanations.causes.cheats import CONCLUSION, CheatingData, cheating_captioner
from clip_xai.explanations.causes.scene_targets import Asker
from clip_xai.explanations.causes.shortcuts import STRENGTHS, reliances, revealed, reveals_from, shortcut_rows
from clip_xai.metrics.intervals import mean_interval
from clip_xai.models.captioner import Captioner
from clip_xai.models.mappers import build_mapper
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.xai.methods import GradCam, InputXGradient
from clip_xai.xai.targets.similarity import CutTextWarning
from tests.support.small_captioner import small_captioner


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    torch.manual_seed(0)
    texts = [CONCLUSION.format(name) for name in PROFILES] * 3 + [
        describe(one)[0] for one in shortcut_scenes(range(40))
    ]
    tokenizer = CaptionTokenizer.train(texts, 420)
    config = GPT2Config(
        vocab_size=tokenizer.vocabulary_size, n_positions=96, n_embd=32, n_layer=2, n_head=2,
        bos_token_id=tokenizer.eos_id, eos_token_id=tokenizer.eos_id,
    )  # fmt: skip
    mapper = build_mapper("resampler", embed_dim=16, width=32, embedding_dim=32, prefix_length=4, head_width=16)
    return Captioner(small_captioner().backbone, mapper, GPT2LMHeadModel(config), tokenizer).eval()


def test_a_captioner_learns_on_from_what_it_was_the_same_every_time(captioner: Captioner) -> None:
    before = captioner.fingerprint()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutTextWarning)
        asker = Asker(captioner.backbone, captioner)
    data = CheatingData.drawn(asker, "colour cast", 24, seed=0)
    texts = captioner.encode_captions([CONCLUSION.format(scene.diagnosis) for scene in data.scenes])
    learner = cheating_captioner(captioner, data, 1.0, seed=1, epochs=3)
    assert learner.fingerprint() == cheating_captioner(captioner, data, 1.0, seed=1, epochs=3).fingerprint()
    assert captioner.fingerprint() == before != learner.fingerprint()
    assert not any(parameter.requires_grad for parameter in learner.parameters())
    with torch.no_grad():
        assert learner.loss(data.reads[0], texts) < captioner.loss(data.reads[0], texts) - 0.1
    rows = shortcut_rows(asker, learner, "colour cast", 1.0, data.scenes[:2], [GradCam(), InputXGradient()])
    [cheating] = reliances(rows)
    assert cheating.moved is None and cheating.added.n == 2
    # A colour cast is everywhere: there is no place that heat could lie on.
    assert {one.method: one.reveals_from for one in revealed(rows)} == {"gradcam": None, "input_x_gradient": None}


def test_summaries_are_those_of_loops() -> None:
    generator = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for p in STRENGTHS:
        for scene in range(24):
            known = {"artefact": "ruler", "p": p, "scene": scene, "cheat": False}
            noise = generator.normal(0, 0.01)
            rows.append(known | {"added": 2 * p + noise, "flips": p > 0.5, "moved": p})
            for method, slope in (("sees", 0.3), ("blind", 0.0)):
                excess = slope * max(0.0, p - 0.2) + generator.normal(0, 0.01)
                rows.append(
                    known | {"method": method, "flips": p > 0.5, "excess": excess, "excess_elsewhere": noise,
                             "sensitivity": 0.4, "ncc": 0.9}
                )  # fmt: skip
    found = {one.method: one for one in revealed(rows)}
    assert found["sees"].reveals_from == 0.5 and found["blind"].reveals_from is None
    pick = {(row["p"], row["scene"]): row["excess"] for row in rows if row.get("method") == "sees"}
    apart = [pick[1.0, scene] - pick[0.0, scene] for scene in range(24)]
    assert found["sees"].beyond[1.0] == mean_interval(apart, [str(scene) for scene in range(24)], span=(-1.0, 1.0))
    assert found["sees"].sensitivity == pytest.approx(0.4) and found["sees"].ncc == pytest.approx(0.9)
    truths = reliances(rows)
    assert [one.p for one in truths] == list(STRENGTHS) and truths[-1].flips == 24
    assert truths[-1].beyond.low > 1.9 and truths[0].beyond.value == 0
    assert reveals_from({}) is None and reliances([]) == [] and revealed([]) == []
