"""What a setting may be: a range beside its default, in the dataclass that is used, and one check of all of them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass
from typing import Annotated, Any, ClassVar, get_origin, get_type_hints

from clip_xai.errors import UserError

FREE_TEXT = "free_text"
PATH = "path"
SEEDS = 2**32 - 1  # the largest seed that numpy takes
_BOUNDS = ("least", "above", "most", "below")
_NOT_GIVEN = "???"  # what OmegaConf has in the place of a value that is still to come


def setting(
    default: Any = MISSING,
    *,
    factory: Any = MISSING,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    one_of: Sequence[str] | None = None,
    free_text: bool = False,
    path: bool = False,
) -> Any:
    """A field of a dataclass of settings, with what its value may be. A list's range is that of each element.

    Args:
        default: As in ``dataclasses.field``.
        factory: Its ``default_factory``.
        least: Smallest value.
        most: Largest value.
        above: A value must be larger.
        below: A value must be smaller.
        one_of: The only values.
        free_text: A text or a path, which may hold any sign: the command line reads it as it is typed.
        path: A free text that may be a file or directory: on the command line, ``~/`` before it is the user's home.
    """
    metadata = bounds(least=least, most=most, above=above, below=below, one_of=one_of)
    if free_text or path:
        metadata[FREE_TEXT] = True
    if path:
        metadata[PATH] = True
    if factory is not MISSING:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def bounds(
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    one_of: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return what a value may be, as a field's metadata has it; in ``Annotated`` it is the range of a parameter.

    >>> bounds(least=1)
    {'least': 1}
    """
    given = {"least": least, "most": most, "above": above, "below": below, "one_of": one_of}
    return {key: value for key, value in given.items() if value is not None}


def settings_of_parameters(function: Callable[..., Any], leaving_out: Collection[str] = ()) -> type:
    """Return a dataclass of a function's parameters with defaults: their types, and the ranges in ``Annotated``.

    Args:
        function: A function, or a class for those of its constructor.
        leaving_out: Names of parameters that are no settings.
    """
    definition = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    hints = get_type_hints(definition, include_extras=True)
    items = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is inspect.Parameter.empty or name in leaving_out:
            continue
        kind, metadata = hints[name], {}
        if get_origin(kind) is Annotated:
            kind, metadata = kind.__origin__, kind.__metadata__[0]
        items.append((name, kind, field(default=parameter.default, metadata=metadata)))
    return make_dataclass(f"{function.__name__}Settings", items)


class Checked:
    """A dataclass of settings whose values are checked when it is made.

    Attributes:
        prefix: The name before the settings' own, as in ``stage`` of ``stage.epochs``.
    """

    prefix: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check(self, self.prefix)


def check(settings: Any, prefix: str = "") -> None:
    """Hold every value against its range; a number that is not finite is in none.

    Args:
        settings: A dataclass of settings. Other dataclasses in it have names below it.
        prefix: The name before the settings' own.

    Raises:
        UserError: A value is out of its range: the line has the setting, the value and the range.
    """
    for item in fields(settings):
        value, name = getattr(settings, item.name), f"{prefix}.{item.name}" if prefix else item.name
        if is_dataclass(value):
            check(value, name)
            continue
        if item.metadata.get(PATH) and isinstance(value, str) and not value.strip():
            raise UserError(f"{name}= is blank, which is no path: name one, or leave the setting out")
        several = isinstance(value, (list, tuple, Mapping))
        for one in value.values() if isinstance(value, Mapping) else value if several else (value,):
            if not _allowed(one, item.metadata):
                raise UserError(f"{name}={_text(value)}: {_range(item.metadata)}{' for each' if several else ''}")


def _allowed(value: Any, bounds: Mapping[str, Any]) -> bool:
    if value is None or value == _NOT_GIVEN:
        return True
    if "one_of" in bounds:
        return value in bounds["one_of"]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return True
    return (
        math.isfinite(value)
        and value >= bounds.get("least", -math.inf)
        and value <= bounds.get("most", math.inf)
        and value > bounds.get("above", -math.inf)
        and value < bounds.get("below", math.inf)
    )


def _range(bounds: Mapping[str, Any]) -> str:
    if "one_of" in bounds:
        return f"choose one of {', '.join(bounds['one_of'])}"
    words = {"least": "at least", "most": "at most", "above": "more than", "below": "less than"}
    said = [f"{words[key]} {bounds[key]}" for key in _BOUNDS if key in bounds]
    return f"give {' and '.join(said)}" if said else "give a finite number"


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_text(one)}" for key, one in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)
