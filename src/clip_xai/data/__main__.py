"""Write the manifest: ``python -m clip_xai.data data.root=DIR data.output_dir=OUT [data.SETTING=VALUE ...]``."""

from __future__ import annotations

import re
import sys
from dataclasses import fields
from typing import Any

import yaml

from clip_xai.data.manifest_builder import build_manifest
from clip_xai.data.report import summary
from clip_xai.data.settings import BuildSettings, Columns
from clip_xai.disk import disk_line
from clip_xai.errors import UserError

_PLACES = ("data.root", "data.output_dir")
_SETTINGS = {f"data.{item.name}": item for item in fields(BuildSettings)}
_USAGE = f"usage: python -m clip_xai.data data.root=DIR data.output_dir=OUT [{'=... '.join(_SETTINGS)}=...]"
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "float": (float, int), "str | None": (str, type(None)), "Columns": (dict,),
    "int | None": (int, type(None)), "list[int] | None": (list, type(None)), "dict[str, float]": (dict,),
}  # fmt: skip
_ROLES = tuple(item.name for item in fields(Columns))
_MAPPINGS = ("dict[str, float]", "Columns")
_PLAIN = {
    "dict[str, float]": "mapping of names to shares",
    "Columns": f"mapping such as {{image: File, caption: Text}} (of {', '.join(_ROLES)})",
    "list[int] | None": "list of whole numbers",
}


def main(arguments: list[str]) -> int:
    """Build the manifest that the arguments ask for; return the exit status."""
    if any(argument in ("-h", "--help") for argument in arguments):
        print(_USAGE)
        print(BuildSettings.__doc__)
        return 0
    try:
        places, settings = _read(arguments)
        manifest = build_manifest(places["data.root"], places["data.output_dir"], BuildSettings(**settings))
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it stopped", file=sys.stderr)
        return 130
    except Exception as error:
        line = str(error) if isinstance(error, UserError) else disk_line(error, {})
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 1
    print(*summary(manifest), sep="\n")
    return 0


def _read(arguments: list[str]) -> tuple[dict[str, str], dict[str, Any]]:
    places: dict[str, str] = {}
    settings: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if key in _PLACES and text:
            places[key] = text
        elif key in _SETTINGS and equals and text:
            settings[_SETTINGS[key].name] = _value(key, text)
        else:
            raise UserError(f"{argument!r} was not understood; {_USAGE}")
    for key in _PLACES:
        if key not in places:
            raise UserError(f"{key} is missing; {_USAGE}")
    return places, settings


def _value(key: str, text: str) -> Any:
    """Read a value as the configuration files are read: numbers, null and ``{train: 0.8, val: 0.1, test: 0.1}``."""
    kind = str(_SETTINGS[key].type)
    try:
        value = yaml.safe_load(re.sub(r":(?! )", ": ", text) if kind in _MAPPINGS else text)
    except yaml.YAMLError:
        value = None
    fitting = isinstance(value, _TYPES[kind]) and not isinstance(value, bool)
    if kind == "Columns" and fitting:
        value = {role: str(header) for role, header in value.items()}
        fitting = set(value) <= set(_ROLES)
    elif isinstance(value, dict):
        fitting = all(isinstance(share, (int, float)) for share in value.values())
    elif isinstance(value, list):
        fitting = all(type(item) is int for item in value)
    if not fitting:
        raise UserError(f"{key}={text} is no {_PLAIN.get(kind, kind)}.")
    return Columns(**value) if kind == "Columns" else value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
