"""What is used of other libraries without their promise: it is there, does what it is used for, and nothing else is.

A test that fails here says in words what changed in a library; where it is used stands in ``clip_xai.private_api``.
"""

from __future__ import annotations

import ast
import errno
import inspect
import re
import sqlite3
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import bert_score
import lightning.pytorch
import open_clip
import openpyxl
import pytest
import sqlalchemy
import timm
import torch
from hydra.plugins.config_source import ConfigSource
from lightning.pytorch.loggers import WandbLogger
from packaging.requirements import Requirement
from packaging.version import Version
from timm.models.vision_transformer import VisionTransformer
from transformers import AutoConfig, AutoModelForCausalLM

from clip_xai import private_api
from clip_xai.files import disk_error

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "clip_xai"
VISION = {"layers": 2, "width": 64, "head_width": 32, "patch_size": 8, "image_size": 32}


def said(library: str, what: str) -> str:
    """What a failure says."""
    return f"{library} {version(library)} (tried with {private_api.TRIED[library]}): {what}; see clip_xai.private_api"


def requirements() -> dict[str, Requirement]:
    listed = re.findall(r'^    "(.+)",$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    return {Requirement(line).name.replace("-", "_").lower(): Requirement(line) for line in listed}


@pytest.mark.parametrize("library", private_api.TRIED)
def test_a_library_whose_private_names_are_used_has_an_upper_bound_above_what_was_tried(library: str) -> None:
    wanted = requirements()[library.replace("-", "_").lower()].specifier
    upper = [Version(part.version) for part in wanted if part.operator == "<"]
    tried = Version(private_api.TRIED[library])
    assert len(upper) == 1 and tried < upper[0] <= Version(f"{tried.major + 1}"), said(library, f"allowed are {wanted}")
    assert private_api.TRIED[library] in wanted


@pytest.fixture(scope="module")
def clip() -> open_clip.CLIP:
    torch.manual_seed(0)
    text = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}
    return open_clip.CLIP(16, VISION, text).eval()


def test_open_clip_builds_its_towers_apart(clip: open_clip.CLIP) -> None:
    """A tower that is built alone holds the same weights, under the same names, as one in a whole model."""
    text = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}
    vision = private_api.open_clip_vision_tower(16, VISION, False)
    tower = private_api.open_clip_text_tower(16, text, False)
    shapes = {key: value.shape for key, value in clip.visual.state_dict().items()}
    what = "open_clip.model._build_vision_tower builds another tower than open_clip.CLIP"
    assert {key: value.shape for key, value in vision.state_dict().items()} == shapes, said("open_clip_torch", what)
    whole = open_clip.CustomTextCLIP(16, VISION, text).text
    what = "open_clip.model._build_text_tower builds another tower than open_clip.CustomTextCLIP"
    assert tower.state_dict().keys() == whole.state_dict().keys(), said("open_clip_torch", what)


@torch.no_grad()
def test_open_clip_embeds_and_pools_in_steps(clip: open_clip.CLIP) -> None:
    visual, pixels = clip.visual, torch.rand(2, 3, 32, 32)
    tokens = private_api.open_clip_embeds(visual, pixels)
    assert tokens.shape == (2, 17, 64), said("open_clip_torch", "VisionTransformer._embeds gives other tokens")
    pooled = private_api.open_clip_pooled(visual, visual.transformer(tokens))
    what = "VisionTransformer.forward is no longer _embeds, transformer, _pool, proj"
    torch.testing.assert_close(pooled @ visual.proj, visual(pixels), msg=lambda text: said("open_clip_torch", what))


def test_open_clip_takes_the_first_row_or_the_mean_of_what_is_pooled(clip: open_clip.CLIP) -> None:
    tokens = torch.rand(2, 5, 64)
    what = "VisionTransformer._global_pool takes other rows"
    first = private_api.open_clip_global_pool(clip.visual, tokens)
    torch.testing.assert_close(first, tokens[:, 0], msg=lambda text: said("open_clip_torch", what))
    averaging = open_clip.CLIP(16, {**VISION, "pool_type": "avg"}, {"context_length": 8, "vocab_size": 50, "width": 32})
    mean = private_api.open_clip_global_pool(averaging.visual, tokens)
    torch.testing.assert_close(mean, tokens[:, 1:].mean(1), msg=lambda text: said("open_clip_torch", what))


