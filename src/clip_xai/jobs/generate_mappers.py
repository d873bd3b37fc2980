"""The settings of mappers as files that are read without torch; see ``generate.py``."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import yaml

from clip_xai.config.cli import CONF
from clip_xai.jobs.docstrings import comment, documented, wrapped
from clip_xai.models.mappers import mappers
from clip_xai.models.mappers.base import Mapper

MODULE = Path(__file__).resolve().parents[1] / "config" / "mapper_settings.py"
HEAD = '''"""The settings of every mapper, read without importing one.

Written by ``python -m clip_xai.jobs.generate`` from their own code; change that, and run it again.
"""

# fmt: off
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from clip_xai.ranges import Checked, setting
'''


def generated_of_mappers() -> dict[Path, str]:
    """Return the generated files by their paths."""
    own = [mapper for mapper in mappers.values() if mapper.__module__.startswith("clip_xai.")]
    return {MODULE: module_of_mappers(own)} | {
        CONF / "mapper" / f"{mapper.name}.yaml": option_of_mapper(mapper) for mapper in own
    }


def module_of_mappers(own: Iterable[type[Mapper]]) -> str:
    """Return the module with the dataclass of ``mapper``."""
    settings: dict[str, list[tuple[type[Mapper], Field[Any]]]] = {}
    for mapper in own:
        for item in fields(mapper.settings()):
            settings.setdefault(item.name, []).append((mapper, item))
    doc = ["How image features reach the language model; what is null keeps the mapper's own default.", ""]
    doc += ["Attributes:", f"    name: {', '.join(f'``{mapper.name}``' for mapper in own)}."]
    lines = ["", "@dataclass", "class MapperConfig(Checked):"]
    items = []
    for name, found in settings.items():
        doc.append(f"    {name}: {_sentences(name, found)}")
        bounds = "".join(f", {key}={value!r}" for key, value in found[0][1].metadata.items())
        kind = getattr(found[0][1].type, "__name__", str(found[0][1].type)).removesuffix(" | None")
        items.append(f"    {name}: {kind} | None = {f'setting(None{bounds})' if bounds else 'None'}")
    text_of_class = [doc[0], *doc[1:3], *(line for text in doc[3:] for line in wrapped(text))]
    lines += [f'    """{text_of_class[0]}', *(f"    {line}".rstrip() for line in text_of_class[1:]), '    """', ""]
    lines += ['    prefix: ClassVar[str] = "mapper"', "", "    name: str = MISSING", *items]
    return f"{HEAD}\n" + "\n".join(lines) + "\n"


def option_of_mapper(mapper: type[Mapper]) -> str:
    """Return the YAML of one mapper, each setting below what it means."""
    said = documented(mapper.__init__.__doc__, "Args:")
    title = inspect.cleandoc(mapper.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    lines = [*comment(title), f"name: {mapper.name}"]
    for item in fields(mapper.settings()):
        lines += comment(said.get(item.name, ""))
        # What is off need not be said.
        default = item.default or None if isinstance(item.default, bool) else item.default
        value = yaml.safe_dump(default, default_flow_style=True).removesuffix("...\n").strip()
        lines.append(f"{item.name}: {value}")
    return "\n".join(lines) + "\n"


def _sentences(name: str, found: list[tuple[type[Mapper], Field[Any]]]) -> str:
    """What a setting means, and of which mappers, in the words of their constructors."""
    said: dict[str, list[str]] = {}
    for mapper, _ in found:
        said.setdefault(documented(mapper.__init__.__doc__, "Args:").get(name, ""), []).append(f"``{mapper.name}``")
    return " ".join(f"Of {', '.join(named)}: {text[0].lower()}{text[1:]}" for text, named in said.items())
