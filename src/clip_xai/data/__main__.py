"""Write the manifest: ``python -m clip_xai.data data.root=DIR data.output_dir=OUT [data.seed=0]``."""

from __future__ import annotations

import sys

from clip_xai.data.build import build_manifest
from clip_xai.errors import UserError

_USAGE = "usage: python -m clip_xai.data data.root=DIR data.output_dir=OUT [data.seed=0]"
_KEYS = ("data.root", "data.output_dir", "data.seed")


def main(arguments: list[str]) -> int:
    """Build the manifest that the arguments ask for; return the exit status."""
    if any(argument in ("-h", "--help") for argument in arguments):
        print(_USAGE)
        return 0
    try:
        settings = _settings(arguments)
        manifest = build_manifest(settings["data.root"], settings["data.output_dir"], seed=_seed(settings))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(manifest)
    print(manifest.with_name("report.html"))
    return 0


def _settings(arguments: list[str]) -> dict[str, str]:
    settings: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in _KEYS or not equals or not value:
            raise UserError(f"{argument!r} is not understood; {_USAGE}")
        settings[key] = value
    for key in ("data.root", "data.output_dir"):
        if key not in settings:
            raise UserError(f"{key} is missing; {_USAGE}")
    return settings


def _seed(settings: dict[str, str]) -> int:
    text = settings.get("data.seed", "0")
    if not text.isdigit():
        raise UserError(f"data.seed={text} is no whole number of 0 or more.")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
