"""Run a module of this package in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


def run(module: str, *words: object, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What the module prints as JSON in its last line.

    Raises:
        RuntimeError: it failed; the message is what it complained of.
    """
    # The same sources as here, however this process came to find them.
    found = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
    done = subprocess.run(
        [sys.executable, "-m", f"common.{module}", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": found, **(environment or {})},
    )
    if done.returncode:
        raise RuntimeError(f"{module} {words[0]} failed:\n{done.stderr}")
    content: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return content
