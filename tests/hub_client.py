"""People who use the tests' Hub, each in a process of their own, since the client reads the Hub's address once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from hub_server import HubServer
from hub_store import User

TOKENS = {"hf_me": User("me"), "hf_read": User("me", writes=False), "hf_you": User("you")}

Ended = tuple[int, str, str]
"""Exit code, standard output, standard error."""


def child(hub: HubServer, home: Path, words: list[object], token: str | None, **variables: str) -> Ended:
    """Run Python as somebody who uses this Hub."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env = inherited | hub.environment(token, home) | {"COLUMNS": "200"} | variables
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        cwd=home,
    )
    return done.returncode, done.stdout, done.stderr


def push(hub: HubServer, home: Path, *words: object, token: str | None = "hf_me", **variables: str) -> Ended:
    return child(hub, home, ["-m", "shared_seed", "push", *words], token, **variables)


def fetch(hub: HubServer, home: Path, repo: str, token: str | None = "hf_me", revision: str = "main") -> Path:
    """Download all of a repository, as its README says, file by file."""
    target = home / "fetched"
    shutil.rmtree(target, ignore_errors=True)
    code = (
        "import sys; from huggingface_hub import HfApi, hf_hub_download\n"
        "repo, revision, target = sys.argv[1:]\n"
        "for name in HfApi().list_repo_files(repo, revision=revision):\n"
        "    hf_hub_download(repo, name, revision=revision, local_dir=target)"
    )
    done = child(hub, home, ["-c", code, repo, revision, target], token)
    assert done[0] == 0, done[2]
    return target


def contents_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
