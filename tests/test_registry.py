"""Named things are found by decorator, by plugin and by entry point; what cannot be found is said in one line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clip_xai import registry
from clip_xai.errors import UserError
from clip_xai.registry import Registry, load_plugins


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_REGISTRIES", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


def test_a_thing_gets_its_name_and_is_found_by_it() -> None:
    shapes: Registry[type] = Registry("shape", "shapes")

    @shapes.register("circle", corners=0)
    class Circle:
        pass

    assert list(shapes) == ["circle"] and shapes["circle"] is Circle and len(shapes) == 1
    assert (Circle.name, Circle.corners) == ("circle", 0)  # type: ignore[attr-defined]
    assert "square" not in shapes and shapes.get("square") is None


def test_an_unknown_name_is_one_line_with_near_matches() -> None:
    shapes: Registry[type] = Registry("shape", "shapes")
    for name in ("circle", "square"):
        shapes.register(name)(type(name, (), {}))
    with pytest.raises(UserError, match=r"^drawn=squre: there is no shape 'squre'; did you mean square\?$"):
        shapes.named("squre", "drawn")
    with pytest.raises(UserError, match=r"^there is no shape 'zzz'; choose one of circle, square$"):
        shapes.named("zzz")


def test_a_name_is_given_once() -> None:
    shapes: Registry[type] = Registry("shape", "shapes")
    first, second = type("First", (), {}), type("Second", (), {})
    shapes.register("circle")(first)
    shapes.register("circle")(first)  # the same module, read twice
    with pytest.raises(UserError, match=r"two shapes are called circle: .*First and .*Second; rename one of them"):
        shapes.register("circle")(second)
    assert shapes["circle"] is first and second.__dict__.get("name") is None


def test_things_are_sorted_where_an_order_is_given() -> None:
    words: Registry[type] = Registry("word", "words", order=lambda word: word.place)  # type: ignore[attr-defined]
    for name, place in (("b", 2), ("c", 3), ("a", 1)):
        words.register(name, place=place)(type(name, (), {}))
    assert list(words) == ["a", "b", "c"]


def test_a_package_is_imported_when_it_is_read(tmp_path: Path) -> None:
    package = tmp_path / "shapes_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from clip_xai.registry import Registry\nshapes = Registry('shape', 'shapes', 'shapes_of_mine')\n"
    )
    (package / "one.py").write_text(
        "from shapes_of_mine import shapes\n@shapes.register('one')\nclass One: pass\nassert 'one' in shapes\n"
    )
    sys.path.insert(0, str(tmp_path))
    from shapes_of_mine import shapes  # type: ignore[import-not-found]

    assert "shapes_of_mine.one" not in sys.modules
    assert list(shapes) == ["one"]


def test_a_plugin_is_a_module_of_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "my_shapes.py").write_text(
        "from clip_xai import registry\n@registry.registries()[0].register('blob')\nclass Blob:\n    pass\n"
    )
    shapes: Registry[type] = Registry("shape", "shapes")
    load_plugins(["my_shapes"])
    load_plugins(["my_shapes"])
    assert list(shapes) == ["blob"]


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("nowhere_to_be_found", None, "plugins: there is no module nowhere_to_be_found, neither installed nor in /"),
        ("no.such.module", None, "plugins: there is no module no, neither"),
        ("idle_module", "x = 1\n", "plugins: idle_module .*idle_module.py. registers nothing; it can register: shape"),
        ("broken_module", "\n\n1 / 0\n", "plugins: broken_module cannot be imported: ZeroDivisionError: .*line 3"),
        ("lacking_module", "import not_there\n", "plugins: lacking_module .*No module named 'not_there'"),
        ("unreadable_module", "x = = 1\n", "plugins: unreadable_module cannot be imported: SyntaxError: "),
        ("file.py", None, "plugins: 'file.py' is not the name of a module"),
        ("some/file", None, "plugins: 'some/file' is not the name of a module"),
    ],
)
def test_a_plugin_that_is_none_is_one_line(tmp_path: Path, name: str, text: str | None, line: str) -> None:
    Registry("shape", "shapes")
    if text is not None:
        (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(UserError, match=f"^{line}") as caught:
        load_plugins([name])
    assert "\n" not in str(caught.value)


PROGRAM = """
import sys
from clip_xai.registry import Registry
shapes = Registry("shape", "shapes")
assert "my_hexagons" not in sys.modules and "hexagon" in shapes and list(shapes) == []
print(shapes.named("hexagon").corners, list(shapes))
try:
    shapes.named("missing")
