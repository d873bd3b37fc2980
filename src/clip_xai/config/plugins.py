"""Plugins: modules of one's own whose explainers, targets, mappers ... are chosen, set and checked like the others.

A plugin is imported when a command, or a YAML file that it chooses, names it, before the command is read: only then are
its settings known. Where none is named, nothing here imports anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, field, fields, make_dataclass
from pathlib import Path
from typing import Any, ClassVar, Optional, get_args, get_origin, get_type_hints

import yaml
from hydra.core.config_store import ConfigStore

from clip_xai.config import schemas, typed
from clip_xai.errors import UserError
from clip_xai.ranges import Checked, settings_of_parameters
from clip_xai.registry import GROUP_PREFIX, load_installed, load_plugins, registries

# Which kind of thing an option of a group is; ``target.names`` chooses targets, too.
KINDS = {
    "xai": "explainers",
    "target": "targets",
    "target.names": "targets",
    "mapper": "mappers",
    "backbone": "backbones",
    "backbone.architecture": "backbones",
    "language_model": "language_models",
    "task": "tasks",
}


def use_plugins(arguments: Sequence[str], folders: Sequence[Path] = ()) -> list[str]:
    """Import the plugins that a command line names, and let its settings have what they register.

    Args:
        arguments: As typed.
        folders: The directories of YAML files, of which those that the command chooses may name plugins.

    Returns:
        The names of the plugins.

    Raises:
        UserError: A plugin cannot be imported, or has settings that cannot be typed.
    """
    chosen = [*_typed(arguments), *_written(arguments, folders)]
    names = list(dict.fromkeys(value for setting, value in chosen if setting == "plugins"))
    load_plugins(names)
    for setting, name in chosen:
        if setting in KINDS:
            load_installed(GROUP_PREFIX + KINDS[setting], name)
    _extend()
    return names


def options_of(group: str) -> list[str]:
    """Return the options of a configuration group that plugins have added."""
    return sorted(str(name).removesuffix(".yaml") for name in ConfigStore.instance().repo.get(group, {}))


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


def _extend() -> None:
    """Make what plugins have registered known to the schemas, and to Hydra as options of its groups."""
    explainers, targets, mappers = _of_plugins("explainers"), _of_plugins("targets"), _of_plugins("mappers")
    if explainers or targets:
        made = {name: settings_of(name, cls) for name, cls in explainers.items()}
        xai = [(name, Optional[cls], field(default=None)) for name, cls in made.items()]  # noqa: UP045
        groups = [("xai", _with(schemas.XaiConfig, xai)), ("target", _target_config(targets))]
        schemas.SCHEMAS["explain"] = _with(schemas.ExplainConfig, groups=groups)
        for name, cls in explainers.items():
            _store("xai", name, {name: _defaults(cls)})
        for name, maker in targets.items():
            _store("target", name, {"names": [name], **_defaults(settings_of_parameters(maker))})
    if mappers:
        own = {name: mapper.settings() for name, mapper in mappers.items()}
        more = _added(schemas.MapperConfig, own)
        mapper: Any = Optional[_with(schemas.MapperConfig, more)]  # noqa: UP045
        schemas.SCHEMAS["train"] = _with(schemas.TrainConfig, [("mapper", mapper, field(default=None))])
        for name, cls in own.items():
            _store("mapper", name, {"name": name, **_defaults(cls)})
    for name in _of_plugins("backbones"):
        _store("backbone", name, {"name": name, "architecture": name})
    for name, task in _of_plugins("tasks").items():
        schemas.TASKS[name] = getattr(task, "settings", schemas.TaskConfig)  # its YAML is the option
    for name in _of_plugins("language_models"):
        _store("language_model", name, {"name": name, "pretrained": None})
    for cached in (typed.free_text_settings, typed.path_settings, typed.open_settings):
        cached.cache_clear()


def _target_config(targets: dict[str, Any]) -> type:
    """The settings of ``target`` in which ``names`` can be those of plugins, too."""
    own = {name: settings_of_parameters(maker) for name, maker in targets.items()}
    old = next(item for item in fields(schemas.TargetConfig) if item.name == "names")
    metadata = {**old.metadata, "one_of": (*old.metadata["one_of"], *targets)}
    names = field(**_default(old), metadata=metadata)
    more = _added(schemas.TargetConfig, own)
    return _with(schemas.TargetConfig, [("names", list[str], names), *more])


def _added(base: Any, kinds: dict[str, type]) -> list[tuple[str, Any, Any]]:
    """The settings of single things that a group does not have yet, each null unless its thing is chosen.

    Raises:
        UserError: A setting is of another type in another thing.
    """
    known: dict[str, Any] = get_type_hints(base)
    added: dict[str, tuple[str, Any, Any]] = {}
    for name, cls in kinds.items():
        hints = get_type_hints(cls)
        for item in fields(cls):
            setting = f"{base.prefix}.{item.name}"
            kind: Any = Optional[_plain(hints[item.name], setting)]  # noqa: UP045
            if known.setdefault(item.name, kind) != kind:
                raise UserError(f"{setting} of {name} is of another type than that of others: give it another name")
            if item.name not in base.__dataclass_fields__:
                added[item.name] = (item.name, kind, field(default=None, metadata=item.metadata))
    return list(added.values())


def _with(base: type, more: Sequence[tuple[str, Any, Any]] = (), groups: Sequence[tuple[str, type]] = ()) -> type:
    """A dataclass with more fields, and with other classes for some of its groups."""
    items = [*more, *((name, cls, field(default_factory=cls)) for name, cls in groups)]
    return make_dataclass(base.__name__, items, bases=(base,), namespace={"__module__": __name__})


def _store(group: str, name: str, node: dict[str, Any]) -> None:
    ConfigStore.instance().store(group=group, name=name, node=node)


def _defaults(cls: type) -> dict[str, Any]:
    values = {item.name: _value(_default(item)) for item in fields(cls)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _value(default: dict[str, Any]) -> Any:
    factory: Callable[[], Any] | None = default.get("default_factory")
    return default["default"] if factory is None else factory()


def _of_plugins(kind: str) -> dict[str, Any]:
    """What plugins have registered of a kind; nothing before the module of its registry is imported."""
    found = (registry.of_plugins() for registry in registries() if registry.group == GROUP_PREFIX + kind)
    return next(found, {})


def _typed(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The settings of a command line with their values: one, or those of a list or a sweep."""
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals:
            for part in value.replace("[", "").replace("]", "").split(","):
                if part.strip():
                    yield key.lstrip("+").partition("@")[0], part.strip().strip("'\"")


def _written(arguments: Sequence[str], folders: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """What the YAML files that a command chooses, and those that they choose, say of plugins and options."""
    waiting, read = list(_typed(arguments)), set()
    while waiting:
        group, option = waiting.pop()
        if "/" in option or "\0" in option or group == "plugins":
            continue
        for file in (folder / group / f"{option}.yaml" for folder in folders):
            if file in read or not _is_file(file):
                continue
            read.add(file)
            found = list(_said_in(file))
            waiting += found
            yield from found


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # a text that is no name of a file
        return False


def _said_in(file: Path) -> Iterator[tuple[str, str]]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return  # Hydra reads it again, and says what is wrong with it
    if not isinstance(content, dict):
        return
    named = content.get("plugins") or []
    yield from (("plugins", str(name)) for name in (named if isinstance(named, list) else [named]))
    for item in content.get("defaults") or ():
        for key, chosen in item.items() if isinstance(item, dict) else ():
            group = str(key).split(" ")[-1].partition("@")[0].lstrip("/")
            yield from ((group, str(one)) for one in (chosen if isinstance(chosen, list) else [chosen]))


def _default(item: Field[Any]) -> dict[str, Any]:
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