@torch.no_grad()
def test_timm_adds_positions_in_a_step_of_its_own() -> None:
    trunk = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0, depth=1).eval()
    pixels = torch.rand(2, 3, 32, 32)
    tokens = private_api.timm_positions(trunk, trunk.patch_embed(pixels))
    what = "VisionTransformer.forward_features is no longer patch_embed, _pos_embed, norm_pre, blocks, norm"
    found = trunk.norm(trunk.blocks(trunk.norm_pre(tokens)))
    torch.testing.assert_close(found, trunk.forward_features(pixels), msg=lambda text: said("timm", what))


@pytest.mark.parametrize("name", private_api.TIMM_OWN_PASS)
def test_timm_has_what_a_subclass_may_not_do_otherwise(name: str) -> None:
    assert callable(getattr(VisionTransformer, name, None)), said("timm", f"VisionTransformer has no {name}")


def test_transformers_lists_its_causal_language_models() -> None:
    kinds = private_api.causal_language_models()
    built = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", n_layer=1, n_head=1, n_embd=8, vocab_size=9))
    assert built.config.model_type in kinds and {"llama", "opt"} <= kinds, said("transformers", "the list holds others")
    assert not {"clip", "vit"} & kinds, said("transformers", "the list holds models that write no text")


def test_bert_score_knows_its_layers_and_brings_its_baselines() -> None:
    layers = private_api.bert_score_layers()
    assert layers["roberta-large"] == 17, said("bert-score", "its table names another layer of roberta-large")
    table = private_api.bert_score_baseline("roberta-large")
    assert table is not None, said("bert-score", "rescale_baseline/en/roberta-large.tsv is not beside its code")
    header, *rows = table.read_text().splitlines()
    assert header == "LAYER,P,R,F" and len(rows) > layers["roberta-large"], said("bert-score", "its table has others")
    assert private_api.bert_score_baseline("a model without one") is None


def test_bert_score_keeps_its_tokenizer_and_its_baseline() -> None:
    """Read in its source: a scorer needs a model, whose tests are those of the metric."""
    source = inspect.getsource(bert_score.BERTScorer)
    assert "self._tokenizer" in source, said("bert-score", "BERTScorer has no _tokenizer")
    assert "def baseline_vals" in source, said("bert-score", "BERTScorer has no baseline_vals")


class Folder(ConfigSource):
    """A source of configuration that is asked for nothing but a header."""

    scheme = load_config = available = is_group = is_config = list = None


Folder.__abstractmethods__ = frozenset()


@pytest.mark.parametrize(
    ("text", "package"), [("# @package _global_\na: 1\n", "_global_"), ("a: 1\n", None), ("# a note\n", None)]
)
def test_hydra_reads_the_header_of_a_file(text: str, package: str | None) -> None:
    header = private_api.yaml_header(Folder, text)
    assert header == {"package": package}, said("hydra-core", "ConfigSource._get_header_dict reads other headers")


def test_openpyxl_tells_where_the_xml_of_a_sheet_lies(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.create_sheet("second").append(["a"])
    book.save(tmp_path / "book.xlsx")
    opened = openpyxl.load_workbook(tmp_path / "book.xlsx", read_only=True)
    paths = [private_api.sheet_path(sheet) for sheet in opened.worksheets]
    opened.close()
    what = "ReadOnlyWorksheet._worksheet_path is another path"
    assert paths == ["xl/worksheets/sheet1.xml", "xl/worksheets/sheet2.xml"], said("openpyxl", what)


def test_lightning_passes_on_what_wandb_no_longer_takes(tmp_path: Path) -> None:
    logger = WandbLogger(save_dir=tmp_path, mode="offline")
    what = "WandbLogger does not keep the arguments of wandb.init in _wandb_init"
    assert logger._wandb_init.get("mode") == "offline", said("lightning", what)
    assert "anonymous" not in private_api.without_anonymous(logger)._wandb_init


def source_of(package: object) -> str:
    folder = Path(inspect.getfile(package)).parent  # type: ignore[arg-type]
    return "\n".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))


