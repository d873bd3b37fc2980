"""The settings of ``target`` and the names of the targets, read without torch; see ``generate.py``."""

from __future__ import annotations

import textwrap
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from clip_xai.jobs.docstrings import WIDTH, documented, wrapped
from clip_xai.xai.targets.base import targets
from clip_xai.xai.targets.question import CONFIGURED, Question

MODULE = Path(__file__).resolve().parents[1] / "config" / "target_settings.py"
NOT_OF_TARGET = ("text", "options", "vocabulary")  # ``text=`` and the data's own settings; those of single targets
HEAD = '''"""The settings of ``target``, and the names of the targets, read without importing one.

Written by ``python -m clip_xai.jobs.generate`` from ``xai/targets/question.py``; change that, and run it again.
"""

# fmt: off
from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from clip_xai.ranges import Checked, setting
'''


def generated_of_targets() -> dict[Path, str]:
    """Return the generated files by their paths."""
    own = [name for name, maker in targets.items() if maker.__module__.startswith("clip_xai.")]
    return {MODULE: module_of_targets(own)}


def module_of_targets(names: list[str]) -> str:
    """Return the module with the names of the targets and the fields of a question that are settings of ``target``.

    Args:
        names: Of the targets.
    """
    listed = textwrap.fill(
        ", ".join(f'"{name}"' for name in names) + ",", WIDTH, initial_indent="    ", subsequent_indent="    "
    )
    said = documented(Question.__doc__, "Attributes:")
    items = [item for item in fields(Question) if item.name not in NOT_OF_TARGET]
    doc = [line for item in items for line in wrapped(f"    {item.name}: {said[item.name]}")]
    return "\n".join(
        [
            f"{HEAD}\nTARGETS = (\n{listed}\n)\n\n\n@dataclass\nclass TargetSettings(Checked):",
            '    """What is explained.\n\n    Attributes:',
            *(f"    {line}" for line in doc),
            '    """\n\n    prefix: ClassVar[str] = "target"\n',
            *(_line(item) for item in items),
            "",
        ]
    )


def _line(item: Field[Any]) -> str:
    line = f"    {item.name}: {_kind(item)} = {_field(item)}"
    return line if len(line) <= WIDTH else line.replace(" = setting(", " = setting(\n        ").rstrip(")") + "\n    )"


def _kind(item: Field[Any]) -> str:
    """The type as Hydra has it: a tuple is a list."""
    return str(item.type).replace("tuple[", "list[").replace(", ...]", "]")


def _field(item: Field[Any]) -> str:
    assert item.default is not MISSING, item.name
    default = item.metadata.get(CONFIGURED, item.default)
    bounds = "".join(f", {key}={_text(value)}" for key, value in item.metadata.items() if key != CONFIGURED)
    if item.name == "names":
        bounds += ", one_of=TARGETS"
    if isinstance(default, tuple):
        made = f"lambda: [{', '.join(map(_text, default))}]" if default else "list"
        return f"setting(factory={made}{bounds})" if bounds else f"field(default_factory={made})"
    return f"setting({_text(default)}{bounds})" if bounds else _text(default)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))})"
    return f'"{value}"' if isinstance(value, str) else repr(value)