except Exception as error:
    print(error)
"""


def test_an_installed_package_is_imported_when_its_thing_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "my_hexagons.py").write_text("class Hexagon:\n    corners = 6\n")
    installed = tmp_path / "my_hexagons-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-hexagons\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        "[clip_xai.shapes]\nhexagon = my_hexagons:Hexagon\nmissing = my_hexagons_that_are_not_there\n"
    )
    path = [str(tmp_path), str(Path(registry.__file__).resolve().parents[1])]
    program = f"import sys; sys.path[:0] = {path!r}\n{PROGRAM}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "6 ['hexagon']"
    assert second.startswith("shape missing, installed as my_hexagons_that_are_not_there: ModuleNotFoundError: ")


# Group of entry points -> the example that documentation shows, its name there, and the words that choose it.
EXAMPLES = {
    "explainers": ("my_explainer", "quadrants", "xai=quadrants"),
    "targets": ("my_target", "embedding_length", "target=embedding_length"),
    "backbones": ("my_backbone", "two_convolutions", "backbone=two_convolutions"),
    "mappers": ("my_mapper", "one_layer", "mapper=one_layer"),
    "language_models": ("my_language_model", "small_llama", "language_model=small_llama"),
    "tasks": ("my_task", "brightness", "task=brightness"),
    "sources": ("my_source", "mine", None),
}
INSTALLED = """
from clip_xai.config.plugins import options_of, use_plugins
chosen = {group: words for group, (module, name, words) in examples.items() if words}
assert not {module for module, *_ in examples.values()} & set(sys.modules)
use_plugins(list(chosen.values()))  # what a command line does
for group, words in chosen.items():
    setting, _, option = words.partition("=")
    assert examples[group][0] in sys.modules, words
    assert setting == "task" or option in options_of(setting), words  # a task's option is its YAML
from clip_xai.data.sources import SOURCES
from clip_xai.registry import registries
assert "mine" in list(SOURCES)  # whichever lies below a folder is read
found = {one.group: one for one in registries()}
for group, (module, name, _) in examples.items():
    print(group, found["clip_xai." + group].module_of(name), name in found["clip_xai." + group])
"""


def test_every_group_has_entry_points(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parent.parent
    for module, *_ in EXAMPLES.values():
        shutil.copy(root / "docs" / "extending" / "examples" / f"{module}.py", tmp_path)
    installed = tmp_path / "all_of_mine-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: all-of-mine\nVersion: 1.0\n")
    points = "".join(f"[clip_xai.{group}]\n{name} = {module}\n" for group, (module, name, _) in EXAMPLES.items())
    (installed / "entry_points.txt").write_text(points)
    path = [str(tmp_path), str(root / "src")]
    program = f"import sys; sys.path[:0] = {path!r}; examples = {EXAMPLES!r}\n{INSTALLED}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{group} {module} True" for group, (module, *_) in EXAMPLES.items()]


@pytest.mark.parametrize("group", EXAMPLES)
def test_each_group_stands_in_the_documentation(group: str) -> None:
    pages = Path(__file__).resolve().parent.parent / "docs" / "extending"
    [page] = [page for page in pages.glob("*.md") if f"examples/{EXAMPLES[group][0]}.py" in page.read_text()]
    assert f"clip_xai.{group}" in page.read_text()
