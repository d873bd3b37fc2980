"""The command line: Hydra composes, a job runs, and an error that the user can mend is one line.

Nothing here imports torch, so that ``--help`` and a mistyped key answer at once.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from clip_xai.config import yaml_source
from clip_xai.config.aliases import refuse_numbered_files, with_option_names
from clip_xai.config.chosen import settings_typed
from clip_xai.config.help import help_text
from clip_xai.config.plugins import use_plugins
from clip_xai.config.refusals import is_the_users, no_such_setting, one_line, refuse_unknown
from clip_xai.config.schemas import SCHEMAS, DataOfTheRun, EvaluateConfig, ExplainConfig
from clip_xai.config.traces import Found
from clip_xai.config.typed import quote_free_text
from clip_xai.disk import disk_line, places_of
from clip_xai.errors import UserError
from clip_xai.registry import load_plugins

_INSTALLED = Path(__file__).resolve().parents[1] / "conf"
CONF = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).resolve().parents[3] / "conf"  # of a checkout


@dataclass
class Command:
    """A command as it was typed, and as Hydra reads it.

    Attributes:
        job: ``train``, ``evaluate`` or ``explain``.
        folders: The directories of YAML files, that of the job first, then the user's own.
        typed: The arguments.
        arguments: Those of them that are not the user's own directories, each with what Hydra reads in its place:
            options by name, and texts in quotes.
    """

    job: str
    folders: list[Path]
    typed: list[str] = field(default_factory=list)
    arguments: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, job: str, conf: Path, typed: Sequence[str]) -> Command:
        """Read what was typed.

        Raises:
            UserError: ``--config-dir`` does not name a directory, or a file in one has a stage's number in its name.
        """
        arguments, own = without_own_folders(typed)
        for folder in (conf, *own):
            refuse_numbered_files(folder)
        if job in SCHEMAS:
            refuse_unknown(arguments, SCHEMAS[job])
        command = cls(job, [conf.resolve(), *own], list(typed))
        command.arguments = dict(zip(arguments, command.as_hydra_reads(arguments), strict=True))
        return command

    @property
    def read(self) -> list[str]:
        """The arguments as Hydra reads them."""
        return list(self.arguments.values())

    def as_hydra_reads(self, arguments: Sequence[str]) -> list[str]:
        """Arguments with options by name, and texts and paths in quotes."""
        if self.job != "train":  # which task a model was trained for is no option there, with settings, but a name
            arguments = [re.sub(r"^task=", "trained_for=", argument) for argument in arguments]
        quoted = [yaml_source.read_here_all(quote_free_text(argument)) for argument in arguments]
        return [with_option_names(argument, self._is_group) for argument in quoted]

    def line_for(self, error: BaseException, config: Any = None) -> str | None:
        """Return the one line for an error that the user can mend, or None for one of the program.

        Args:
            error: What was raised.
            config: The job's settings, where they are known: which directories it writes to.
        """
        if is_the_users(error):
            return one_line(error, SCHEMAS[self.job], self.arguments, self.folders[0] / f"{self.job}.yaml")
        return disk_line(error, places_of(config))

    def end(self, error: Exception, show_all: bool, config: Any = None) -> NoReturn:
        """Exit with one line where the user can mend the error, and raise it again where not."""
        line = None if show_all else self.line_for(error, config)
        if line is None:
            raise error
        print(line, file=sys.stderr)
        raise SystemExit(1) from error

    def _is_group(self, name: str) -> bool:
        return bool(name) and any((folder / name).is_dir() for folder in self.folders)


_COMPOSED: dict[str, tuple[Command, Any]] = {}  # what each job was composed from last, and its settings


def run_job(job: str, conf: Path = CONF) -> None:
    """Compose the configuration of a job from the command line and run it.

    Args:
        job: ``train``, ``evaluate`` or ``explain``; the function of that name in ``clip_xai.jobs.<job>`` gets the
            composed configuration as a dataclass instance.
        conf: The directory of the YAML files.
    """
    refuse_files_as_directories(sys.argv[1:])
    show_all = os.environ.get("HYDRA_FULL_ERROR") == "1"
    command = Command(job, [conf])
    try:
        plugins = use_plugins(sys.argv[1:], [conf, *without_own_folders(sys.argv[1:])[1]])
        command = Command.of(job, conf, sys.argv[1:])
        yaml_source.register(command.folders[1:], plugins)
        if {"--help", "-h"} & set(command.arguments):
            print(help_text(job, command.folders, [argument for argument in command.read if "=" in argument]))
            return
        found, sys.argv[1:] = Found.of(command.read), command.read
        os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints several lines of its own and exits
        main = hydra.main(version_base="1.3", config_path=str(command.folders[0]), config_name=job)
        main(_task(command, found, show_all))()
    except Exception as error:
        command.end(error, show_all)
    finally:
        os.environ["HYDRA_FULL_ERROR"] = "1" if show_all else "0"


def train() -> None:
    """The console script ``clip-xai-train``."""
    run_job("train")


def evaluate() -> None:
    """The console script ``clip-xai-evaluate``."""
    run_job("evaluate")


def explain() -> None:
    """The console script ``clip-xai-explain``."""
    run_job("explain")


def without_own_folders(arguments: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Take ``--config-dir DIR`` out of a command, so that its YAML is read as that of ``conf/`` is.

    Returns:
        The other arguments, and the directories.

    Raises:
        UserError: There is no such directory.
    """
    others, folders, waiting = [], [], list(arguments)
    while waiting:
        argument = waiting.pop(0)
        option, equals, value = argument.partition("=")
        if option not in ("--config-dir", "-cd") or not (equals or waiting):
            others.append(argument)
            continue
        folder = Path(value if equals else waiting.pop(0)).expanduser()
        if not folder.is_dir():
            raise UserError(f"{option} {folder}: there is no such directory")
        folders.append(folder.resolve())
    return others, folders


