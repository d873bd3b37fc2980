"""Plugins: modules of one's own whose explainers are chosen, set and checked like the others.

A plugin is imported when a command names it, before the command is read: only then are its settings known. Where none
is named, nothing here imports anything.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import MISSING, field, fields, make_dataclass
from importlib.metadata import entry_points
from typing import Any, ClassVar, Optional, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore

from clip_xai.config import schemas, typed
from clip_xai.errors import UserError
from clip_xai.ranges import Checked
from clip_xai.registry import load_plugins, registries

EXPLAINERS = "clip_xai.explainers"


def use_plugins(arguments: Sequence[str]) -> None:
    """Import the plugins that a command line names, and let ``xai=`` have their explainers.

    Args:
        arguments: As typed.

    Raises:
        UserError: A plugin cannot be imported, or has settings that cannot be typed.
    """
    load_plugins(_values(arguments, "plugins"))
    known = {item.name for item in fields(schemas.XaiConfig)}
    for name in set(_values(arguments, "xai")) - known:
        for point in entry_points(group=EXPLAINERS):
            if point.name == name and not (_registry() and name in _registry().registered()):
                importlib.import_module(point.module)
    registry = _registry()
    if registry is not None:
        _extend(
            {name: cls for name, cls in registry.registered().items() if not cls.__module__.startswith("clip_xai.")}
        )


def settings_of(name: str, cls: type) -> type:
    """Return the dataclass of settings that Hydra checks, made from the one of a thing that is used.

    Args:
        name: As in ``xai=NAME``.
        cls: A dataclass, whose fields are the settings.

    Raises:
        UserError: A setting has a type that cannot be typed on a command line.
    """
    hints = get_type_hints(cls)
    items = [
        (
            item.name,
            _plain(hints[item.name], f"xai.{name}.{item.name}"),
            field(**_default(item), metadata=item.metadata),
        )
        for item in fields(cls)
    ]
    namespace = {"prefix": f"xai.{name}", "__module__": __name__, "__annotations__": {"prefix": ClassVar[str]}}
    title = "".join(part.capitalize() for part in name.split("_"))
    return make_dataclass(f"{title}Settings", items, bases=(Checked,), namespace=namespace)


def _extend(found: dict[str, Any]) -> None:
    """Make explainers known to the schemas and to Hydra as options of ``xai``."""
    if not found:
        return
    made = {name: settings_of(name, cls) for name, cls in found.items()}
    xai = make_dataclass(
        "XaiConfig",
        [(name, Optional[cls], field(default=None)) for name, cls in made.items()],  # noqa: UP045
        bases=(schemas.XaiConfig,),
        namespace={"__module__": __name__},
    )
    schemas.SCHEMAS["explain"] = make_dataclass(
        "ExplainConfig",
        [("xai", xai, field(default_factory=xai))],
        bases=(schemas.ExplainConfig,),
        namespace={"__module__": __name__},
    )
    for name, cls in made.items():
        ConfigStore.instance().store(group="xai", name=name, node={name: cls})
    for cached in (typed.free_text_settings, typed.path_settings, typed.open_settings):
        cached.cache_clear()


def _registry() -> Any:
    """The registry of explainers, None before a module that explains is imported."""
    return next((registry for registry in registries() if registry.group == EXPLAINERS), None)


def _values(arguments: Sequence[str], setting: str) -> list[str]:
    """The values of a setting on a command line: one, or a list."""
    found: list[str] = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key.lstrip("+") == setting and equals:
            listed = value.strip().removeprefix("[").removesuffix("]")
            found += [part.strip().strip("'\"") for part in listed.split(",") if part.strip()]
    return found


def _default(item: Any) -> dict[str, Any]:
    if item.default_factory is not MISSING:
        return {"default_factory": item.default_factory}
    if item.default is MISSING:
        raise UserError(f"plugins: a setting has no default: give {item.name} one")
    if isinstance(item.default, tuple):
        return {"default_factory": lambda: list(item.default)}
    return {"default": item.default}


def _plain(kind: Any, setting: str) -> Any:
    """The type that Hydra reads: a tuple is a list to it."""
    origin = get_origin(kind)
    if origin is tuple:
        return list[get_args(kind)[0]]  # type: ignore[misc]
    if kind in (int, float, str, bool, Any) or origin in (list, dict) or kind is dict or kind is list:
        return kind
    if type(None) in get_args(kind) and len(get_args(kind)) == 2:
        inner = next(part for part in get_args(kind) if part is not type(None))
        return Optional[_plain(inner, setting)]  # noqa: UP045
    raise UserError(
        f"{setting}: a setting of type {kind} cannot be typed; take int, float, str, bool or a list of them"
    )
