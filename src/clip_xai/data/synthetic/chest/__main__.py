"""Write and measure renders: ``python -m clip_xai.data.synthetic.chest [films|folder|measures|sheet] NAME=VALUE ...``.

``films out=DIR`` writes radiographs as ChestX-ray14 is shipped, ``folder out=DIR`` a small folder of images with four
classes. ``measures`` prints cardiothoracic ratio, areas and grey values of ``films=N`` radiographs beside what is
documented of real ones. ``sheet out=FILE.png`` draws some of each finding, with their boxes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from clip_xai.data.synthetic.chest.image_folder import FolderSettings, write_folder
from clip_xai.data.synthetic.chest.nih import ChestSettings, write_chest
from clip_xai.data.synthetic.chest.plan import sample_film
from clip_xai.data.synthetic.chest.ranges import histogram, measure
from clip_xai.data.synthetic.chest.sheet import contact_sheet
from clip_xai.disk import disk_line
from clip_xai.errors import UserError
from clip_xai.ranges import SEEDS, Checked, setting
from clip_xai.text import counted


@dataclass
class SomeFilms(Checked):
    """Radiographs that are drawn and not kept.

    Attributes:
        films: How many, each of another patient.
        seed: Their seed.
        size: Side of a picture in pixels.
    """

    prefix: ClassVar[str] = "films"

    films: int = setting(300, least=1)
    seed: int = setting(0, least=0, most=SEEDS)
    size: int = setting(256, least=32, most=2048)


def main(arguments: list[str]) -> int:
    """Do what the arguments ask for; return the exit status."""
    name, rest = (arguments[0], arguments[1:]) if arguments and arguments[0] in _COMMANDS else ("films", arguments)
    settings, act = _COMMANDS[name]
    if any(argument in ("-h", "--help") for argument in arguments):
        print(__doc__, settings.__doc__, sep="\n")
        return 0
    try:
        print(*act(*_read(name, settings, rest)), sep="\n")
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    except Exception as error:
        line = str(error) if isinstance(error, UserError) else disk_line(error, {})
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 1
    return 0


def _read(name: str, settings: type[Any], arguments: list[str]) -> tuple[Path | None, Any]:
    kinds = {item.name: str(item.type) for item in fields(settings)}
    needs = [] if name == "measures" else ["out"]
    usage = (
        f"usage: python -m clip_xai.data.synthetic.chest {name} {' '.join(f'{key}=...' for key in [*needs, *kinds])}"
    )
    out: Path | None = None
    values: dict[str, Any] = {}
    for argument in arguments:
        key, _, text = argument.removeprefix("--").partition("=")
        if key == "out" and text and needs:
            out = Path(text)
        elif key in kinds and text:
            values[key] = _number(key, text, kinds[key])
        else:
            raise UserError(f"{argument!r} was not understood; {usage}")
    if needs and out is None:
        raise UserError(f"out is missing; {usage}")
    return out, settings(**values)


def _number(key: str, text: str, kind: str) -> int | float:
    try:
        return int(text) if kind == "int" else float(text)
    except ValueError:
        raise UserError(f"{key}={text} is not a {'whole number' if kind == 'int' else 'number'}.") from None


def _films(out: Path, settings: ChestSettings) -> list[str]:
    told = write_chest(out, settings)
    return [
        f"{out}: {counted(told['train_val'], 'film')} to train on, {told['test']} to test on,"
        f" {counted(told['boxes'], 'box', 'boxes')}"
    ]


def _folder(out: Path, settings: FolderSettings) -> list[str]:
    told = write_folder(out, settings)
    return [f"{out}: {counted(told['train'], 'image')} to train on, {told['test']} to test on"]


def _measures(_: None, settings: SomeFilms) -> list[str]:
    films = [sample_film(settings.seed, patient, 0) for patient in range(1, settings.films + 1)]
    lines = [f"{'of ' + counted(len(films), 'film'):44s} {'5 %':>6s} {'median':>6s} {'95 %':>6s}"]
    for row in measure(films, settings.size):
        mark = "  " if row.within else "! "
        lines.append(
            f"{mark}{row.name:42s} {row.low:6.3f} {row.middle:6.3f} {row.high:6.3f}"
            f"  median of {row.least:.3f} to {row.most:.3f}: {row.documented}"
        )
    shares = histogram(films[:100])
    lines += ["", "grey values, 0 to 255 in sixteen steps"]
    lines += [f"{16 * step:5d} {share:6.3f} {'#' * round(150 * share)}" for step, share in enumerate(shares)]
    return lines


def _sheet(out: Path, settings: SomeFilms) -> list[str]:
    if out.exists():
        raise UserError(f"{out} is there already; give another name.")
    contact_sheet(settings.seed, settings.films, settings.size).save(out)
    return [str(out)]


_COMMANDS: dict[str, tuple[type[Any], Callable[..., list[str]]]] = {
    "films": (ChestSettings, _films),
    "folder": (FolderSettings, _folder),
    "measures": (SomeFilms, _measures),
    "sheet": (SomeFilms, _sheet),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
