"""A Hugging Face Hub of our own: an HTTP server in a thread that the real huggingface_hub client talks to.

with Hub() as hub:                              # HF_ENDPOINT=hub.url, HF_TOKEN="hf_writer"
    ...                                         # HfApi().create_repo, create_commit, upload_folder, snapshot_download
    hub.repos["dataset", "writer/name"].files   # path -> bytes, as the last commit left them

Only what those calls need is there.  Files whose names match `lfs` go the way of Git LFS (the client must run with
HF_HUB_DISABLE_XET=1: there is no Xet here), all others travel in the commit.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKENS = {"hf_writer": "writer"}  # token -> the user it belongs to; a user writes in his own namespace alone
READ_TOKEN = "hf_reader"  # valid, and may write nowhere


@dataclass
class Commit:
    """What one commit changed: message, path -> bytes added, paths deleted."""

    message: str
    added: dict[str, bytes]
    deleted: list[str]


@dataclass
class Repo:
    private: bool
    commits: list[Commit] = field(default_factory=list)

    @property
    def files(self) -> dict[str, bytes]:
        """The tree after the last commit."""
        files: dict[str, bytes] = {}
        for commit in self.commits:
            files = {path: content for path, content in files.items() if path not in commit.deleted} | commit.added
        return files

    @property
    def sha(self) -> str:
        """Of the head: a hash of the whole history."""
        text = repr([(c.message, sorted((p, blob_id(b)) for p, b in c.added.items()), c.deleted) for c in self.commits])
        return hashlib.sha1(text.encode()).hexdigest()


class Refused(Exception):
    """An answer other than 200: its status, what it says, and the Hub's own code for it."""

    def __init__(self, status: int, said: str, code: str = "", **more: str) -> None:
        super().__init__(status, said)
        self.status, self.body = status, {"error": said} | more
        self.headers = {"X-Error-Code": code} if code else {}


class Hub:
    """The server.  `faults[action]` are statuses to answer with, one a call; `waits[action]` is an event to wait for.

    Actions: create, validate, preupload, commit, batch, upload, info, tree, paths, resolve.
    """

    def __init__(self, lfs: tuple[str, ...] = ()) -> None:
        self.lfs = lfs
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}  # what came by LFS: sha256 -> content
        self.calls: list[str] = []
        self.faults: dict[str, list[int]] = {}
        self.waits: dict[str, threading.Event] = {}

    def __enter__(self) -> Hub:
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for event in self.waits.values():
            event.set()
        self.server.shutdown()
        self.server.server_close()

    def repo(self, kind: str, name: str) -> Repo:
        if (kind, name) not in self.repos:
            raise Refused(404, "Repository not found", "RepoNotFound")
        return self.repos[kind, name]