def refuse_files_as_directories(arguments: Sequence[str]) -> None:
    """Exit with one line where a directory that Hydra is to make is a file, lies below one, or is no text to it."""
    for argument in arguments:
        setting, _, value = argument.lstrip("+").partition("=")
        place = Path(value)
        if setting == "runs_root" and "${" in value:
            print(
                f"{setting}={value}: Hydra cannot make a directory with ${{ in its name; name another", file=sys.stderr
            )
            raise SystemExit(1)
        if setting in ("run_dir", "runs_root", "hydra.run.dir", "hydra.sweep.dir") and value:
            found = next((path for path in (place, *place.parents) if path.is_file()), None)
            if found is not None:
                print(f"{setting}={value}: {found} is a file, not a directory; name another", file=sys.stderr)
                raise SystemExit(1)


def compose_job(job: str, overrides: Sequence[str], run_dir: Path) -> Any:
    """Compose the settings of a job without starting it; for programs that run several.

    Args:
        job: ``train``, ``evaluate`` or ``explain``.
        overrides: As typed on the command line.
        run_dir: The run directory, unless an override names another.

    Returns:
        The job's dataclass, such as :class:`clip_xai.config.schemas.TrainConfig`.
    """
    plugins = use_plugins(overrides, [CONF, *without_own_folders(overrides)[1]])
    if not (CONF / f"{job}.yaml").is_file():
        raise UserError(f"{CONF} is missing: install the package anew, or run this from a checkout of the repository")
    command = Command.of(job, CONF, [f"run_dir={run_dir}", *overrides])
    _COMPOSED[job] = (command, None)
    yaml_source.register(command.folders[1:], plugins)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose(job, command.read)
    _refuse_additions(config, SCHEMAS[job])
    _COMPOSED[job] = (command, config)
    return with_data_of_the_run(OmegaConf.to_object(config), overrides)


@contextmanager
def report_errors(job: str) -> Iterator[None]:
    """Print what the user can mend as one line and exit with status 1."""
    try:
        yield
    except Exception as error:
        command, config = _COMPOSED.get(job, (Command(job, [CONF]), None))
        command.end(error, os.environ.get("HYDRA_FULL_ERROR") == "1", config)


