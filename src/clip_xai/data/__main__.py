"""Write the manifest: ``python -m clip_xai.data data.root=DIR data.output_dir=OUT [data.SETTING=VALUE ...]``."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import Any

import yaml

from clip_xai.data.build import build_manifest
from clip_xai.data.settings import BuildSettings
from clip_xai.disk import disk_line
from clip_xai.errors import UserError

_PLACES = ("data.root", "data.output_dir")
_SETTINGS = {f"data.{item.name}": item for item in fields(BuildSettings)}
_USAGE = f"usage: python -m clip_xai.data data.root=DIR data.output_dir=OUT [{'=... '.join(_SETTINGS)}=...]"
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "float": (float, int), "str | None": (str, type(None)),
    "int | None": (int, type(None)), "list[int] | None": (list, type(None)), "Mapping[str, float]": (dict,),
}  # fmt: skip
_PLAIN = {"Mapping[str, float]": "mapping of names to shares", "list[int] | None": "list of whole numbers"}


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
    print(manifest)
    print(manifest.with_name("report.html"))
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
            raise UserError(f"{argument!r} is not understood; {_USAGE}")
    for key in _PLACES:
        if key not in places:
            raise UserError(f"{key} is missing; {_USAGE}")
    return places, settings


def _value(key: str, text: str) -> Any:
    """Read a value as the configuration files are read: numbers, null and ``{train: 0.8, val: 0.1, test: 0.1}``."""
    kind = str(_SETTINGS[key].type)
    try:
        value = yaml.safe_load(text.replace(":", ": ") if kind.startswith("Mapping") else text)
    except yaml.YAMLError:
        value = None
    wanted = _TYPES[kind]
    numbers = all(isinstance(share, (int, float)) for share in value.values()) if isinstance(value, dict) else True
    if isinstance(value, list):
        numbers = all(type(item) is int for item in value)
    if not isinstance(value, wanted) or isinstance(value, bool) or not numbers:
        raise UserError(f"{key}={text} is no {_PLAIN.get(kind, kind)}.")
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
