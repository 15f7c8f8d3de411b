"""A Hub on this machine: the HTTP that huggingface_hub speaks, over real sockets, with the files on disk."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_store import RefusedError, Store, User, card_problems, is_large

GIT_LFS = "application/vnd.git-lfs+json"
REPO = r"([^/]+/[^/]+)"


class HubServer:
    """Serves a folder until it is closed.

    ``requests`` are those that were answered, and ``breaking`` names actions, such as ``commit``, on the next of
    which the connection is cut off before anything is done.
    """

    def __init__(self, root: Path, users: dict[str, User]) -> None:
        self.store = Store(root)
        self.users = users
        self.requests: list[tuple[str, str]] = []
        self.breaking: set[str] = set()
        self.secret = secrets.token_bytes(16)
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        port = self._server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{port}"
        # Under another name, as the Hub's own storage is: the client does not show its token there.
        self.storage = f"http://localhost:{port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __enter__(self) -> HubServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def environment(self, token: str | None, home: Path) -> dict[str, str]:
        """Variables with which a child process uses this Hub; the client reads them when it is imported.

        Without Xet, whose servers are another service; what is large goes by LFS then.
        """
        found = {"HF_ENDPOINT": self.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home)}
        found |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        return found | ({"HF_TOKEN": token} if token else {})

    def sign(self, *parts: object) -> str:
        return hmac.new(self.secret, repr(parts).encode(), "sha256").hexdigest()

    def sent(self, action: str) -> int:
        """How many requests there were of an action, such as ``commit``."""
        return sum(action in path for _, path in self.requests)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    timeout = 30

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.content = self.rfile.read(length)
        split = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(split.query).items()}
        broken = next((action for action in self.hub.breaking if f"/{action}" in split.path), None)
        if broken is not None:
            self.hub.breaking.discard(broken)
            self.close_connection = True
            return
        self.hub.requests.append((self.command, split.path))
        try:
            for method, pattern, answer in ROUTES:
                found = re.fullmatch(pattern, split.path)
                if found and self.command in method:
                    answer(self, *map(unquote, found.groups()))
                    return
            raise RefusedError(404, f"no such address: {self.command} {split.path}")
        except RefusedError as error:
            headers = {"X-Error-Message": str(error)} | ({"X-Error-Code": error.code} if error.code else {})
            self._json({"error": str(error)}, error.status, headers)
        except (KeyError, TypeError, ValueError) as error:
            self._json({"error": f"malformed request: {error!r}"}, 400)

    # Parts

    def _user(self) -> User | None:
        said = self.headers.get("Authorization")
        if said is None:
            return None
        user = self.hub.users.get(said.removeprefix("Bearer "))
        if not said.startswith("Bearer ") or user is None:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        return user

    def _body(self) -> Any:
        return json.loads(self.content)

    def _send(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    # What is answered

    def whoami(self) -> None:
        user = self._user()
        if user is None:
            raise RefusedError(401, "Invalid username or password.")
        role = "write" if user.writes else "read"
        self._json({"type": "user", "name": user.name, "auth": {"accessToken": {"role": role}}, "orgs": []})

    def create(self) -> None:
        user, asked = self._user(), self._body()
        if asked.get("type", "model") != "model":
            raise RefusedError(400, "only models are kept here")
        owner = asked.get("organization") or (user.name if user else "")
        answer = {"url": f"{self.hub.endpoint}/{owner}/{asked['name']}", "name": f"{owner}/{asked['name']}"}
        try:
            self.hub.store.create(user, owner, asked["name"], asked.get("visibility") == "private")
        except RefusedError as error:
            if error.status != 409:
                raise
            # The client reads where it is from the refusal.
            self._json(answer | {"error": str(error)}, 409)
            return
        self._json(answer)

    def validate(self) -> None:
        asked = self._body()
        if asked["repoType"] != "model":
            raise RefusedError(400, "only models are kept here")
        errors, warnings = card_problems(asked["content"])
        content = {"errors": [{"message": e} for e in errors], "warnings": [{"message": w} for w in warnings]}
        self._json(content, 400 if errors else 200)

    def info(self, repo: str, revision: str = "main") -> None:
        known = self.hub.store.check_reads(repo, self._user())
        sha, files = self.hub.store.files(repo, revision)
        siblings = [{"rfilename": name} for name in files]
        self._json({"_id": repo, "id": repo, "sha": sha, "private": known["private"], "siblings": siblings})

    def tree(self, repo: str, revision: str) -> None:
        self.hub.store.check_reads(repo, self._user())
        _, files = self.hub.store.files(repo, revision)
        entries = []
        for name, file in files.items():
            entry: dict[str, Any] = {"type": "file", "path": name, "size": file.size, "oid": file.oid}
            if file.large:
                entry["lfs"] = {"oid": file.oid, "size": file.size, "pointerSize": 134}
            entries.append(entry)
        self._json(entries)

    def branch(self, repo: str, name: str) -> None:
        self.hub.store.check_writes(repo, self._user())
        self.hub.store.branch(repo, name)
        self._json({})

    def preupload(self, repo: str, revision: str) -> None:
        self.hub.store.check_writes(repo, self._user())
        _, known = self.hub.store.files(repo, revision)
        answers = []
        for asked in self._body()["files"]:
            sample = base64.b64decode(asked["sample"], validate=True)
            if len(sample) != min(512, asked["size"]):
                raise RefusedError(400, f"a sample of {len(sample)} bytes of {asked['size']}")
            mode = "lfs" if is_large(asked["path"], asked["size"], sample) else "regular"
            answer = {"path": asked["path"], "uploadMode": mode, "shouldIgnore": False}
            if asked["path"] in known:
                answer["oid"] = known[asked["path"]].oid
            answers.append(answer)
        self._json({"files": answers})

    def commit(self, repo: str, revision: str) -> None:
        self.hub.store.check_writes(repo, self._user())
        if self.headers["Content-Type"] != "application/x-ndjson":
            raise RefusedError(400, "a commit is NDJSON")
        lines = [json.loads(line) for line in self.content.splitlines()]
        sha = self.hub.store.commit(repo, revision, lines)
        self._json({"commitUrl": f"{self.hub.endpoint}/{repo}/commit/{sha}", "commitOid": sha, "success": True})

    def batch(self, repo: str) -> None:
        self.hub.store.check_writes(repo, self._user())
        asked = self._body()
        if not self.headers["Content-Type"].startswith(GIT_LFS) or asked["operation"] != "upload":
            raise RefusedError(400, f"expected an upload in {GIT_LFS}")
        if asked["hash_algo"] != "sha256" or "basic" not in asked["transfers"]:
            raise RefusedError(400, "expected sha256 and basic transfers")
        objects = []
        for each in asked["objects"]:
            oid, size = each["oid"], each["size"]
            answer = {"oid": oid, "size": size}
            if not self.hub.store.blob(oid).exists():
                query = f"{oid}?size={size}&sign={self.hub.sign('put', oid, size)}"
                verify = {"href": f"{self.hub.endpoint}/{repo}.git/info/lfs/objects/verify"}
                answer["actions"] = {"upload": {"href": f"{self.hub.storage}/storage/{query}"}, "verify": verify}
            objects.append(answer)
        self._json({"transfer": "basic", "objects": objects}, headers={"Content-Type": GIT_LFS})

    def put(self, oid: str) -> None:
        size = int(self.query["size"])
        if not hmac.compare_digest(self.query["sign"], self.hub.sign("put", oid, size)):
            raise RefusedError(403, "SignatureDoesNotMatch")
        if "Authorization" in self.headers:
            raise RefusedError(400, "a token was sent to the storage")
        self.hub.store.put(oid, size, self.content)
        self._send(b"", headers={"ETag": f'"{hashlib.md5(self.content).hexdigest()}"'})

    def verify(self, repo: str) -> None:
        self.hub.store.check_writes(repo, self._user())
        blob = self.hub.store.blob(self._body()["oid"])
        if not blob.exists() or blob.stat().st_size != self._body()["size"]:
            raise RefusedError(404, "not uploaded")
        self._json({})

    def resolve(self, repo: str, revision: str, path: str) -> None:
        self.hub.store.check_reads(repo, self._user())
        sha, files = self.hub.store.files(repo, revision)
        if path not in files:
            raise RefusedError(404, f"{path} does not exist on {revision}", "EntryNotFound")
        file = files[path]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{file.oid}"'}
        if not file.large:
            self._part(self.hub.store.blob(file.oid).read_bytes(), headers)
            return
        location = f"{self.hub.storage}/cdn/{file.oid}?sign={self.hub.sign('get', file.oid)}"
        linked = {"X-Linked-Etag": f'"{file.oid}"', "X-Linked-Size": str(file.size), "Location": location}
        self._send(b"", 302, headers | linked)

    def cdn(self, oid: str) -> None:
        if not hmac.compare_digest(self.query["sign"], self.hub.sign("get", oid)):
            raise RefusedError(403, "SignatureDoesNotMatch")
        if "Authorization" in self.headers:
            raise RefusedError(400, "a token was sent to the storage")
        self._part(self.hub.store.blob(oid).read_bytes(), {"ETag": f'"{oid}"'})

    def _part(self, content: bytes, headers: dict[str, str]) -> None:
        """All of a file, or the range of it that was asked for."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is None:
            self._send(content, 200, headers)
            return
        first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
        if first > last:
            raise RefusedError(416, f"there are {len(content)} bytes")
        span = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        self._send(content[first : last + 1], 206, headers | span)


