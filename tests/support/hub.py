"""A Hugging Face hub on loopback: the libraries' real loading and uploading code runs against it, without a network.

    with LoopbackHub() as hub:
        hub.add("org/model", {"config.json": b"{}"})
        HfApi(endpoint=hub.endpoint, token="any").model_info("org/model")

It serves models alone: files (``resolve``), listings (``api/models``), new repositories, and commits with their
``preupload``. Whatever is asked is kept in ``requests``, so that a test can tell that nothing was asked at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

Files = dict[str, bytes]
_RESOLVE = re.compile(r"^/(?P<repo>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<file>.+)$")
_API = re.compile(
    r"^/api/models/(?P<repo>[^/]+(?:/[^/]+)?)(?:/(?P<verb>revision|tree|preupload|commit)/(?P<rest>.+))?$"
)


class LoopbackHub:
    """The hub's repositories and the server in front of them.

    Attributes:
        endpoint: ``http://127.0.0.1:PORT``, as in ``HF_ENDPOINT``.
        requests: ``METHOD PATH`` of everything that was asked.
    """

    def __init__(self) -> None:
        self._commits: dict[str, list[tuple[str, Files]]] = {}
        self.requests: list[str] = []
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> LoopbackHub:
        """Start serving."""
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def add(self, repository: str, files: Mapping[str, bytes | str] | Path) -> str:
        """Commit files (or all files of a folder) on top of a repository, made if need be; return the revision."""
        if isinstance(files, Path):
            files = {str(f.relative_to(files)): f.read_bytes() for f in sorted(files.rglob("*")) if f.is_file()}
        content = {name: data.encode() if isinstance(data, str) else data for name, data in files.items()}
        commits = self._commits.setdefault(repository, [])
        state = {**(commits[-1][1] if commits else {}), **content}
        digest = hashlib.sha1(repr((len(commits), sorted((k, _oid(v)) for k, v in state.items()))).encode()).hexdigest()
        commits.append((digest, state))
        return digest

    def create(self, repository: str) -> None:
        """Make an empty repository."""
        if repository not in self._commits:
            self.add(repository, {})

    def has(self, repository: str) -> bool:
        """Tell whether a repository is there."""
        return repository in self._commits

    def revisions(self, repository: str) -> list[str]:
        """Return a repository's revisions, oldest first."""
        return [digest for digest, _ in self._commits[repository]]

    def files(self, repository: str, revision: str = "main") -> Files:
        """Return a repository's files at a revision (``main`` or a commit's digest)."""
        return self.at(repository, revision)[1]

    def at(self, repository: str, revision: str) -> tuple[str, Files]:
        """Return the commit of a revision.

        Raises:
            LookupError: There is no such repository or revision; the message is the hub's error code.
        """
        if repository not in self._commits:
            raise LookupError("RepoNotFound")
        for digest, files in reversed(self._commits[repository]):
            if revision in ("main", digest):
                return digest, files
        raise LookupError("RevisionNotFound")

    @contextmanager
    def reachable(self, cache: Path) -> Iterator[LoopbackHub]:
        """Point this process's huggingface_hub at the hub, with an empty cache, and set it back afterwards."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_ENDPOINT", self.endpoint)
            patch.setenv("HF_HUB_CACHE", str(cache))
            patch.delenv("HF_HUB_OFFLINE", raising=False)
            # The library reads the environment once, at import.
            patch.setattr(constants, "ENDPOINT", self.endpoint)
            patch.setattr(constants, "HF_HUB_CACHE", str(cache))
            patch.setattr(
                constants,
                "HUGGINGFACE_CO_URL_TEMPLATE",
                self.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            )
            patch.setattr(constants, "HF_HUB_OFFLINE", False)
            yield self


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self, what: Any) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            what(path, body)
        except LookupError as error:
            code = str(error.args[0])
            self._send(b"", 404, {"X-Error-Code": code, "X-Error-Message": code})

    def _get(self, path: str, body: bytes) -> None:
        if path == "/api/whoami-v2":
            return self._json({"type": "user", "name": "tester", "orgs": [], "auth": {"accessToken": {}}})
        if found := _RESOLVE.match(path):
            commit, files = self.hub.at(found["repo"], found["revision"])
            if found["file"] not in files:
                raise LookupError("EntryNotFound")
            return self._file(commit, files[found["file"]])
        found = _API.match(path)
        if not found or found["verb"] not in (None, "revision", "tree"):
            raise LookupError("RepoNotFound")
        revision = (found["rest"] or "main").split("/")[0]
        commit, files = self.hub.at(found["repo"], revision)
        if found["verb"] == "tree":
            return self._json([_entry(name, data) for name, data in sorted(files.items())])
        siblings = [{"rfilename": name} for name in sorted(files)]
        facts = {"private": False, "gated": False, "disabled": False, "tags": [], "downloads": 0, "likes": 0}
        self._json({"_id": commit, "id": found["repo"], "modelId": found["repo"], "sha": commit, **facts} | {
            "siblings": siblings
        })  # fmt: skip
        return None

    def _post(self, path: str, body: bytes) -> None:
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'tester'}/{asked['name']}"
            taken = self.hub.has(name)
            self.hub.create(name)
            url = f"{self.hub.endpoint}/{name}"
            return self._json({"url": url, "name": name, "id": name, "error": "exists"}, 409 if taken else 200)
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        found = _API.match(path)
        if not found or found["verb"] not in ("preupload", "commit"):
            raise LookupError("RepoNotFound")
        _, files = self.hub.at(found["repo"], found["rest"])
        if found["verb"] == "preupload":
            names = [entry["path"] for entry in json.loads(body)["files"]]
            oids = {name: _oid(files[name]) if name in files else None for name in names}
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            return self._json({"files": [{"path": name, "oid": oids[name], **modes} for name in names]})
        added: Files = {}
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                added[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        commit = self.hub.add(found["repo"], added)
        return self._json({"commitUrl": f"{self.hub.endpoint}/{found['repo']}/commit/{commit}", "commitOid": commit})

    def _file(self, commit: str, data: bytes) -> None:
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_oid(data)}"', "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return self._send(data, 200, headers)
        first, last = int(asked[1]), int(asked[2] or len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return self._send(data[first : last + 1], 206, headers)

    def _json(self, value: object, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

    def _send(self, data: bytes, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _oid(data: bytes) -> str:
    """Git's own digest of a file."""
    return hashlib.sha1(b"blob %d\x00" % len(data) + data).hexdigest()


def _entry(name: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(data), "oid": _oid(data)}
