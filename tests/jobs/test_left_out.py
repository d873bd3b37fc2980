"""One method, one target or one photograph that fails leaves the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from clip_xai.errors import UserError
from clip_xai.explanations.explanation_job import ExplanationJob
from clip_xai.explanations.photographs import Photograph
from clip_xai.explanations.store import ResultStore
from clip_xai.jobs.explain import explain_photographs
from clip_xai.xai.examples import example
from clip_xai.xai.explainer import explainers
from clip_xai.xai.methods import GradCam, Occlusion, Saliency
from clip_xai.xai.targets.question import Question


def photographs(folder: Path, count: int = 2) -> list[Photograph]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.effect_noise((30 + number, 40), 90).convert("RGB").save(path)
    return [Photograph(path, path.name) for path in paths]


def test_a_method_whose_gradient_is_zero_is_left_out_by_name(tmp_path: Path) -> None:
    backbone, _, _ = example()
    question = Question(("contrast",), text="nevus", against=("nevus",))  # a margin over itself is 0 everywhere
    names = ("gradcam", "occlusion", "rise")
    methods = [explainers["gradcam"](), Occlusion(window=1), explainers["rise"](masks=20, cells=2)]
    result = ExplanationJob(backbone, None, methods, question).result(photographs(tmp_path, 1)[0])
    answer = result.answers["contrast"]
    assert [one.method for one in answer.attributions] == list(names[1:])
    assert len(answer.settings) == 2 and [text.split()[0] for text in answer.left_out] == ["gradcam"]
    with pytest.raises(UserError, match="gradcam is left out"):
        ExplanationJob(backbone, None, methods[:1], question).result(photographs(tmp_path, 1)[0])


def test_a_fault_of_one_method_or_photograph_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, _, _ = example()
    seen: list[int] = []

    def broken(self: GradCam, *arguments: object) -> None:
        seen.append(1)
        raise RuntimeError("a fault\nof the program")

    monkeypatch.setattr(GradCam, "maps", broken)
    question = Question(("similarity",), text="nevus")
    two = photographs(tmp_path / "photographs")
    store = ResultStore(tmp_path / "run")
    explain_photographs(ExplanationJob(backbone, None, [GradCam(), Saliency()], question), two, store)
    for _, result in store.results():
        answer = result.answers["similarity"]
        assert [one.method for one in answer.attributions] == ["saliency"]
        assert answer.left_out == ("gradcam is left out, it failed: RuntimeError: a fault.",)
    assert seen and not store.problems()

    real = backbone.preprocess.__class__.read

    def unlucky(self: object, path: Path) -> object:
        if Path(path).name == "0.png":
            raise ZeroDivisionError("of a library")
        return real(self, path)  # type: ignore[arg-type]

    monkeypatch.setattr(backbone.preprocess.__class__, "read", unlucky)
    other = ResultStore(tmp_path / "other")
    explain_photographs(ExplanationJob(backbone, None, [Saliency()], question), two, other)
    assert len(list(other.results())) == 1 and "ZeroDivisionError: of a library" in other.problems()[0]
