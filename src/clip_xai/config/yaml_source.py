"""Where Hydra finds the configuration: the YAML of ``conf/`` and ``--config-dir``, and the dataclasses.

In YAML, options' numbers are written as their names. The classes are plugins of the kinds that Hydra provides for it:
sources of configuration, and the path along which Hydra looks for them. What is pickled to a launcher's other processes
names this module, so that they read alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from clip_xai import private_api
from clip_xai.config.aliases import ALIASES, option_name, parse, with_option_names
from clip_xai.config.plugins import use_plugins
from clip_xai.config.schemas import SCHEMAS, TASKS
from clip_xai.config.typed import hydra_quoted

SCHEME = "clip-xai"
_SCHEMA = "_schema"
TASK_SCHEMA = "task_schema"  # a group of the dataclasses of tasks with settings of their own
_OWN_FOLDERS: list[Path] = []  # of --config-dir
_PLUGINS: list[str] = []


class YamlSource(ConfigSource):
    """A directory of YAML files; ``defaults: [stage: 2]`` in them is ``defaults: [stage: language]``."""

    @staticmethod
    def scheme() -> str:
        """What stands before ``://``."""
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file."""
        file = Path(self.path, _file_name(config_path))
        if not file.is_file():
            raise ConfigLoadError(f"Config not found : {file}")
        config = OmegaConf.load(file)
        if isinstance(config, DictConfig):
            self._name_options(config)
        header = private_api.yaml_header(self, file.read_text(encoding="utf-8"))
        return ConfigResult(provider=self.provider, path=self.full_path(), config=config, header=header)

    def available(self) -> bool:
        """Whether the directory exists."""
        return self.is_group("")

    def is_group(self, config_path: str) -> bool:
        """Whether it has a directory of that name."""
        return Path(self.path, config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        """Whether it has a file of that name."""
        return Path(self.path, _file_name(config_path)).is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """The names of groups, files or both in a directory."""
        names: list[str] = []
        for item in Path(self.path, config_path).iterdir():
            if item.is_dir() and item.name != "__pycache__" and results_filter in (None, ObjectType.GROUP):
                names.append(item.name)
            if item.is_file() and item.suffix == ".yaml" and results_filter in (None, ObjectType.CONFIG):
                names.append(item.stem)
        return sorted(set(names))

    def _has_options(self, name: str) -> bool:
        return name in ALIASES or self.is_group(name)

    def _name_options(self, config: DictConfig) -> None:
        defaults = config.get("defaults")
        if OmegaConf.is_list(defaults):
            plain: Any = OmegaConf.to_container(defaults, resolve=False)
            config["defaults"] = [_named(item) for item in plain]
        swept = OmegaConf.select(config, "hydra.sweeper.params")
        for key in map(str, swept or ()):
            setting, _, value = with_option_names(f"{key}={swept[key]}", self._has_options).partition("=")
            if value != str(swept[key]):
                swept[setting] = value
        places = OmegaConf.select(config, "hydra.searchpath")
        if OmegaConf.is_list(places):
            config.hydra.searchpath = [read_here(str(place)) for place in places]


class SchemaSource(ConfigSource):
    """The dataclasses of the jobs as ``train_schema``, ``evaluate_schema`` and ``explain_schema``.

    Hydra's ConfigStore would do as well, but all in it is copied for each group that ``--help`` lists.
    """

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self.arguments = [f"plugins=[{name}]" for name in _PLUGINS]  # pickled with this source

    @staticmethod
    def scheme() -> str:
        """What stands before ``://``."""
        return f"{SCHEME}-schema"

    def load_config(self, config_path: str) -> ConfigResult:
        """Make a job's configuration from its dataclass."""
        use_plugins(self.arguments)
        group, _, task = config_path.rpartition("/")
        schema = TASKS[task] if group else SCHEMAS[config_path.removesuffix(_SCHEMA)]
        config = OmegaConf.structured(schema)
        return ConfigResult(self.provider, self.full_path(), config, {"package": None})

    def available(self) -> bool:
        """They always are."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Whether it is that of the tasks' settings; the jobs have none."""
        return config_path in ("", TASK_SCHEMA)

    def is_config(self, config_path: str) -> bool:
        """Whether it is the name of one."""
        group, _, task = config_path.rpartition("/")
        if group:
            return group == TASK_SCHEMA and task in TASKS
        return config_path.endswith(_SCHEMA) and config_path.removesuffix(_SCHEMA) in SCHEMAS

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Their names; those of the tasks are no options of the command line."""
        return [] if config_path or results_filter == ObjectType.GROUP else [f"{job}{_SCHEMA}" for job in SCHEMAS]


class OwnFolders(SearchPathPlugin):
    """Has the files of ``conf/``, and of the directories that the user names, read by :class:`YamlSource`."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Change the path in place."""
        for element in search_path.get_path():
            if element.provider == "main":
                element.path = read_here(element.path)
        search_path.append("settings", f"{SchemaSource.scheme()}://")
        for folder in _OWN_FOLDERS:
            search_path.append("command-line", f"{SCHEME}://{folder}")


def _file_name(config_path: str) -> str:
    return config_path if config_path.endswith(".yaml") else f"{config_path}.yaml"


def read_here(place: str) -> str:
    """A directory as an address of :class:`YamlSource`; what is of another kind stays as it is.

    >>> read_here("file:///home/me/conf"), read_here("/home/me/conf"), read_here("pkg://mine.conf")
    ('clip-xai:///home/me/conf', 'clip-xai:///home/me/conf', 'pkg://mine.conf')
    """
    scheme, separator, path = place.rpartition("://")
    return f"{SCHEME}://{path}" if not separator or scheme == "file" else place


def read_here_all(argument: str) -> str:
    """An argument ``hydra.searchpath=[...]`` with its directories read by :class:`YamlSource`; others as they are."""
    parsed = parse(argument) if argument.startswith("hydra.searchpath=") else None
    places = parsed.value() if parsed is not None and not parsed.is_sweep_override() else None
    if not isinstance(places, list):
        return argument
    return f"hydra.searchpath=[{','.join(hydra_quoted(read_here(str(place))) for place in places)}]"


def register(folders: list[Path], plugins: list[str] | None = None) -> None:
    """Let Hydra find the configuration through this module.

    Args:
        folders: The user's own, beside ``conf/``.
        plugins: Those that the schemas depend on: a launcher's other processes import them, too.
    """
    _OWN_FOLDERS[:] = folders
    _PLUGINS[:] = plugins or []
    for plugin in (YamlSource, SchemaSource, OwnFolders):
        Plugins.instance().register(plugin)


def _named(item: Any) -> Any:
    """An item of a defaults list with options by name; it is a mapping of one key, ``[override] [/]GROUP[@PLACE]``."""
    if not isinstance(item, dict):
        return item
    return {key: option_name(str(key).split(" ")[-1].partition("@")[0].lstrip("/"), item[key]) for key in item}
