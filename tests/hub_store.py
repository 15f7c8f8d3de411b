"""Repositories of models on disk, as strict as the Hub: who may do what, whole blobs, commits, valid cards."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?")
LARGE = (".safetensors", ".bin", ".npz", ".pt", ".gguf")
"""As in the .gitattributes that the Hub makes."""

LARGEST_REGULAR = 10 << 20
LICENCES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "gpl-3.0", "llama3.2", "openrail", "other"}
RELATIONS = {"adapter", "finetune", "merge", "quantized"}
PIPELINES = {"text-generation", "text-classification", "feature-extraction", "token-classification"}


class RefusedError(Exception):
    """What is answered in place of what was asked for; ``code`` as in the Hub's X-Error-Code."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class User:
    """Whose a token is, and whether it may write."""

    name: str
    writes: bool = True


@dataclass(frozen=True)
class File:
    """A file of a commit: its blob's name is SHA-256 if it is large, git's SHA-1 if not."""

    oid: str
    size: int
    large: bool


def is_large(path: str, size: int, sample: bytes) -> bool:
    """Whether a file must be sent as a large one: so are all that are not text."""
    if path.endswith(LARGE) or size > LARGEST_REGULAR:
        return True
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        # A sample may end inside a character.
        return not (error.start > len(sample) - 4 and "unexpected end" in error.reason)
    return b"\0" in sample


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Store:
    """All repositories, in one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = threading.RLock()
        (root / "blobs").mkdir(parents=True, exist_ok=True)

    # Repositories

    def _path(self, repo: str) -> Path:
        parts = repo.split("/")
        if len(parts) != 2 or not all(NAME.fullmatch(part) for part in parts):
            raise RefusedError(400, f"{repo!r} is not the name of a repository")
        return self.root / "repos" / parts[0] / parts[1]

    def create(self, user: User | None, owner: str, name: str, private: bool) -> None:
        repo = f"{owner}/{name}"
        if user is None:
            raise RefusedError(401, "Invalid username or password.")
        if not user.writes or user.name != owner:
            raise RefusedError(403, f"You don't have the rights to create a model under the namespace {owner!r}")
        with self.lock:
            path = self._path(repo)
            if path.exists():
                raise RefusedError(409, "You already created this model repo")
            (path / "commits").mkdir(parents=True)
            self._write(repo, {"private": private, "branches": {}})
            self._commit(repo, "main", None, {}, "initial commit")

    def _read(self, repo: str) -> dict[str, Any]:
        path = self._path(repo) / "repo.json"
        if not path.exists():
            raise RefusedError(404, "Repository not found", "RepoNotFound")
        return json.loads(path.read_text())

    def _write(self, repo: str, content: dict[str, Any]) -> None:
        (self._path(repo) / "repo.json").write_text(json.dumps(content))

    def check_reads(self, repo: str, user: User | None) -> dict[str, Any]:
        try:
            content = self._read(repo)
        except RefusedError:
            if user is None:  # So that nobody learns which names are taken.
                raise RefusedError(401, "Repository not found", "RepoNotFound") from None
            raise
        if content["private"] and (user is None or user.name != repo.split("/")[0]):
            raise RefusedError(404 if user else 401, "Repository not found", "RepoNotFound")
        return content

    def check_writes(self, repo: str, user: User | None) -> None:
        self.check_reads(repo, user)
        if user is None:
            raise RefusedError(401, "Invalid username or password.")
        if not user.writes or user.name != repo.split("/")[0]:
            raise RefusedError(403, f"you may not write to {repo}")

    # Commits

    def files(self, repo: str, revision: str) -> tuple[str, dict[str, File]]:
        """The commit that a branch or a hash means, and its files."""
        sha = self._read(repo)["branches"].get(revision, revision)
        path = self._path(repo) / "commits" / f"{sha}.json"
        if not re.fullmatch("[0-9a-f]{40}", sha) or not path.exists():
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha, {name: File(**file) for name, file in json.loads(path.read_text())["files"].items()}

    def branch(self, repo: str, name: str) -> None:
        with self.lock:
            content = self._read(repo)
            if name in content["branches"]:
                raise RefusedError(409, f"Reference already exists: {name}")
            content["branches"][name] = content["branches"]["main"]
            self._write(repo, content)

    def commit(self, repo: str, revision: str, lines: list[dict[str, Any]]) -> str:
        """Add files; all of them or none."""
        if not lines or lines[0].get("key") != "header" or not lines[0]["value"].get("summary"):
            raise RefusedError(400, "a commit begins with a header that has a summary")
        with self.lock:
            parent, files = self.files(repo, revision)
            if revision not in self._read(repo)["branches"]:
                raise RefusedError(400, "commits go to branches")
            added = dict(self._added(line) for line in lines[1:])
            if not added:
                raise RefusedError(400, "an empty commit")
            return self._commit(repo, revision, parent, files | added, lines[0]["value"]["summary"])

    def _added(self, line: dict[str, Any]) -> tuple[str, File]:
        value = line["value"]
        path = value["path"]
        if not path or path.startswith("/") or {"", ".", "..", ".git"} & set(PurePosixPath(path).parts):
            raise RefusedError(400, f"{path!r} is not a path in a repository")
        if line["key"] == "lfsFile":
            blob = self.blob(value["oid"])
            if value["algo"] != "sha256" or not blob.exists() or blob.stat().st_size != value["size"]:
                raise RefusedError(400, f"the large file {path} was not uploaded, or not with this size")
            return path, File(value["oid"], value["size"], True)
        if line["key"] != "file" or value["encoding"] != "base64":
            raise RefusedError(400, f"unknown operation {line['key']}")
        content = base64.b64decode(value["content"], validate=True)
        if is_large(path, len(content), content[:512]):
            raise RefusedError(400, f"{path} must be sent as a large file")
        if path == "README.md" and (errors := card_problems(content.decode())[0]):
            raise RefusedError(400, "; ".join(errors))
        oid = git_sha1(content)
        self.blob(oid).write_bytes(content)
        return path, File(oid, len(content), False)

    def _commit(self, repo: str, revision: str, parent: str | None, files: dict[str, File], message: str) -> str:
        content = {"parent": parent, "message": message, "files": {n: vars(f) for n, f in sorted(files.items())}}
        shown = json.dumps(content, sort_keys=True)
        sha = hashlib.sha1(shown.encode()).hexdigest()
        (self._path(repo) / "commits" / f"{sha}.json").write_text(shown)
        known = self._read(repo)
        known["branches"][revision] = sha
        self._write(repo, known)
        return sha

    def history(self, repo: str, revision: str = "main") -> list[str]:
        """The messages of a branch's commits, the last one first."""
        sha, messages = self._read(repo)["branches"][revision], []
        while sha:
            content = json.loads((self._path(repo) / "commits" / f"{sha}.json").read_text())
            messages.append(content["message"])
            sha = content["parent"]
        return messages

    # Blobs

    def blob(self, oid: str) -> Path:
        if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", oid):
            raise RefusedError(400, f"{oid!r} is not a hash")
        return self.root / "blobs" / oid

    def put(self, oid: str, size: int, content: bytes) -> None:
        """Keep a large file, if it is what it is called."""
        if len(content) != size or hashlib.sha256(content).hexdigest() != oid:
            raise RefusedError(422, f"{len(content)} bytes that are not {oid} of {size} bytes")
        self.blob(oid).write_bytes(content)


