"""Every YAML file composes, every option fits its schema, and numbers choose options."""

from __future__ import annotations

from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from clip_xai.config import yaml_source
from clip_xai.config.cli import Command
from clip_xai.config.explainer_settings import XaiConfig
from clip_xai.config.refusals import setting_names
from clip_xai.config.schemas import SCHEMAS, TrainConfig, dataclasses_in
from clip_xai.errors import UserError
from clip_xai.models.clipcap import DECODING as CLIPCAP
from clip_xai.models.mappers import build_mapper, mappers
from clip_xai.models.settings import Decoding
from clip_xai.runs.instantiate import decoding, explainers_of
from clip_xai.tasks.captions.opened import captioner_settings
from clip_xai.xai.explainer import explainers

CONF = Path(__file__).resolve().parents[2] / "conf"
JOBS = {
    "train": (
        *("backbone", "mapper", "language_model", "stage", "data"),
        *("trainer", "logger", "callbacks", "generation", "debug"),
        *("task", "hparams_search", "launcher"),
    ),
    "evaluate": ("data", "trainer", "logger", "generation", "protocol", "xai"),
    "explain": ("data", "xai", "target", "trainer", "logger", "generation"),
}  # fmt: skip


def options_of(job: str) -> dict[str, list[str]]:
    return {group: sorted(option.stem for option in (CONF / group).glob("*.yaml")) for group in JOBS[job]}


# Every option once, one of each group at a time: a composition takes a third of a second.
CHOICES = [
    (job, [f"{group}={options[number]}" for group, options in options_of(job).items() if number < len(options)])
    for job in JOBS
    for number in range(max(len(options) for options in options_of(job).values()))
] + [("train", [f"experiment={option.stem}"]) for option in sorted((CONF / "experiment").glob("*.yaml"))]


def composed(job: str, *overrides: str, conf: Path = CONF) -> Any:
    command = Command.of(job, conf, [*overrides, "run_dir=x"])
    yaml_source.register(command.folders[1:])
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose(job, command.read)
    return OmegaConf.to_object(config)


def test_the_list_of_groups_is_the_list_of_folders() -> None:
    assert {group for groups in JOBS.values() for group in groups} == {p.name for p in CONF.iterdir() if p.is_dir()} - {
        *("hydra", "experiment"),
    }


@pytest.mark.parametrize(("job", "options"), CHOICES)
def test_every_option_of_every_group_fits_its_schema(job: str, options: list[str]) -> None:
    config = composed(job, *options, "data.root=somewhere")
    assert isinstance(config, SCHEMAS[job])
    for item in fields(config):
        allowed = kinds(SCHEMAS[job], item.name)
        assert Any in allowed or any(isinstance(getattr(config, item.name), kind) for kind in allowed)


def kinds(schema: type, name: str) -> tuple[Any, ...]:
    kind = get_type_hints(schema)[name]
    return (get_origin(kind) or kind, *getattr(kind, "__args__", ()))


@pytest.mark.parametrize("job", JOBS)
def test_the_defaults_alone_are_a_job(job: str) -> None:
    assert is_dataclass(composed(job))


@pytest.mark.parametrize(("choice", "number"), [("stage=1", 1), ("stage=2", 2), ("stage='2'", 2)])
def test_a_plain_number_chooses_a_stage(choice: str, number: int) -> None:
    assert composed("train", choice).stage.number == number


def test_a_number_chooses_in_any_group_in_overrides_and_in_defaults_lists(tmp_path: Path) -> None:
    for folder, names in {"fold": ("0", "1", "2.5"), "experiment": ("mine", "nested")}.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.yaml").write_text(f"value: chosen {name}\n")
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /fold: 1\n  - override /fold@second: 2.5\n"
    )
    (tmp_path / "top.yaml").write_text(
        "run_dir: null\ndefaults:\n  - _self_\n  - fold: 0\n  - fold@second: 1\n  - experiment: null\n"
    )

    def values(*overrides: str) -> tuple[str, str]:
        config = composed("top", *overrides, conf=tmp_path)
        return config["fold"]["value"], config["second"]["value"]

    assert values() == ("chosen 0", "chosen 1")
    assert values("fold=1") == ("chosen 1", "chosen 1")
    assert values("fold=2.5", "fold@second=0") == ("chosen 2.5", "chosen 0")
    assert values("experiment=mine") == ("chosen 1", "chosen 2.5")
    assert values("experiment=mine", "fold=0") == ("chosen 0", "chosen 2.5")


