"""Numbers that choose an option: ``stage=2`` is ``stage=language``, and any option may be called by a number.

Hydra takes names alone. A number is written as the name before Hydra reads an argument, here, or a YAML file, in
:mod:`clip_xai.config.yaml_source`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException

from clip_xai.config.typed import hydra_quoted
from clip_xai.errors import UserError

STAGES = {"0": "contrastive", "1": "adaptation", "2": "language"}
ALIASES = {"stage": STAGES}  # group -> alias -> option


def refuse_numbered_files(folder: Path) -> None:
    """Refuse files that belong to a stage by its number: they are optional to Hydra, which would not read them.

    Args:
        folder: A directory of YAML files.

    Raises:
        UserError: There is one; the line has the name that it has to have.
    """
    for number, name in STAGES.items():
        for file in sorted(folder.glob(f"experiment/stage/*_{number}.yaml")):
            _refuse(file, f"{file.stem.removesuffix(number)}{name}.yaml")
        for file in sorted(folder.glob(f"stage/sized/{number}_*.yaml")):
            _refuse(file, f"{name}{file.stem.removeprefix(number)}.yaml")


def _refuse(file: Path, wanted: str) -> None:
    raise UserError(f"{file}: stages have names, and this file would not be read: rename it to {wanted}")


def option_name(group: str, choice: Any) -> Any:
    """The option of a group that a choice means; what is neither an alias nor a number stays as it is.

    >>> option_name("stage", 2), option_name("stage", "2"), option_name("fold", 2), option_name("stage", None)
    ('language', 'language', '2', None)
    """
    if isinstance(choice, QuotedString):
        choice = choice.text
    if isinstance(choice, list):
        return [option_name(group, one) for one in choice]
    if isinstance(choice, (int, float)) and not isinstance(choice, bool):
        choice = str(choice)
    return ALIASES.get(group, {}).get(choice, choice) if isinstance(choice, str) else choice


def with_option_names(argument: str, is_group: Callable[[str], bool]) -> str:
    """An argument of the command line in which options are chosen by their names, one or several for a sweep.

    Args:
        argument: As typed; texts and paths in quotes.
        is_group: Whether there is a configuration group of that name.

    Raises:
        UserError: No option is chosen, which Hydra cannot be told on the command line.

    >>> with_option_names("stage=1,2", {"stage"}.__contains__), with_option_names("seed=1,2", {"stage"}.__contains__)
    ('stage=adaptation,language', 'seed=1,2')
    """
    key, equals, _ = argument.partition("=")
    group = key.lstrip("+~").partition("@")[0]
    parsed = parse(argument) if equals and is_group(group) else None
    if parsed is None:
        return argument
    try:
        choices = list(parsed.sweep_iterator()) if parsed.is_sweep_override() else [parsed.value()]
    except HydraException:  # a pattern of names, or an interval
        return argument
    plain = [choice.text if isinstance(choice, QuotedString) else choice for choice in choices]
    if any(choice is None for choice in plain):
        raise UserError(f"{key}=null: an option is left out by leaving out {key}=, or choose one by its name")
    names = [option_name(group, choice) for choice in plain]
    return argument if names == plain else f"{key}={','.join(map(_written, names))}"


def parse(argument: str) -> Override | None:
    """What Hydra reads in an argument; None where it cannot be read."""
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        return None


def _written(name: Any) -> str:
    if isinstance(name, list):
        return f"[{','.join(map(_written, name))}]"
    if name is None:
        return "null"
    return name if isinstance(name, str) and name.isidentifier() else hydra_quoted(str(name))