def blob_id(content: bytes) -> str:
    """Git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


REPO = r"(?P<kind>dataset|model|space)s/(?P<name>[^/]+/[^/]+)"
ROUTES = [
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("POST", rf"/api/{REPO}/preupload/[^/]+", "preupload"),
    ("POST", rf"/api/{REPO}/commit/[^/]+", "commit"),
    ("POST", rf"/api/{REPO}/paths-info/[^/]+", "paths"),
    ("GET", rf"/api/{REPO}/tree/[^/]+/?(?P<path>.*)", "tree"),
    ("GET", rf"/api/{REPO}(/revision/[^/]+)?", "info"),
    ("POST", r"/(?:(?P<kind>dataset|space)s/)?(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/objects/(?P<oid>[0-9a-f]{64})", "upload"),
    ("GET", r"/(?:(?P<kind>dataset|space)s/)?(?P<name>[^/]+/[^/]+)/resolve/[^/]+/(?P<path>.+)", "resolve"),
]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        """Find the action of the request, do it, send its answer: bytes, or a value as JSON; with headers or without."""
        self.body = self.read_body()
        path = unquote(urlsplit(self.path).path)
        method = "GET" if self.command == "HEAD" else self.command
        found = ((re.fullmatch(pattern, path), action) for verb, pattern, action in ROUTES if verb == method)
        match, action = next(((m, action) for m, action in found if m), (None, ""))
        try:
            if match is None:
                raise Refused(404, f"{self.command} {path}: the stand-in has no such address")
            self.hub.calls.append(action)
            if action in self.hub.waits:
                self.hub.waits[action].wait()
            if self.hub.faults.get(action):
                raise Refused(self.hub.faults[action].pop(0), "a fault of the stand-in")
            fields = {key: value or "" for key, value in match.groupdict().items()}
            if "kind" in fields:
                fields["kind"] = fields["kind"] or "model"
            value = getattr(self, f"do_{action}")(**fields)
            self.send(200, *(value if isinstance(value, tuple) else (value,)))
        except Refused as refusal:
            self.send(refusal.status, refusal.body, refusal.headers)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def user(self) -> str:
        """Whose token came with the request."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in TOKENS and token != READ_TOKEN:
            raise Refused(401, "Invalid username or password.")
        return TOKENS.get(token, "")

    def may_write(self, name: str) -> None:
        if name.partition("/")[0] != self.user():
            raise Refused(403, f"You don't have the rights to write under {name.partition('/')[0]}")

    def readable(self, kind: str, name: str) -> Repo:
        repo = self.hub.repo(kind, name)
        if repo.private:
            self.may_write(name)
        return repo

    def do_create(self) -> Any:
        asked = json.loads(self.body)
        kind, owner = asked.get("type", "model"), asked.get("organization") or self.user()
        name = f"{owner}/{asked['name']}"
        url = f"{self.hub.url}/{'' if kind == 'model' else kind + 's/'}{name}"
        self.may_write(name)
        if (kind, name) in self.hub.repos:
            raise Refused(409, "You already created this repo", url=url)
        self.hub.repos[kind, name] = Repo(asked.get("visibility") == "private")
        return {"url": url}

    def do_validate(self) -> Any:
        import yaml

        try:
            parts = json.loads(self.body)["content"].split("---\n", 2)
            assert isinstance(yaml.safe_load(parts[1]), dict)
        except (IndexError, AssertionError, yaml.YAMLError) as error:
            raise Refused(400, f"front matter: {error}") from None
        return {"errors": [], "warnings": []}

    def do_preupload(self, kind: str, name: str) -> Any:
        self.may_write(name)
        files = self.hub.repo(kind, name).files
        return {"files": [
            {"path": path, "uploadMode": "lfs" if self.is_lfs(path) else "regular", "shouldIgnore": False,
             "oid": self.oid(path, files[path]) if path in files else None}
            for path in (entry["path"] for entry in json.loads(self.body)["files"])
        ]}  # fmt: skip

    def is_lfs(self, path: str) -> bool:
        return any(fnmatch.fnmatch(path, pattern) for pattern in self.hub.lfs)

    def oid(self, path: str, content: bytes) -> str:
        return hashlib.sha256(content).hexdigest() if self.is_lfs(path) else blob_id(content)

    def do_commit(self, kind: str, name: str) -> Any:
        self.may_write(name)
        repo = self.hub.repo(kind, name)
        commit = Commit("", {}, [])
        for key, value in ((line["key"], line["value"]) for line in map(json.loads, self.body.splitlines())):
            if key == "header":
                commit.message = value["summary"]
            elif key == "file":
                commit.added[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                commit.added[value["path"]] = self.hub.objects[value["oid"]]
            elif key == "deletedFile":
                commit.deleted.append(value["path"])
            else:
                raise Refused(400, f"commit: the stand-in knows no {key}")
        repo.commits.append(commit)
        return {"commitUrl": f"{self.hub.url}/{kind}s/{name}/commit/{repo.sha}", "commitOid": repo.sha}

    def do_batch(self, kind: str, name: str) -> Any:
        self.may_write(name)
        objects = [{"oid": entry["oid"], "size": entry["size"]} for entry in json.loads(self.body)["objects"]]
        for entry in objects:
            if entry["oid"] not in self.hub.objects:
                entry["actions"] = {"upload": {"href": f"{self.hub.url}/objects/{entry['oid']}"}}
        return {"transfer": "basic", "objects": objects}

    def do_upload(self, oid: str) -> Any:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, "the content does not have this sha256")
        self.hub.objects[oid] = self.body
        return {}

    def do_info(self, kind: str, name: str) -> Any:
        repo = self.readable(kind, name)
        siblings = [{"rfilename": path} for path in sorted(repo.files)]
        return {"id": name, "sha": repo.sha, "private": repo.private, "siblings": siblings, "tags": [], "gated": False}

    def do_tree(self, kind: str, name: str, path: str) -> Any:
        below = f"{path}/" if path else ""
        files = self.readable(kind, name).files
        recursive = "recursive=true" in urlsplit(self.path).query.lower()
        folders = {f[: f.index("/", len(below))] for f in files if f.startswith(below) and "/" in f[len(below) :]}
        inside = [f for f in files if f.startswith(below) and (recursive or "/" not in f[len(below) :])]
        if not inside and not folders:
            raise Refused(404, "no such folder", "EntryNotFound")
        return [*({"type": "directory", "oid": "0" * 40, "size": 0, "path": one} for one in sorted(folders)),
                *(self.entry(one, files[one]) for one in sorted(inside))]  # fmt: skip

    def do_paths(self, kind: str, name: str) -> Any:
        files = self.readable(kind, name).files
        return list(self.named(parse_qs(self.body.decode())["paths"], files))

    def named(self, paths: list[str], files: dict[str, bytes]) -> Iterator[Any]:
        for path in paths:
            if path in files:
                yield self.entry(path, files[path])
            elif any(one.startswith(f"{path}/") for one in files):
                yield {"type": "directory", "oid": "0" * 40, "size": 0, "path": path}

    def entry(self, path: str, content: bytes) -> Any:
        return {"type": "file", "oid": blob_id(content), "size": len(content), "path": path}

    def do_resolve(self, kind: str, name: str, path: str) -> Any:
        repo = self.readable(kind, name)
        if path not in repo.files:
            raise Refused(404, "no such file", "EntryNotFound")
        return repo.files[path], {"ETag": f'"{blob_id(repo.files[path])}"', "X-Repo-Commit": repo.sha}
