"""A value out of its range is one line with the setting, the value and the range, from the shell and from Python."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch

from clip_xai.config.cli import compose_job
from clip_xai.config.schemas import SCHEMAS, ExplainConfig, GenerationConfig, TrainConfig, dataclasses_in
from clip_xai.config.training_settings import StageConfig, TrainerConfig
from clip_xai.errors import UserError
from clip_xai.models.settings import Decoding
from clip_xai.ranges import Checked, check, setting
from clip_xai.runs.instantiate import require_usable
from clip_xai.xai.explainer import explainers
from clip_xai.xai.methods import EmbeddingSpace, Rise

TRAIN = {
    "stage.epochs=0": "give at least 1",
    "stage.batch_size=-1": "give at least 1",
    "stage.learning_rate=nan": "give at least 0",
    "stage.weight_decay=-0.1": "give at least 0",
    "stage.label_smoothing=1": "give at least 0 and less than 1",
    "stage.gradient_clip=0": "give more than 0",
    "stage.gradient_clip=-1": "give more than 0",
    "stage.warmup=1.5": "give at least 0 and at most 1",
    "stage.warmup_steps=-1": "give at least 0",
    "stage.mapper_learning_rate_factor=-1": "give at least 0",
    "stage.replay=inf": "give at least 0 and at most 1",
    "stage.unfreeze=[1,-2]": "give at least 0 for each",
    "callbacks.patience=-1": "give at least 1",
    "callbacks.sample_captions=-1": "give at least 0",
    "callbacks.score_captions=0": "give at least 1",
    "callbacks.scored_photographs=0": "give at least 1",
    "trainer.accelerator=gqu": "choose one of auto, cpu, gpu, cuda, mps",
    "trainer.precision=bf16-true": "choose one of 32-true, 16-mixed, bf16-mixed",
    "trainer.precision=64-true": "choose one of 32-true, 16-mixed, bf16-mixed",
    "trainer.profiler=fast": "choose one of simple, advanced, pytorch",
    "trainer.devices=0": "give at least 1",
    "trainer.feature_batch_size=-1": "give at least 1",
    "trainer.workers=-1": "give at least 0",
    "trainer.limit_train_batches=0": "give at least 1",
    "trainer.limit_val_batches=0": "give at least 1",
    "trainer.length_bucket=0": "give at least 1",
    "trainer.log_every_n_steps=0": "give at least 1",
    "mapper.prefix_length=0": "give at least 1",
    "mapper.dropout=1": "give at least 0 and less than 1",
    "mapper.layers=-1": "give at least 1",
    "language_model.retrieved_captions=-1": "give at least 0",
    "backbone.image_size=0": "give at least 1 and at most 4096",
    "data.max_tokens=-1": "give at least 2",
    "data.limit=0": "give at least 1",
    "data.workers=0": "give at least 1",
    "data.seed=-1": "give at least 0 and at most 4294967295",
    "data.near_difference=-1": "give at least 0 and at most 255",
    "data.synthetic.scale=0": "give more than 0 and at most 10",
    "data.synthetic.height=1": "give at least 64",
    "seed=-1": "give at least 0 and at most 4294967295",
    "seed=4294967296": "give at least 0 and at most 4294967295",
    "generation.batch_size=0": "give at least 1",
}
OTHERS = {
    "evaluate bootstrap=0": "give at least 20",
    "evaluate clip_score=nosuch": "choose one of own",
    "explain samples=0": "give at least 1",
    "explain target.kind=cosin": "choose one of cosine, dot, logit, margin, log_probability",
    "explain target.dimensions=[-1]": "give at least 0 for each",
}
DECODING = {
    "beams": (0, "give at least 1"), "max_new_tokens": (0, "give at least 1"), "seed": (-1, "give at least 0"),
    "min_new_tokens": (-1, "give at least 0"),
    "length_penalty": (math.nan, "give a finite number"), "no_repeat_ngram_size": (-1, "give at least 0"),
    "repetition_penalty": (0.0, "give more than 0"), "temperature": (0.0, "give more than 0"),
    "top_k": (-1, "give at least 0"), "top_p": (2.0, "give more than 0 and at most 1"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "allowed"), [*((f"train {key}", value) for key, value in TRAIN.items()), *OTHERS.items()]
)
def test_a_typed_value_out_of_its_range_is_refused_by_name(typed: str, allowed: str) -> None:
    job, _, argument = typed.partition(" ")
    with pytest.raises(UserError) as raised:
        compose_job(job, [argument], Path("run"))
    assert str(raised.value) == f"{argument}: {allowed}"


@pytest.mark.parametrize("name", DECODING)
def test_decoding_is_refused_from_shell_and_python(name: str) -> None:
    value, allowed = DECODING[name]
    line = f"generation.{name}={value:g}: {allowed}"
    with pytest.raises(UserError) as raised:
        Decoding(**{name: value})  # type: ignore[arg-type]
    assert str(raised.value) == line
    with pytest.raises(UserError) as raised:
        require_usable(ExplainConfig(generation=GenerationConfig(**{name: value})))  # type: ignore[arg-type]
    assert str(raised.value) == line


def number_fields(cls: type) -> Iterator[Any]:
    hints = get_type_hints(cls)
    for item in fields(cls):
        kinds = {hints[item.name], *getattr(hints[item.name], "__args__", ())}
        if kinds & {int, float}:
            yield item


EXPLAINER_NUMBERS = [(name, item.name) for name, cls in explainers.items() for item in number_fields(cls)]


@pytest.mark.parametrize(("method", "name"), EXPLAINER_NUMBERS)
def test_no_explainer_takes_a_number_without_meaning(method: str, name: str) -> None:
    cls = explainers[method]
    default = getattr(cls(), name)
    if isinstance(default, float):
        with pytest.raises(UserError, match=rf"^xai\.{method}\.{name}=nan: give "):
            cls(**{name: math.nan})
    if name in ("layer", "start_layer", "fill"):  # any block, from either end, and any finite value
        cls(**{name: -1})
        return
    worse: Any = [-1.0] if isinstance(default, list) else -1
    with pytest.raises(UserError, match=rf"^xai\.{method}\.{name}=\[?-1(\.0)?\]?: give "):
        cls(**{name: worse})


@pytest.mark.parametrize("method", explainers)
def test_no_explainer_takes_an_unknown_word(method: str) -> None:
    words = [
        item.name for item in fields(explainers[method]) if isinstance(item.default, str) and item.name != "method"
    ]
    for name in words:
        with pytest.raises(UserError, match=rf"^xai\.{method}\.{name}=nosuch: choose one of "):
            explainers[method](**{name: "nosuch"})


def leaves(cls: type, name: str = "") -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(cls)
    for item in fields(cls):
        inner = dataclasses_in(hints[item.name])
        for kind in inner:
            if not name.startswith("xai"):
                yield from leaves(kind, f"{name}{item.name}.")
    yield from ((name + item.name, item) for item in number_fields(cls))


def test_every_number_among_the_settings_has_a_range() -> None:
    anything = {"stage.number", "stage.starts_from", "data.mask_values", "generation"}
    without = {
        name
        for schema in SCHEMAS.values()
        for name, item in leaves(schema)
        if not item.metadata and not name.startswith(("xai.", "generation."))
    }
    assert without <= anything


def test_what_the_package_ships_is_in_range() -> None:
    for name, cls in explainers.items():
        assert cls().name == name
    assert Decoding() and StageConfig(number=1) and TrainerConfig()


def test_lists_mappings_and_what_is_inside_are_checked_and_nothing_is_not() -> None:
    @dataclass
    class Inner(Checked):
        share: float = setting(0.5, above=0, below=1)

    @dataclass
    class Outer:
        inner: Inner
        shares: dict[str, float] = setting(factory=dict, least=0, most=1)
        numbers: list[int] | None = setting(None, least=2)
        switch: bool = setting(True, least=3)

    check(Outer(Inner()))
    with pytest.raises(UserError, match=r"^shares=\{a:0.5,b:2\}: give at least 0 and at most 1 for each$"):
        check(Outer(Inner(), {"a": 0.5, "b": 2}))
    with pytest.raises(UserError, match=r"^numbers=\[2,1\]: give at least 2 for each$"):
        check(Outer(Inner(), numbers=[2, 1]))
    outer = Outer(Inner())
    outer.inner.share = 1.0
    with pytest.raises(UserError, match=r"^group\.inner\.share=1: give more than 0 and less than 1$"):
        check(outer, "group")


def test_options_of_the_method_inside_are_taken_from_the_shell() -> None:
    for argument in ("xai.embedding_space.options={layer: 0}", "xai.embedding_space.options.layer=0"):
        config = compose_job("explain", ["xai=embedding_space", argument], Path("run"))
        assert config.xai.embedding_space.options == {"layer": 0}
    with pytest.raises(UserError, match=r"hirescam has no nosuch; its settings are layer"):
        _ = EmbeddingSpace("hirescam", "per_dimension", options={"nosuch": 1}).inner


def test_a_device_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    config = TrainConfig(trainer=TrainerConfig(accelerator="cuda", devices=1))
    with pytest.raises(UserError, match=r"trainer.accelerator=cuda trainer.devices=1: torch finds 0 here"):
        require_usable(config)


def test_settings_that_were_changed_in_python_are_checked_when_used() -> None:
    config = TrainConfig()
    config.stage.epochs = 0
    with pytest.raises(UserError, match=r"^stage\.epochs=0: give at least 1$"):
        require_usable(config)
    with pytest.raises(UserError, match=r"^xai\.rise\.fill=nan: give a finite number$"):
        Rise(fill=math.nan)


@pytest.mark.parametrize("typed", ["explain image=", "evaluate ckpt= ", "train data.root="])
def test_a_blank_path_is_not_the_working_directory(typed: str) -> None:
    job, _, argument = typed.partition(" ")
    with pytest.raises(UserError, match=f"{argument.strip()} is blank, which is no path"):
        check(compose_job(job, ["backbone=tiny", argument] if job == "explain" else [argument], Path("run")))