def _task(command: Command, found: Found, show_all: bool) -> Callable[[DictConfig], Any]:
    def task(config: DictConfig) -> Any:
        sys.argv[1:] = command.typed  # Hydra has read it; Lightning starts its other processes with what was typed
        try:
            return _start(command, config)
        except Exception as error:
            if isinstance(error, UserError) and HydraConfig.get().mode == RunMode.RUN:
                found.leave(Path(HydraConfig.get().runtime.output_dir))
            command.end(error, show_all, config)

    return task


def _start(command: Command, config: DictConfig) -> Any:
    missing = OmegaConf.missing_keys(config)
    if missing:
        raise UserError(f"{sorted(missing)[0]} has no value: add {sorted(missing)[0]}=... to the command")
    job = command.job
    _refuse_additions(config, SCHEMAS[job])
    settings: Any = with_data_of_the_run(OmegaConf.to_object(config), HydraConfig.get().overrides.task)
    load_plugins(settings.plugins)  # those of a YAML file, and all of them in another process of a sweep
    importlib.import_module("clip_xai.runs.instantiate").require_usable(settings)
    sweep, search = HydraConfig.get().mode == RunMode.MULTIRUN, getattr(settings, "hparams_search", None) is not None
    if (sweep or search) and settings.trainer.world_size > 1:
        # Lightning starts its other processes with this command line: each would run the whole sweep again.
        raise UserError(f"a sweep runs on one device, not on {settings.trainer.world_size}: set trainer.devices=1")
    if sweep and search:
        raise UserError("hparams_search chooses the settings by itself: leave out -m, or hparams_search")
    with settings_typed(HydraConfig.get().overrides.task):
        if job == "train":
            importlib.import_module("clip_xai.tasks.task").refuse_settings_unused_by(settings.task.name)
        if search:
            return importlib.import_module("clip_xai.jobs.search").search(settings, _compose_trial(command))
        return getattr(importlib.import_module(f"clip_xai.jobs.{job}"), job)(settings)


def with_data_of_the_run(settings: Any, overrides: Sequence[str]) -> Any:
    """Leave the data to the run that is judged, unless ``data=`` chooses them or a CLIP is explained by itself.

    Args:
        settings: A job's settings, with the default data in them. Those of other jobs stay as they are.
        overrides: As typed; ``data.NAME=VALUE`` alone becomes a change of the run's data.
    """
    if not isinstance(settings, (EvaluateConfig, ExplainConfig)) or getattr(settings, "backbone", None) is not None:
        return settings
    keys = [override.lstrip("+~").partition("=")[0].strip() for override in overrides]
    if "data" in keys:
        return settings
    changed = sorted({key.split(".")[1] for key in keys if key.startswith("data.")})
    return replace(settings, data=DataOfTheRun(**vars(settings.data), changed=changed) if changed else None)


def _compose_trial(command: Command) -> Callable[[Sequence[str]], Any]:
    def compose(overrides: Sequence[str]) -> Any:
        """The settings of one trial: what was typed, without the search, and the overrides."""
        # Not resolved: an override that holds ${...} as text stays what it is.
        task = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
        assert isinstance(task, list)
        typed = [item for item in task if not re.match(r"\+*hparams_search\b", item)]
        config = hydra.compose("train", [*typed, *command.as_hydra_reads(overrides)])
        _refuse_additions(config, SCHEMAS["train"])
        return OmegaConf.to_object(config)

    return compose


def _refuse_additions(config: DictConfig, schema: type, prefix: str = "") -> None:
    """A setting added with ``+`` is read by nobody: refuse it as any other mistyped key."""
    known = {item.name for item in fields(schema)}
    for key in map(str, config):
        name = f"{prefix}{key}"
        if key not in known:
            raise UserError(no_such_setting(name, schema, prefix))
        kind = OmegaConf.get_type(config, key)
        if isinstance(kind, type) and is_dataclass(kind) and not OmegaConf.is_interpolation(config, key):
            _refuse_additions(config[key], kind, f"{name}.")
