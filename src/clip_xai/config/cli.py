"""The command line: Hydra composes, a job runs, and an error that the user can mend is one line.

Nothing here imports torch, so that ``--help`` and a mistyped key answer at once.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import hydra
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import Overrides
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clip_xai.config.plugins import use_plugins
from clip_xai.config.schemas import (
    SCHEMAS,
    DataOfTheRun,
    EvaluateConfig,
    ExplainConfig,
    dataclasses_in,
    register_schemas,
)
from clip_xai.config.typed import quote_free_text, unreadable
from clip_xai.disk import disk_line, places_of
from clip_xai.errors import UserError
from clip_xai.registry import load_plugins

CONF = Path(__file__).resolve().parents[3] / "conf"
_COMPOSED: dict[str, DictConfig] = {}  # the last settings of each job: which directories it writes to


def run_job(job: str, conf: Path) -> None:
    """Compose the configuration of a job from the command line and run it.

    Args:
        job: ``train``, ``evaluate`` or ``explain``; the function of that name in ``clip_xai.jobs.<job>`` gets the
            composed configuration as a dataclass instance.
        conf: The directory of the YAML files.
    """
    typed = sys.argv[1:]
    with report_errors(job):
        use_plugins(typed)
    register_schemas()
    refuse_files_as_directories(typed)
    sys.argv[1:] = [quote_free_text(argument) for argument in typed]
    show_all = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints several lines of its own and exits
    try:
        hydra.main(version_base="1.3", config_path=str(conf.resolve()), config_name=job)(_task(job, show_all, typed))()
    except Exception as error:
        _end(error, job, show_all)
    finally:
        os.environ["HYDRA_FULL_ERROR"] = "1" if show_all else "0"


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
    use_plugins(overrides)
    register_schemas()
    if not (CONF / f"{job}.yaml").is_file():
        raise UserError(f"{CONF} is missing: run this from a checkout of the repository, installed with make setup")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose(job, [quote_free_text(override) for override in (f"run_dir={run_dir}", *overrides)])
    _refuse_additions(config, SCHEMAS[job])
    _COMPOSED[job] = config
    return with_data_of_the_run(OmegaConf.to_object(config), overrides)


@contextmanager
def report_errors(job: str) -> Iterator[None]:
    """Print what the user can mend as one line and exit with status 1."""
    try:
        yield
    except Exception as error:
        _end(error, job, os.environ.get("HYDRA_FULL_ERROR") == "1", _COMPOSED.get(job))


def _end(error: Exception, job: str, show_all: bool, config: Any = None) -> NoReturn:
    """Exit with one line where the user can mend the error, and raise it again where not."""
    if not show_all:
        line = user_line(error, SCHEMAS[job], config)
        if line is not None:
            print(line, file=sys.stderr)
            raise SystemExit(1) from error
    raise error


def user_line(error: BaseException, schema: type, config: Any = None) -> str | None:
    """Return the one line for an error that the user can mend, or None for one of the program.

    Args:
        error: What was raised.
        schema: The job's dataclass.
        config: The job's settings, where they are known: which directories it writes to.
    """
    if isinstance(error, (HydraException, OmegaConfBaseException, UserError)):
        return one_line(error, schema)
    return disk_line(error, places_of(config))


def _task(job: str, show_all: bool, typed: Sequence[str]) -> Callable[[DictConfig], Any]:
    def task(config: DictConfig) -> Any:
        sys.argv[1:] = typed  # Hydra has read it; Lightning starts its other processes with what was typed
        try:
            return _start(job, config)
        except Exception as error:
            _end(error, job, show_all, config)

    return task


def _start(job: str, config: DictConfig) -> Any:
    missing = OmegaConf.missing_keys(config)
    if missing:
        raise UserError(f"{sorted(missing)[0]} has no value: add {sorted(missing)[0]}=... to the command")
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
    if search:
        return importlib.import_module("clip_xai.jobs.search").search(settings, _compose_trial)
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


def _compose_trial(overrides: Sequence[str]) -> Any:
    """The settings of one trial: what was typed, without the search, and the overrides."""
    # Not resolved: an override that holds ${...} as text stays what it is.
    task = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(task, list)
    typed = [item for item in task if not re.match(r"\+*hparams_search\b", item)]
    config = hydra.compose("train", [*typed, *map(quote_free_text, overrides)])
    _refuse_additions(config, SCHEMAS["train"])
    return OmegaConf.to_object(config)


def _refuse_additions(config: DictConfig, schema: type, prefix: str = "") -> None:
    """A setting added with ``+`` is read by nobody: refuse it as any other mistyped key."""
    known = {item.name for item in fields(schema)}
    for key in map(str, config):
        name = f"{prefix}{key}"
        if key not in known:
            raise UserError(f"{name}: there is no such setting or group{_near(name, setting_names(schema, prefix))}")
        node = config._get_node(key)
        kind = OmegaConf.get_type(node) if isinstance(node, DictConfig) else None
        if isinstance(node, DictConfig) and isinstance(kind, type) and is_dataclass(kind):
            _refuse_additions(node, kind, f"{name}.")


def accept_numbers_as_choices() -> None:
    """Let a group whose options are numbers be chosen by a plain number: ``stage=2``, ``-m stage=1,2``, ``stage: 2``.

    Hydra reads such a choice as an integer and refuses it. The two places where it looks at a choice are the overrides
    (of a single run, of each run of a sweep, of ``compose``) and the defaults lists in YAML; both get the number as
    text.
    """
    if getattr(Overrides.__init__, "numbers_are_choices", False):
        return
    read_overrides = Overrides.__init__
    read_defaults = ConfigRepository._create_defaults_list

    @functools.wraps(read_overrides)
    def overrides(self: Overrides, repo: Any, overrides_list: list[Any]) -> None:
        for override in overrides_list:
            if repo.group_exists(override.key_or_group) and _is_number(override._value):
                override._value = QuotedString(text=str(override._value), quote=Quote.single)
        read_overrides(self, repo, overrides_list)

    @functools.wraps(read_defaults)
    def defaults(self: ConfigRepository, config_path: str, defaults: ListConfig) -> Any:
        for item in defaults._iter_ex(resolve=False):
            for group, choice in item.items_ex(resolve=False) if isinstance(item, DictConfig) else ():
                if _is_number(choice):
                    item[group] = str(choice)
        return read_defaults(self, config_path, defaults)

    overrides.numbers_are_choices = True  # type: ignore[attr-defined]
    Overrides.__init__ = overrides  # type: ignore[method-assign]
    ConfigRepository._create_defaults_list = defaults  # type: ignore[method-assign]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def one_line(error: BaseException, schema: type) -> str:
    """What went wrong and what to do next, in one line.

    Args:
        error: A ``UserError`` or an error of Hydra or OmegaConf.
        schema: The job's dataclass, for the near matches of a mistyped key.
    """
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    if isinstance(error, MissingConfigException):
        return _unknown_option(error)
    refused = next((part for part in _chain(error) if isinstance(part, OverrideParseException)), None)
    if refused is not None:
        return unreadable(refused.override)
    text = "\n".join(str(part) for part in _chain(error))
    several = re.search(r"(?:Ambiguous value for argument|Sweep parameters) '([^']*)'", text)
    if several:
        return f"{several[1]} holds several values: add -m to run one after the other, or quote the value"
    unknown = re.search(r"(?:Key '([^']*)' (?:is )?not in|Could not override '([^']*)')", text)
    full_key = re.search(r"full_key: (\S+)", text)
    if unknown:
        key = full_key[1] if full_key else (unknown[1] or unknown[2])
        return f"{key}: there is no such setting or group{_near(key, setting_names(schema))}"
    user_error = next((part for part in _chain(error) if isinstance(part, UserError)), None)
    if user_error:
        return one_line(user_error, schema)
    reason = str(_chain(error)[-1]).strip().splitlines() or [type(error).__name__]
    return f"{full_key[1]}: {reason[0]}" if full_key else " ".join(" ".join(reason).split())


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain


def _unknown_option(error: MissingConfigException) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    options = sorted(error.options or [])
    return f"{group}={option}: there is no such option{_near(option, options)}; {group} can be {', '.join(options)}"


def _near(name: str, candidates: list[str]) -> str:
    leaf = name.rpartition(".")[2]
    matches = difflib.get_close_matches(name, candidates, cutoff=0.7)
    leaves = difflib.get_close_matches(leaf, {known.rpartition(".")[2] for known in candidates}, cutoff=0.75)
    matches += [known for known in candidates if known.rpartition(".")[2] in leaves]
    unique = list(dict.fromkeys(matches))[:3]
    return f" (near: {', '.join(unique)})" if unique else ""


def setting_names(schema: type, prefix: str = "") -> list[str]:
    """The dotted names of all settings under a dataclass."""
    names: list[str] = []
    hints = get_type_hints(schema)
    for item in fields(schema):
        names.append(prefix + item.name)
        for kind in dataclasses_in(hints[item.name]):
            names += setting_names(kind, f"{prefix}{item.name}.")
    return names


# A launcher that runs a sweep in other processes imports this module there, and nothing else before it composes.
accept_numbers_as_choices()
