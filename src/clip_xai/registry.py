"""Named things that are found by their names: explainers, targets, backbones, mappers, data sources.

A thing registers itself where it is defined, in this package or in anyone's module::

    @explainers.register("gradcam", title="Grad-CAM", group="activation maps")
    class GradCam(ActivationMap): ...

so that whoever lists or looks up things imports none of them. Modules of other people are named by ``plugins=[module]``
or, once installed, by an entry point of the registry's group.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import inspect
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from clip_xai.errors import UserError

T = TypeVar("T")
GROUP_PREFIX = "clip_xai."
_REGISTRIES: list[Registry[Any]] = []
_PLUGINS: dict[str, None] = {}  # those that were loaded, in order


class Registry(Mapping[str, T], Generic[T]):
    """Things of one kind by their names; reading it imports the modules that this package has of them.

    Args:
        kind: What they are, in words, for messages: ``explainer``.
        plural: The name of its entry point group behind ``clip_xai.``: ``explainers``.
        package: The package whose modules register what this package has.
        order: What they are sorted by; the order of registration if None.
    """

    def __init__(
        self, kind: str, plural: str, package: str | None = None, order: Callable[[T], Any] | None = None
    ) -> None:
        self.kind = kind
        self.group = GROUP_PREFIX + plural
        self._package = package
        self._order = order
        self._things: dict[str, T] = {}
        self._definitions: dict[str, Any] = {}
        self._loading = False
        _REGISTRIES.append(self)

    def register(self, name: str, **facts: Any) -> Callable[[T], T]:
        """Return a decorator that adds a thing.

        Args:
            name: What it is chosen by. It becomes the thing's attribute ``name``.
            facts: More attributes of it, such as a title.

        Raises:
            UserError: Another thing has that name.
        """

        def add(thing: T) -> T:
            self._add(name, thing, thing)
            for key, value in {"name": name, **facts}.items():
                setattr(thing, key, value)
            return thing

        return add

    def _add(self, name: str, thing: T, definition: Any) -> None:
        """Keep a thing under a name, with the module of the class or function that defines it."""
        known = self._definitions.get(name)
        if known is not None and _origin(known) != _origin(definition):
            raise UserError(
                f"two {self.kind}s are called {name}: {_origin(known)} and {_origin(definition)}; rename one of them"
            )
        self._things[name], self._definitions[name] = thing, definition

    def module_of(self, name: str) -> str:
        """Return the module that registered a thing; empty where it is not registered, or one of this package."""
        module = str(getattr(self._definitions.get(name), "__module__", ""))
        return "" if module.startswith(GROUP_PREFIX) else module

    def of_plugins(self) -> dict[str, T]:
        """Return what was registered so far by modules outside this package."""
        return {name: thing for name, thing in self._things.items() if self.module_of(name)}

    def code(self) -> str:
        """Return a digest of the files that plugins' things of this kind are defined in; empty where there are none."""
        files = {inspect.getsourcefile(self._definitions[name]) for name in self if self.module_of(name)}
        digests = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in sorted(filter(None, files))]
        return " ".join(digests)

    def forget(self, name: str) -> None:
        """Drop a thing, for whoever tries one out."""
        self._things.pop(name, None)
        self._definitions.pop(name, None)

    def named(self, name: str, setting: str = "") -> T:
        """Return the thing of a name.

        Args:
            name: Its name.
            setting: What it is chosen by, such as ``backbone.architecture``, to be named in the message.

        Raises:
            UserError: There is none: the line lists near matches, or all names.
        """
        if name in self:
            return self[name]
        names = [*self, *(point for point in self.installed() if point not in self._things)]
        near = difflib.get_close_matches(name, names, n=3)
        choices = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(names)}"
        prefix = f"{setting}={name}: " if setting else ""
        raise UserError(f"{prefix}there is no {self.kind} {name!r}; {choices}")

    def __getitem__(self, name: str) -> T:
        """Return the thing of a name, importing the module that an entry point names for it."""
        self._load()
        if name not in self._things and name in self.installed():
            self._import(self.installed()[name])
        return self._things[name]

    def __contains__(self, name: object) -> bool:
        """Tell whether a thing of a name is registered or installed."""
        self._load()
        return name in self._things or name in self.installed()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of what is registered; what is installed comes when it is asked for by name."""
        self._load()
        order = self._order
        if order is None:
            return iter(tuple(self._things))
        return iter(sorted(self._things, key=lambda name: order(self._things[name])))

    def __len__(self) -> int:
        """Count the names."""
        self._load()
        return len(self._things)

    def installed(self) -> dict[str, EntryPoint]:
        """Return the entry points of installed packages, by the names of their things; none is imported."""
        return _installed(self.group)

    def registered(self) -> dict[str, T]:
        """Return what was registered so far, without importing anything."""
        return dict(self._things)

    def _load(self) -> None:
        if self._package is None or self._loading:
            return
        self._loading = True  # the modules may read the registry while they fill it
        try:
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                if not module.name.startswith("_"):
                    importlib.import_module(f"{self._package}.{module.name}")
        except BaseException:
            self._loading = False
            raise

    def _import(self, point: EntryPoint) -> None:
        try:
            thing = point.load()
        except Exception as error:
            raise UserError(f"{self.kind} {point.name}, installed as {point.value}: {_reason(error)}") from error
        if point.name not in self._things and not isinstance(thing, ModuleType):
            self.register(point.name)(thing)
        if point.name not in self._things:
            raise UserError(f"{self.kind} {point.name}: {point.value} registers nothing of that name")


def registries() -> Sequence[Registry[Any]]:
    """Return all registries that were made so far."""
    return tuple(_REGISTRIES)


def load_plugins(names: Sequence[str]) -> None:
    """Import modules that register things; those in the working directory are found, too.

    Args:
        names: Importable names, such as ``my_module`` or ``my_package.explainers``.

    Raises:
        UserError: One cannot be imported, or registers nothing.
    """
    if names and not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    for name in names:
        if name in sys.modules and (name in _PLUGINS or _registers(name)):
            _PLUGINS[name] = None
            continue
        if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
            raise UserError(f"plugins: {name!r} is not the name of a module: give it as Python imports it, without .py")
        before, known = _count(), set(sys.modules)
        try:
            module = importlib.import_module(name)
        except UserError:
            raise
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
                raise UserError(
                    f"plugins: there is no module {error.name}, neither installed nor in {os.getcwd()}"
                ) from error
            raise UserError(f"plugins: {name} cannot be imported: {_reason(error)}") from error
        if _count() == before:
            if name not in known:
                del sys.modules[name]
            where = getattr(module, "__file__", None) or "a module of Python's own"
            kinds = ", ".join(registry.kind for registry in _REGISTRIES)
            raise UserError(f"plugins: {name} ({where}) registers nothing; it can register: {kinds}")
        _PLUGINS[name] = None


def loaded_plugins() -> list[str]:
    """Return the names of the plugins that are loaded."""
    return [name for name in _PLUGINS if name in sys.modules]


def load_plugins_of(made: object, names: Sequence[str]) -> None:
    """Import the plugins that something was made with, such as a run.

    Args:
        made: What it is, for the message.
        names: As for :func:`load_plugins`.

    Raises:
        UserError: One is not there any more.
    """
    for name in names:
        try:
            load_plugins([name])
        except UserError as error:
            raise UserError(f"{made} was made with plugins=[{name}]; {error}") from error


def load_installed(group: str, name: str) -> None:
    """Import what an entry point names, before any registry of its group is there.

    Args:
        group: Of entry points, with the prefix.
        name: The thing's; nothing happens where none is installed under it.

    Raises:
        UserError: It cannot be imported.
    """
    point = _installed(group).get(name)
    if point is None:
        return
    try:
        importlib.import_module(point.module)
    except Exception as error:
        raise UserError(f"{name}, installed as {point.value}, cannot be imported: {_reason(error)}") from error
    for registry in _REGISTRIES:
        if registry.group == group:
            registry[name]


def _registers(module: str) -> bool:
    """Whether an imported module, or one below it, registered something."""
    found = {registry.module_of(name) for registry in _REGISTRIES for name in registry.registered()}
    return any(f"{one}.".startswith(f"{module}.") for one in found)


def _count() -> int:
    return sum(len(registry.registered()) for registry in _REGISTRIES)


@functools.cache
def _installed(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def _origin(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', thing)}"


def _reason(error: Exception) -> str:
    """The error on one line, and where in the file it was raised."""
    lines = str(error).splitlines()
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {lines[0] if lines else ''}{where}"