def test_numbers_that_are_settings_stay_numbers() -> None:
    config = composed("train", "stage=2", "seed=3", "stage.number=5", "stage.unfreeze=[0,1,3]")
    assert (config.seed, config.stage.number) == (3, 5)
    assert config.stage.unfreeze == [0, 1, 3]


@pytest.mark.parametrize("mapper", sorted(mappers))
def test_mapper_settings_are_what_the_mapper_takes(mapper: str) -> None:
    config = composed("train", f"mapper={mapper}")
    settings = captioner_settings(config.backbone, config.mapper, config.language_model)
    neighbours = {"embed_dim": 8, "width": 8, "embedding_dim": 128, "grid": (4, 4), "blocks": 2}
    built = build_mapper(settings.mapper, **neighbours, **settings.mapper_settings)
    assert type(built) is mappers[mapper]
    assert built.prefix_length == settings.mapper_settings.get("prefix_length", built.prefix_length)


def test_a_mapper_is_smaller_beside_the_tiny_language_model_only() -> None:
    def prefix_lengths(*overrides: str) -> int:
        return composed("train", *overrides).mapper.prefix_length

    assert prefix_lengths() == prefix_lengths("language_model=tiny") == 12
    assert prefix_lengths("language_model=gpt2") == prefix_lengths("language_model=gpt2-medium") == 32
    assert prefix_lengths("mapper=bottleneck_mlp") == 12
    assert prefix_lengths("mapper=clipcap_mlp") == 10  # no size of its own
    assert prefix_lengths("mapper.prefix_length=5") == 5


def test_explainers_are_built_with_their_settings() -> None:
    built = {one.name: one for one in explainers_of(composed("explain", "xai=all", "xai.gradcam.layer=-2").xai)}
    assert tuple(built) == tuple(item.name for item in fields(XaiConfig) if item.name != "best") == tuple(explainers)
    assert built["gradcam"].settings["layer"] == -2


@pytest.mark.parametrize("choice", ["xai=[gradeclip,gradcam]", "xai=[gradcam,gradeclip]"])
def test_several_explainers_are_chosen_by_a_list(choice: str) -> None:
    assert [one.name for one in explainers_of(composed("explain", choice).xai)] == ["gradcam", "gradeclip"]


@pytest.mark.parametrize("name", explainers)
def test_the_settings_of_an_explainer_are_its_fields(name: str) -> None:
    (settings,) = dataclasses_in(get_type_hints(XaiConfig)[name])
    assert asdict(settings()) == explainers[name]().settings
    assert explainers[name](**asdict(settings())) == explainers[name]()
    assert [item.metadata for item in fields(settings)] == [item.metadata for item in fields(explainers[name])]
    option = OmegaConf.load(CONF / "xai" / f"{name}.yaml")
    assert dict(option) == {name: explainers[name]().settings}


def test_generation_settings_are_the_decoding_settings() -> None:
    config = composed("evaluate", "generation.beams=3")
    assert decoding(config.generation) == Decoding(beams=3, length_penalty=0.0)
    assert decoding(composed("evaluate", "generation=clipcap").generation) == CLIPCAP
    assert decoding(composed("explain", "generation.stop_at=.").generation).stop_at == "."
    names = {item.name for item in fields(Decoding)} | {"batch_size"}
    assert {item.name for item in fields(config.generation)} == names


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stage.trains=[mappr]", "mappr is not one of"),
        ("stage.replay=1.5", "give at least 0 and at most 1"),
    ],
)
def test_values_without_meaning_are_refused(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        composed("train", override)


def test_no_explainer_is_refused() -> None:
    with pytest.raises(UserError, match="choose xai=NAME"):
        explainers_of(XaiConfig())


def test_setting_names_reach_into_optional_groups() -> None:
    names = setting_names(TrainConfig)
    assert {"stage", "stage.learning_rate", "data.synthetic.scale", "seed"} < set(names)


@pytest.mark.parametrize(("choice", "ending"), [("gradcam", "gradcam"), ("[gradcam,legrad]", "several")])
def test_the_run_directory_says_which_explainers(choice: str, ending: str) -> None:
    yaml_source.register([])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("explain", [f"xai={choice}"], return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    assert config.hydra.run.dir.endswith(f"_{ending}")
