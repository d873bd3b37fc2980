"""Texts and paths mean what is typed, whatever signs they hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_xai.config import cli
from clip_xai.config.typed import free_text_settings, quote_free_text, unreadable

SIGNS = st.text(st.sampled_from(list("ab ,:=()[]{}'\"\\$#~!?*é„\t/.-+&")), min_size=1, max_size=12).filter(
    lambda text: text != "???"  # OmegaConf's own sign for no value
)
TEXTS = [
    "a photo of melanoma", "red, scaly: (upper left) [1] {2}", "it's \\ 'here'", "=", "a, b\\", "${seed}",
    "x \\${seed}", "$${seed}", "${", "'quoted'", '"tis a lesion', "'tis a lesion", "[a,b]", "[] ", "{a: b}",
    "C:\\data\\", "a #b", "~x", "“soft, red”", "null and void", "????",
]  # fmt: skip


def composed(**values: str) -> object:
    """What the settings of ``explain`` are after these were typed."""
    typed = [f"{name.replace('__', '.')}={value}" for name, value in values.items()]
    return cli.compose_job("explain", ["backbone=tiny", *typed], Path("run"))


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_or_path_is_what_was_typed(text: str) -> None:
    config = composed(text=text, image=text, ckpt=text, backbone__pretrained=text, runs_root=text, target__word=text)
    found = (config.text, config.image, config.ckpt, config.backbone.pretrained, config.runs_root, config.target.word)  # type: ignore[attr-defined]
    assert set(found) == {text}


@settings(max_examples=25, deadline=None)
@given(SIGNS.filter(lambda text: text.strip() and text != "~" and not text.startswith("~/")))  # refused; the home
def test_no_sign_has_a_meaning_of_its_own(text: str) -> None:
    assert composed(text=text, ckpt=text).ckpt == text  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("typed", "texts"),
    [
        ("['a','b']", ["a", "b"]),
        ("""['it\\'s red', "x, y" ]""", ["it's red", "x, y"]),
        ("['${seed}']", ["${seed}"]),
        ("['a', b]", "['a', b]"),
        ("['a'] and more", "['a'] and more"),
    ],
)
def test_a_list_of_quoted_texts_is_a_list_and_nothing_else_is(typed: str, texts: object) -> None:
    assert composed(text=typed).text == texts  # type: ignore[attr-defined]


@pytest.mark.parametrize("argument", ["text=null", "text=", "stage=2", "stage.epochs=1,2", "--help", "-m"])
def test_other_arguments_stay_as_they_are(argument: str) -> None:
    assert quote_free_text(argument) == argument


def test_every_path_is_among_them() -> None:
    paths = {"ckpt", "ckpt_path", "init_from", "image", "run_dir", "runs_root", "bert_score", "backbone.pretrained"}
    paths |= {"data.root", "data.output_dir", "data.cache_dir", "language_model.pretrained", "hparams_search.storage"}
    assert paths <= free_text_settings()


def test_the_home_before_a_path_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of, hers")
    config = composed(ckpt="~/runs", data__root="~/my data", text="~/x", runs_root="~")
    assert (config.ckpt, config.text, config.runs_root) == ("/home/of, hers/runs", "~/x", "/home/of, hers")  # type: ignore[attr-defined]
    assert config.data.root == "/home/of, hers/my data"  # type: ignore[attr-defined]


def test_nothing_null_is_a_text() -> None:
    assert composed(text="null", ckpt="x").text is None  # type: ignore[attr-defined]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):  # type: ignore[no-untyped-def]
    """Type a command; return the lines on standard error, and what other processes would be started with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")

    def run(job: str, *arguments: str) -> tuple[list[str], list[str]]:
        monkeypatch.setattr(sys, "argv", [f"{job}.py", *arguments])
        GlobalHydra.instance().clear()
        with pytest.raises(SystemExit):
            cli.run_job(job, cli.CONF)
        return capsys.readouterr().err.strip().splitlines(), sys.argv[1:]

    return run


@pytest.mark.parametrize("sweep", [[], ["-m"]])
def test_a_path_with_a_comma_is_one_path_in_a_sweep_too(typed, sweep: list[str]) -> None:  # type: ignore[no-untyped-def]
    arguments = [*sweep, "ckpt=nothing, here (it's 1=1)", "text=a, b", "runs_root=my runs, all"]
    lines, argv = typed("explain", *arguments)
    assert len(lines) == 1 and lines[0].startswith("nothing, here (it's 1=1) holds no exported model"), lines
    assert Path("my runs, all", "explain").is_dir()
    assert argv == arguments


@pytest.mark.parametrize(
    ("argument", "quoted"),
    [
        ("target.classes=[it's, b]", "target.classes=['it\\'s','b']"),
        ("stage.name=a(b", "stage.name='a(b'"),
        ("logger.tags=[a=1,$x]", "logger.tags=['a=1','$x']"),
    ],
)
def test_what_hydra_cannot_read_is_shown_with_its_quotes(typed, argument: str, quoted: str) -> None:  # type: ignore[no-untyped-def]
    job = "explain" if argument.startswith("target") else "train"
    [line], _ = typed(job, argument)
    setting, _, value = argument.partition("=")
    assert line.startswith(f"{setting}: {value} cannot be read; put what is in it in quotes, ")
    shown = subprocess.run(["sh", "-c", f"printf %s {line.partition('in quotes, ')[2]}"], stdout=-1, text=True).stdout
    assert shown == quoted
    assert cli.compose_job(job, [shown], Path("run"))


def test_a_directory_that_hydra_cannot_make_is_refused(typed) -> None:  # type: ignore[no-untyped-def]
    [line], _ = typed("train", "runs_root=a ${b}")
    assert line == "runs_root=a ${b}: Hydra cannot make a directory with ${ in its name; name another"


def test_an_argument_without_a_value_says_so(typed) -> None:  # type: ignore[no-untyped-def]
    assert typed("train", "nonsense")[0] == ["nonsense: an argument is SETTING=VALUE"]
    assert unreadable("x") == "x: an argument is SETTING=VALUE"
