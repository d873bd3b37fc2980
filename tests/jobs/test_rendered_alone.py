"""A captioner that saw rendered pictures alone says so of every photograph."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from clip_xai.data.rendered_mark import marked
from clip_xai.explanations.collection import shown
from clip_xai.explanations.explanation_job import RENDERED_ALONE, ExplanationJob
from clip_xai.explanations.photographs import photographs_at
from clip_xai.models.settings import Decoding
from clip_xai.runs.lineage import Learned, Lineage
from clip_xai.xai.explainer import explainers
from clip_xai.xai.targets.question import Question
from tests.support.small_captioner import small_captioner


@pytest.mark.parametrize(("rendered", "warned"), [(4, ["photo.png"]), (3, [])])
def test_a_photograph_is_no_rendered_picture(tmp_path: Path, rendered: int, warned: list[str]) -> None:
    picture = Image.linear_gradient("L").convert("RGB").resize((64, 48))
    picture.save(tmp_path / "photo.png")
    picture.save(tmp_path / "drawn.png", **marked("PNG"))
    captioner = small_captioner()
    captioner.provenance = Lineage(learned=(Learned("ham10000", 4, 2, rendered),)).packed()
    question = Question(names=("similarity",), text="nevus")
    job = ExplanationJob(captioner.backbone, captioner, [explainers["gradcam"]()], question, Decoding(max_new_tokens=4))
    results = [job.result(photograph) for photograph in photographs_at(str(tmp_path))]
    # So small a language model has no room for a caption as it is evaluated: that is said in its place.
    assert all("none: " in " ".join(result.photograph.facts.values()) for result in results)
    said = {result.photograph.name: shown(result, captioner.backbone).warning for result in results}
    assert [name for name, warning in said.items() if warning] == warned
    assert set(said.values()) <= {RENDERED_ALONE, ""}