def card_problems(content: str) -> tuple[list[str], list[str]]:
    """Errors and warnings of a card's metadata, by the Hub's rules."""
    found = re.match(r"---\r?\n(.*?)\r?\n---(?:\r?\n|$)", content, re.DOTALL)
    if not found:
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        data = yaml.safe_load(found[1])
    except yaml.YAMLError as error:
        return [f"YAML metadata is not valid: {error}"], []
    if not isinstance(data, dict):
        return ["YAML metadata is not an object"], []
    errors = []
    if "license" in data and data["license"] not in LICENCES:
        errors.append(f'"license" must be one of {sorted(LICENCES)}')
    if "base_model_relation" in data and data["base_model_relation"] not in RELATIONS:
        errors.append(f'"base_model_relation" must be one of {sorted(RELATIONS)}')
    if "pipeline_tag" in data and data["pipeline_tag"] not in PIPELINES:
        errors.append(f'"pipeline_tag" must be one of {sorted(PIPELINES)}')
    for key in ("tags", "metrics"):
        if not all(isinstance(each, str) for each in data.get(key) or []):
            errors.append(f'"{key}" must be an array of strings')
    for key in ("base_model", "datasets"):
        values = data.get(key) or []
        for value in values if isinstance(values, list) else [values]:
            if not isinstance(value, str) or not all(NAME.fullmatch(part) for part in value.split("/")):
                errors.append(f'"{key}" with value {value!r} is not valid')
    return errors + list(_index_problems(data.get("model-index", []))), []


def _index_problems(index: Any) -> list[str]:
    try:
        for model in index:
            assert isinstance(model["name"], str), "name"
            for result in model["results"]:
                assert isinstance(result["task"]["type"], str), "task.type"
                assert isinstance(result["dataset"]["type"], str), "dataset.type"
                assert isinstance(result["dataset"]["name"], str), "dataset.name"
                for metric in result["metrics"]:
                    assert isinstance(metric["type"], str), "metrics.type"
                    assert isinstance(metric["value"], int | float | str), "metrics.value"
    except (KeyError, TypeError, AssertionError) as error:
        return [f'"model-index" is not valid: {error}']
    return []