def test_lightning_warns_in_the_words_that_are_kept_from_the_terminal() -> None:
    source = source_of(lightning.pytorch) + source_of(lightning.fabric)
    joined = re.sub(r"\"\s*\n\s*f?\"", "", source)
    for hint in (*private_api.LIGHTNING_HINTS, private_api.CSV_FOLDER_HINT):
        assert hint in joined, said("lightning", f"no warning says {hint!r}: the one meant has other words, or is gone")


def test_safetensors_and_tokenizers_name_the_number_of_an_error_of_the_disk(tmp_path: Path) -> None:
    """Into a directory that does not exist: number 2, which no full disk gives, so that none is needed."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models

    with pytest.raises(SafetensorError) as raised:
        save_file({"a": torch.ones(1)}, tmp_path / "none" / "a.safetensors")
    assert private_api.disk_errno(raised.value) == 2, said("safetensors", f"its error reads {raised.value}")
    with pytest.raises(Exception, match="os error") as other:
        Tokenizer(models.WordLevel({})).save(str(tmp_path / "none" / "tokenizer.json"))
    assert private_api.disk_errno(other.value) == 2, said("tokenizers", f"its error reads {other.value}")


def full(connection: sqlite3.Connection | sqlalchemy.Connection) -> None:
    """Fill a database that may hold two pages."""
    run = connection.exec_driver_sql if isinstance(connection, sqlalchemy.Connection) else connection.execute
    run("PRAGMA max_page_count = 2")
    run("CREATE TABLE a (b TEXT)")
    run("INSERT INTO a VALUES ('" + "x" * 50_000 + "')")


def test_a_full_database_is_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError) as raised:
        full(sqlite3.connect(tmp_path / "a.db"))
    assert private_api.disk_errno(raised.value) == errno.ENOSPC
    # Before Python 3.11 the words alone tell.
    assert "database or disk is full" in str(raised.value), "SQLite says otherwise that a disk is full"
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'b.db'}")
    with pytest.raises(sqlalchemy.exc.OperationalError) as held, engine.connect() as connection:
        full(connection)
    assert disk_error(held.value) == errno.ENOSPC, "SQLAlchemy's errors no longer hold SQLite's"


def test_other_errors_of_a_database_are_none_of_the_disk() -> None:
    with pytest.raises(sqlite3.OperationalError) as raised:
        sqlite3.connect(":memory:").execute("SELECT * FROM database_or_disk_is_full")
    assert private_api.disk_errno(raised.value) is None


def own_names(tree: ast.AST) -> set[str]:
    """What a file defines: functions, classes, attributes that it sets."""
    names = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    names |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    return names | {
        n.target.id for n in ast.walk(tree) if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    }


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def foreign(tree: ast.AST, everywhere: set[str]) -> Iterator[str]:
    """Private names that a file uses of something that this package does not define."""
    here = own_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr):
            of_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if node.attr not in (everywhere if of_self else here):
                yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from (f"{node.module}: {name}" for name in names if private(name))


PUBLIC = {"os._exit"}  # documented, for all its name


def test_no_other_file_uses_private_names_of_a_library() -> None:
    trees = {path: ast.parse(path.read_text()) for path in SOURCE.rglob("*.py")}
    everywhere = set().union(*map(own_names, trees.values()))
    found = {
        f"{path.relative_to(SOURCE)}: {name}"
        for path, tree in trees.items()
        if path.name != "private_api.py"
        for name in foreign(tree, everywhere)
        if name not in PUBLIC
    }
    assert not found, "private names of other libraries belong into clip_xai/private_api.py"


def test_the_search_sees_private_names() -> None:
    tree = ast.parse("from a._b import c\nfrom a import _d\nx._e\nself._f\nself._own = 1\nself._own\n")
    assert set(foreign(tree, {"_own"})) == {"a._b: _b", "a: _d", "x._e", "self._f"}