ROUTES = [
    (("GET",), "/api/whoami-v2", _Handler.whoami),
    (("POST",), "/api/repos/create", _Handler.create),
    (("POST",), "/api/validate-yaml", _Handler.validate),
    (("GET",), f"/api/models/{REPO}", _Handler.info),
    (("GET",), f"/api/models/{REPO}/revision/([^/]+)", _Handler.info),
    (("GET",), f"/api/models/{REPO}/tree/([^/]+)", _Handler.tree),
    (("POST",), f"/api/models/{REPO}/branch/([^/]+)", _Handler.branch),
    (("POST",), f"/api/models/{REPO}/preupload/([^/]+)", _Handler.preupload),
    (("POST",), f"/api/models/{REPO}/commit/([^/]+)", _Handler.commit),
    (("POST",), rf"/{REPO}\.git/info/lfs/objects/batch", _Handler.batch),
    (("POST",), rf"/{REPO}\.git/info/lfs/objects/verify", _Handler.verify),
    (("PUT",), "/storage/([0-9a-f]{64})", _Handler.put),
    (("GET", "HEAD"), f"/{REPO}/resolve/([^/]+)/(.+)", _Handler.resolve),
    (("GET", "HEAD"), "/cdn/([0-9a-f]{64})", _Handler.cdn),
]
