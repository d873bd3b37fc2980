"""The loopback hub against the public client, which is the judge of what a hub must answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from tests.support.hub import LoopbackHub


def test_files_listings_and_revisions_are_served(tmp_path: Path) -> None:
    with LoopbackHub() as hub:
        first = hub.add("org/model", {"config.json": "{}", "deep/weights.bin": b"\x00\x01" * 5000})
        second = hub.add("org/model", {"config.json": '{"a": 1}'})
        options = {"endpoint": hub.endpoint, "cache_dir": tmp_path}
        api = HfApi(endpoint=hub.endpoint)
        assert api.model_info("org/model").sha == second
        assert sorted(api.list_repo_files("org/model")) == ["config.json", "deep/weights.bin"]
        assert Path(hf_hub_download("org/model", "config.json", **options)).read_text() == '{"a": 1}'
        folder = Path(snapshot_download("org/model", revision=first, **options))
        assert (folder / "config.json").read_text() == "{}"
        assert (folder / "deep" / "weights.bin").read_bytes() == b"\x00\x01" * 5000
        with pytest.raises(EntryNotFoundError):
            hf_hub_download("org/model", "nothing.json", **options)
        with pytest.raises(RepositoryNotFoundError):
            hf_hub_download("org/other", "config.json", **options)
        with pytest.raises(RevisionNotFoundError):
            hf_hub_download("org/model", "config.json", revision="0" * 40, **options)


def test_uploads_become_commits(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (tmp_path / "model" / "model.safetensors").write_bytes(bytes(range(256)) * 100)
    with LoopbackHub() as hub:
        api = HfApi(endpoint=hub.endpoint, token="hf_any")
        api.create_repo("tester/mine", exist_ok=True)
        api.create_repo("tester/mine", exist_ok=True)
        info = api.upload_folder(repo_id="tester/mine", folder_path=tmp_path / "model", commit_message="first")
        assert hub.files("tester/mine")["model.safetensors"] == bytes(range(256)) * 100
        assert hub.revisions("tester/mine")[-1] == info.oid
        api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="tester/mine")
        assert sorted(hub.files("tester/mine")) == ["README.md", "config.json", "model.safetensors"]
        assert "POST /api/models/tester/mine/commit/main" in hub.requests


def test_this_process_is_pointed_at_the_hub_and_set_back(tmp_path: Path) -> None:
    from huggingface_hub import constants

    before = constants.ENDPOINT, constants.HF_HUB_CACHE
    with LoopbackHub() as hub, hub.reachable(tmp_path):
        hub.add("org/model", {"a.txt": "text"})
        assert Path(hf_hub_download("org/model", "a.txt")).read_text() == "text"
    assert before == (constants.ENDPOINT, constants.HF_HUB_CACHE)
