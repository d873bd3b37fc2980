"""Write what is read before torch is loaded: the settings of explainers, mappers, targets, for Hydra and people.

``python -m clip_xai.jobs.generate`` writes ``config/explainer_settings.py`` and ``conf/xai/NAME.yaml`` from the classes
of the explainers, with each line of their docstrings as the comment of its setting, and ``config/mapper_settings.py``
and ``conf/mapper/NAME.yaml`` from the constructors of the mappers (``jobs/generate_mappers.py``), and
``config/target_settings.py`` from the fields of a question (``jobs/generate_targets.py``); with ``--check`` it says
what is stale and writes nothing. Groups of explainers that are chosen by hand, such as ``conf/xai/basic.yaml``,
stay.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import yaml

from clip_xai.config.cli import CONF
from clip_xai.jobs.docstrings import comment, documented
from clip_xai.jobs.generate_mappers import generated_of_mappers
from clip_xai.jobs.generate_targets import generated_of_targets
from clip_xai.xai.explainer import Explainer, explainers

COMMAND = "python -m clip_xai.jobs.generate"
MODULE = Path(__file__).resolve().parents[1] / "config" / "explainer_settings.py"
HEAD = f'''"""The settings of every explainer, read without importing one: a mistyped setting is refused at once.

Written by ``{COMMAND}`` from the explainers' own classes; change those, and run it again.
"""

# fmt: off
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from clip_xai.ranges import Checked, setting
'''


def main(arguments: Sequence[str]) -> int:
    """Write what is stale, or with ``--check`` say what it is; return 1 where that is anything."""
    stale, left = stale_files(), left_behind(CONF / "xai", list(explainers))
    for path in left:
        print(f"{path} sets an explainer that does not exist: remove the file", file=sys.stderr)
    if list(arguments) == ["--check"]:
        for path in stale:
            print(f"{path} is stale: run {COMMAND}", file=sys.stderr)
        return 1 if stale or left else 0
    if arguments:
        print(f"{COMMAND} takes --check or nothing, not {' '.join(arguments)}", file=sys.stderr)
        return 1
    for path, text in stale.items():
        path.write_text(text, encoding="utf-8")
        print(path)
    return 1 if left else 0


def stale_files() -> dict[Path, str]:
    """Return the files that are other than the classes make them, with what they should hold."""
    return {
        path: text
        for path, text in (generated(own()) | generated_of_mappers() | generated_of_targets()).items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    }


def left_behind(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the YAML files of single explainers that are not there any more; lists of several are left alone.

    Args:
        folder: The YAML files of ``xai``.
        names: Explainers that there are.
    """
    found = []
    for file in sorted(folder.glob("*.yaml")):
        keys = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        if file.stem not in names and set(keys) - {"defaults", "best"} - set(names):
            found.append(file)
    return found


def own() -> list[type[Explainer]]:
    """Return this package's explainers."""
    return [method for method in explainers.values() if method.__module__.startswith("clip_xai.")]


def generated(methods: Sequence[type[Explainer]]) -> dict[Path, str]:
    """Return all generated files of some explainers by their paths."""
    found = {MODULE: module_of(methods)}
    found |= {CONF / "xai" / f"{method.name}.yaml": option_of(method) for method in methods}
    listed = "".join(f"  - {method.name}\n" for method in methods)
    head = "# Every explainer. One line a method; `xai=[gradcam,gradeclip]` takes some of them.\n"
    return found | {CONF / "xai" / "all.yaml": f"{head}defaults:\n{listed}"}


def module_of(methods: Sequence[type[Explainer]]) -> str:
    """Return the module that holds a dataclass for each explainer, and one of all."""
    parts = [HEAD, *map(_class_of, methods)]
    lines = [f"    {method.name}: {_class_name(method)} | None = None" for method in methods]
    lines.append("    best: bool = False  # those that were judged to be the best for the model, too")
    doc = '    """Which explainers, each with its settings; null for one that is not asked for."""\n'
    parts.append("\n\n@dataclass\nclass XaiConfig:\n" + "\n".join([doc, *lines]) + "\n")
    return "".join(parts)


def option_of(method: type[Explainer]) -> str:
    """Return the YAML of one explainer, each setting below what it means."""
    said = documented(method.__doc__, "Attributes:")
    lines = comment(title_line(method), "")
    if not fields(method):
        return "\n".join([*lines, f"{method.name}: {{}}", ""])
    lines.append(f"{method.name}:")
    for item in fields(method):
        lines += comment(said.get(item.name, ""), "  ")
        default = _default(item)
        plain = list(default) if isinstance(default, tuple) else default
        value = yaml.safe_dump(plain, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
        lines.append(f"  {item.name}: {value}")
    return "\n".join(lines) + "\n"


def title_line(method: type[Explainer]) -> str:
    """Return the first line of an explainer's docstring."""
    return inspect.cleandoc(method.__doc__ or "").splitlines()[0].rstrip(":")


def _class_of(method: type[Explainer]) -> str:
    lines = ["", "", "@dataclass", f"class {_class_name(method)}(Checked):"]
    lines += [f'    """{method.title}: ``xai.{method.name}``."""', ""]
    lines.append(f'    prefix: ClassVar[str] = "xai.{method.name}"')
    if fields(method):
        lines.append("")
    lines += [f"    {item.name}: {item.type} = {_field(item)}" for item in fields(method)]
    return "\n".join(lines) + "\n"


def _class_name(method: type[Explainer]) -> str:
    return "".join(part.capitalize() for part in method.name.split("_")) + "Settings"


def _field(item: Field[Any]) -> str:
    default = _text(_default(item))
    bounds = "".join(f", {key}={_text(value)}" for key, value in item.metadata.items())
    if item.default_factory is not MISSING:
        made = f"lambda: {default}"
        return f"setting(factory={made}{bounds})" if bounds else f"field(default_factory={made})"
    return f"setting({default}{bounds})" if bounds else default


def _default(item: Field[Any]) -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


def _text(value: Any) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
