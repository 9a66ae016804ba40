"""A small Hub on 127.0.0.1 that speaks its protocol to the unmodified ``huggingface_hub`` client.

It keeps repositories with all their revisions in memory, knows users by their tokens, hides private repositories, and
cuts connections when a test asks for it. Processes under test run with :meth:`LoopbackHub.environment`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_aliceAliceAliceAliceAliceAliceAlice"
LARGE_FILES = (".safetensors", ".png")  # go through LFS, as on the real Hub
KINDS = {"model": "", "dataset": "datasets/", "space": "spaces/"}


@dataclass
class Repository:
    """One repository: branch -> commits, oldest first; a commit is (sha, path -> content)."""

    private: bool
    branches: dict[str, list[tuple[str, dict[str, bytes]]]] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        history = self.branches.setdefault(branch, [])
        parent = history[-1][0] if history else branch
        sha = hashlib.sha1(repr((parent, sorted(files.items()))).encode()).hexdigest()
        history.append((sha, files))
        return sha

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        return next((one for history in self.branches.values() for one in history if one[0] == revision), None)


@dataclass
class LoopbackHub:
    """The server's state, which a test may read and change while it runs.

    Attributes:
        users: token -> user name.
        repositories: (kind, id) -> repository.
        requests: every request as "METHOD path", in order.
        cut_uploads: so many uploads of large files break off in the middle.
        cut_commits: so many commits break off in the middle.
        cut_downloads: downloads of files whose path ends with this break off in the middle.
    """

    users: dict[str, str] = field(default_factory=lambda: {TOKEN: "alice"})
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    large_files: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    cut_uploads: int = 0
    cut_commits: int = 0
    cut_downloads: str | None = None
    endpoint: str = ""

    def add(self, repo_id: str, files: Mapping[str, bytes], *, kind: str = "model", private: bool = False) -> str:
        """Put files into a repository without going through HTTP, and return the commit."""
        repository = self.repositories.setdefault((kind, repo_id), Repository(private))
        before = repository.branches.get("main", [("", {})])[-1][1]
        return repository.commit("main", {**before, **files})

    def add_folder(self, repo_id: str, folder: Path, **options: Any) -> str:
        """Put a folder's files into a repository."""
        return self.add(repo_id, {file.name: file.read_bytes() for file in folder.iterdir()}, **options)

    def files(self, repo_id: str, revision: str = "main", *, kind: str = "model") -> dict[str, bytes]:
        """Return the files of a revision."""
        found = self.repositories[kind, repo_id].at(revision)
        assert found is not None
        return found[1]

    def environment(self, home: Path, *, token: str | None = None, offline: bool = False) -> dict[str, str]:
        """Return the environment of a process that uses this Hub, with a cache of its own below ``home``."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        own = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_PROMPTING_CACHE": str(home / "hf_prompting"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "1" if offline else "0",
            "NO_PROXY": "127.0.0.1",
        }
        return {**kept, **own, **({"HF_TOKEN": token} if token else {})}


@contextmanager
def loopback_hub() -> Iterator[LoopbackHub]:
    """Run a Hub until the block ends."""
    hub = LoopbackHub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


_NAME = r"(?P<id>[\w.-]+(?:/[\w.-]+)?)"
_API = rf"/api/(?P<kind>model|dataset|space)s/{_NAME}"
_FILE = rf"/(?P<prefix>datasets/|spaces/)?{_NAME}"
ROUTES: tuple[tuple[str, str, str], ...] = (
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", rf"{_API}/branch/(?P<branch>[^/]+)", "branch"),
    ("POST", rf"{_API}/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", rf"{_API}/commit/(?P<revision>[^/]+)", "commit"),
    ("POST", rf"{_API}/paths-info/(?P<revision>[^/]+)", "paths_info"),
    ("GET", rf"{_API}/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?", "tree"),
    ("GET", rf"{_API}(?:/revision/(?P<revision>[^/]+))?", "info"),
    ("POST", rf"{_FILE}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs_upload"),
    ("HEAD", rf"{_FILE}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    ("GET", rf"{_FILE}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
)


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        path = urlsplit(self.path).path
        for method, pattern, action in ROUTES:
            found = re.fullmatch(pattern, path)
            if method == self.command and found:
                values = {name: unquote(value) for name, value in found.groupdict().items() if value is not None}
                try:
                    getattr(self, action)(**values)
                except _Refused as refused:
                    self.answer({"error": str(refused)}, refused.status, **{"X-Error-Code": refused.code})
                return
        self.answer({"error": "no such page"}, 404)

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        if status >= 400:
            self.send_header("X-Error-Message", json.loads(body)["error"])
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def cut(self) -> None:
        """Reset the connection, as a cable that is pulled."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.wfile.flush()
        self.connection.close()
        self.close_connection = True

    def user(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.users:
            raise _Refused(401, "", "Invalid credentials in Authorization header")
        return self.hub.users.get(token)

    def repository(self, kind: str, repo_id: str, *, write: bool = False) -> Repository:
        user, owner = self.user(), repo_id.partition("/")[0]
        found = self.hub.repositories.get((kind, repo_id))
        if found is None or (found.private and user != owner):
            raise _Refused(401 if user is None else 404, "RepoNotFound", "Repository not found")
        if write and user != owner:
            raise _Refused(403, "", "You have no write access to this repository")
        return found

    def revision(self, repository: Repository, revision: str) -> tuple[str, dict[str, bytes]]:
        found = repository.at(revision)
        if found is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    def create(self) -> None:
        asked = json.loads(self.body())
        user = self.user()
        if user is None:
            raise _Refused(401, "", "Invalid username or password.")
        owner, kind = asked.get("organization") or user, asked.get("type") or "model"
        if owner != user:
            raise _Refused(403, "", f"You may not create a repository for {owner}")
        repo_id = f"{owner}/{asked['name']}"
        answer = {"url": f"{self.hub.endpoint}/{KINDS[kind]}{repo_id}", "name": repo_id}
        if (kind, repo_id) in self.hub.repositories:
            return self.answer({**answer, "error": "You already created this repo"}, 409)
        repository = Repository(private=asked.get("visibility") == "private" or bool(asked.get("private")))
        repository.commit("main", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        self.hub.repositories[kind, repo_id] = repository
        return self.answer(answer)

    def validate_yaml(self) -> None:
        content = json.loads(self.body())["content"]
        found = re.match(r"---\n(.*?)\n---\s", content, flags=re.DOTALL)
        try:
            header = yaml.safe_load(found.group(1)) if found else {}
            problem = None if isinstance(header, dict) else "the metadata is no mapping"
        except yaml.YAMLError as error:
            problem = str(error)
        errors = [{"message": problem}] if problem else []
        self.answer({"errors": errors, "warnings": [], "error": problem}, 400 if problem else 200)

    def whoami(self) -> None:
        user = self.user()
        if user is None:
            raise _Refused(401, "", "Invalid username or password.")
        self.answer({"name": user, "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def branch(self, kind: str, id: str, branch: str) -> None:
        repository = self.repository(kind, id, write=True)
        start = json.loads(self.body() or b"{}").get("startingPoint", "main")
        if branch in repository.branches:
            raise _Refused(409, "", "Reference already exists")
        repository.branches[branch] = [self.revision(repository, start)]
        self.answer({})

    def preupload(self, kind: str, id: str, revision: str) -> None:
        self.revision(self.repository(kind, id, write=True), revision)
        names = [file["path"] for file in json.loads(self.body())["files"]]
        modes = {name: "lfs" if name.endswith(LARGE_FILES) else "regular" for name in names}
        self.answer({"files": [{"path": name, "uploadMode": modes[name], "shouldIgnore": False} for name in names]})

    def lfs_batch(self, id: str, prefix: str = "") -> None:
        self.repository(_kind(prefix), id, write=True)
        objects = []
        for one in json.loads(self.body())["objects"]:
            known = one["oid"] in self.hub.large_files
            upload = {"upload": {"href": f"{self.hub.endpoint}/lfs/{one['oid']}", "header": {}}}
            objects.append({**one, **({} if known else {"actions": upload})})
        self.answer({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str) -> None:
        if self.hub.cut_uploads:
            self.hub.cut_uploads -= 1
            self.rfile.read(1)
            return self.cut()
        content = self.body()
        if hashlib.sha256(content).hexdigest() != oid:
            raise _Refused(400, "", "the content does not match its checksum")
        self.hub.large_files[oid] = content
        return self.answer({})

    def commit(self, kind: str, id: str, revision: str) -> None:
        repository = self.repository(kind, id, write=True)
        if self.hub.cut_commits:
            self.hub.cut_commits -= 1
            self.rfile.read(1)
            return self.cut()
        _, before = self.revision(repository, revision)
        files = dict(before)
        for line in self.body().splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.large_files[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        sha = repository.commit(revision, files)
        return self.answer({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.endpoint}/{id}/commit/{sha}"})

    def info(self, kind: str, id: str, revision: str = "main") -> None:
        repository = self.repository(kind, id)
        sha, files = self.revision(repository, revision)
        siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
        shared = {"id": id, "modelId": id, "sha": sha, "private": repository.private, "tags": [], "downloads": 0}
        self.answer({**shared, "siblings": siblings, "cardData": {}, "likes": 0, "gated": False, "disabled": False})

    def tree(self, kind: str, id: str, revision: str, path: str = "") -> None:
        _, files = self.revision(self.repository(kind, id), revision)
        below = path.rstrip("/") + "/" if path else ""
        deep = parse_qs(urlsplit(self.path).query).get("recursive", ["False"])[0].lower() in ("true", "1")
        names = [name for name in files if name.startswith(below) and (deep or "/" not in name[len(below) :])]
        folders = {name[: name.index("/", len(below))] for name in files if "/" in name[len(below) :]}
        listed = [_entry(name, files[name]) for name in names]
        self.answer(listed + [{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in folders])

    def paths_info(self, kind: str, id: str, revision: str) -> None:
        _, files = self.revision(self.repository(kind, id), revision)
        body = self.body().decode()
        asked = json.loads(body) if body.startswith("{") else parse_qs(body)
        self.answer([_entry(name, files[name]) for name in asked.get("paths", []) if name in files])

    def resolve(self, id: str, revision: str, path: str, prefix: str = "") -> None:
        sha, files = self.revision(self.repository(_kind(prefix), id), revision)
        if path not in files:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        content = files[path]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        if self.command == "GET" and self.hub.cut_downloads and path.endswith(self.hub.cut_downloads):
            self.send_response(200)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            return self.cut()
        first = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if first is None:
            return self.answer(content, **headers)
        start = int(first.group(1))
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.answer(content[start:], 206, **headers)


def _kind(prefix: str) -> str:
    return next(kind for kind, begin in KINDS.items() if begin == prefix)


def _entry(name: str, content: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return {"type": "file", "path": name, "size": len(content), "oid": oid}
