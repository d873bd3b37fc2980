"""An explainer of one's own is one file: named by ``plugins=[module]`` it is chosen, set and refused as any other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from PIL import Image

from clip_xai.config import schemas
from clip_xai.config.cli import compose_job, one_line
from clip_xai.config.plugins import settings_of
from clip_xai.errors import UserError
from clip_xai.jobs import generate
from clip_xai.jobs.explain import explain
from clip_xai.registry import load_plugins
from clip_xai.runs.instantiate import explainers_of
from clip_xai.xai.examples import example
from clip_xai.xai.explainer import explainers, groups

ROOT = Path(__file__).resolve().parents[2]
TOY = '''"""A toy: how strongly the score reacts to each patch, to a power."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clip_xai.ranges import setting
from clip_xai.xai.explainer import TraceExplainer, explainers
from clip_xai.xai.pixels import PIXEL_NEEDS, by_cell


@explainers.register("toy", title="Toy gradient", group="toys")
@dataclass(frozen=True)
class Toy(TraceExplainer):
    """The gradient at the pixels, to a power.

    Attributes:
        power: Of the gradient.
    """

    power: float = setting(1.0, above=0, most=4)
    colours: tuple[int, ...] = (0, 1, 2)

    linear_in_target: ClassVar[bool] = False
    cost: ClassVar[str] = "1 F, 1 batched B"

    def needs(self, backbone, target):
        return PIXEL_NEEDS

    def maps(self, trace):
        strength = trace.pixel_gradient[:, :, list(self.colours)].abs().sum(dim=2)
        return by_cell(strength**self.power, trace.grid, mean=True)
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "toy_explainer.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(schemas.SCHEMAS, "explain", schemas.ExplainConfig)
    yield tmp_path
    explainers._things.pop("toy", None)
    sys.modules.pop("toy_explainer", None)
    ConfigStore.instance().repo.get("xai", {}).pop("toy.yaml", None)


def command(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    line = [sys.executable, "-X", "importtime", str(ROOT / "explain.py"), *arguments]
    return subprocess.run(line, cwd=place, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)


def test_the_command_explains_by_a_plugin(toy: Path) -> None:
    Image.new("RGB", (120, 90), (220, 180, 160)).save(toy / "photograph.png")
    done = command(
        toy, "plugins=[toy_explainer]", "xai=[toy,gradcam]", "xai.toy.power=2", "backbone=tiny", "image=photograph.png",
        "text=a photo of melanoma", "logger=csv", "run_dir=run", "trainer=cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    page = (toy / "run" / "index.html").read_text()
    for part in ('"title":"Toy gradient"', '"group":"toys"', '"power":"2"', '"title":"Grad-CAM"'):
        assert part in page


def test_settings_of_a_plugin_are_checked_as_any(toy: Path) -> None:
    def composed(*overrides: str) -> object:
        config = compose_job("explain", ["plugins=[toy_explainer]", *overrides], toy / "run")
        return explainers_of(config.xai)

    [one] = composed("xai=toy", "xai.toy.power=2", "xai.toy.colours=[0,1]")  # type: ignore[misc]
    assert one.settings == {"power": 2.0, "colours": [0, 1]}
    assert [method.name for method in groups()["toys"]] == ["toy"]
    for wrong, said in {
        "powr=2": r"^xai\.toy\.powr: there is no such.*near: xai\.toy\.power",
        "power=much": "much",
    }.items():
        with pytest.raises((HydraException, UserError)) as caught:
            composed("xai=toy", f"xai.toy.{wrong}")
        assert re.search(said, one_line(caught.value, schemas.SCHEMAS["explain"]))
    with pytest.raises(UserError, match=r"^xai\.toy\.power=9: give more than 0 and at most 4$"):
        composed("xai=toy", "xai.toy.power=9")


def test_a_plugin_answers_from_python(toy: Path) -> None:
    load_plugins(["toy_explainer"])
    backbone, pixels, target = example()
    once = explainers.named("toy")().explain(backbone, pixels, target).values
    assert once.shape == (2, 2, 4, 4) and bool((once >= 0).all())
    assert not torch.equal(once, explainers["toy"](power=2.0).explain(backbone, pixels, target).values)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["plugins=[nowhere]"], "plugins: there is no module nowhere, neither installed nor in "),
        (["xai=gradcam", "xai.gradcam.layr=1"], "xai.gradcam.layr: there is no such setting or group"),
        (["xai.rise.maks=1"], "xai.rise.maks: there is no such setting or group (near: xai.rise.masks"),
        (["xai=rise", "xai.rise.masks=1"], "xai.rise.masks=1: give at least 2"),
    ],
)
def test_what_is_refused_imports_no_torch(tmp_path: Path, arguments: list[str], line: str) -> None:
    done = command(tmp_path, *arguments)
    imported = [row for row in done.stderr.splitlines() if row.startswith("import time:")]
    said = [row for row in done.stderr.splitlines() if not row.startswith("import time:")]
    assert done.returncode == 1 and len(said) == 1 and said[0].startswith(line), said
    assert imported and not any(row.endswith((" torch", " lightning", " open_clip")) for row in imported)


def test_a_setting_that_cannot_be_typed_is_refused() -> None:
    from dataclasses import dataclass, field

    @dataclass
    class Odd:
        made_of: object = field(default_factory=object)

    Odd.__annotations__["made_of"] = object
    with pytest.raises(UserError, match=r"^xai\.odd\.made_of: a setting of type .* cannot be typed"):
        settings_of("odd", Odd)


def test_what_is_generated_is_fresh() -> None:
    assert not generate.stale_files(), f"run {generate.COMMAND}"


def test_what_a_removed_explainer_left_is_found(tmp_path: Path) -> None:
    (tmp_path / "gone.yaml").write_text("# It was.\ngone:\n  layer: -1\n")
    (tmp_path / "gradcam.yaml").write_text("gradcam:\n  layer: -1\n")
    (tmp_path / "mine.yaml").write_text("defaults:\n  - gradcam\n")
    assert generate.left_behind(tmp_path, ["gradcam"]) == [tmp_path / "gone.yaml"]
    assert not generate.left_behind(generate.CONF / "xai", list(explainers))


def test_what_is_generated_follows_from_the_class(toy: Path) -> None:
    load_plugins(["toy_explainer"])
    files = {path.name: text for path, text in generate.generated([explainers["toy"]]).items()}
    assert files["toy.yaml"] == (
        "# The gradient at the pixels, to a power.\ntoy:\n  # Of the gradient.\n  power: 1.0\n  colours: [0, 1, 2]\n"
    )
    assert "    power: float = setting(1.0, most=4, above=0)\n" in files["explainer_settings.py"]
    assert files["all.yaml"].endswith("defaults:\n  - toy\n")


def test_results_of_a_plugin_that_changed_since_are_refused(toy: Path) -> None:
    Image.new("RGB", (120, 90), (220, 180, 160)).save(toy / "photograph.png")
    asked = (
        "plugins=[toy_explainer]", "xai=toy", "backbone=tiny", "image=photograph.png", "text=melanoma", "logger=csv",
        "trainer=cpu",
    )  # fmt: skip
    explain(compose_job("explain", asked, toy / "run"))
    assert explain(compose_job("explain", asked, toy / "run"))["explained"] == 1
    with (toy / "toy_explainer.py").open("a") as file:
        file.write("# another rule\n")
    with pytest.raises(UserError, match="code"):
        explain(compose_job("explain", asked, toy / "run"))
