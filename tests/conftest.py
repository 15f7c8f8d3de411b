"""What every test has: no network, a cache of its own, and the same generators at the start."""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Before any import of Hugging Face libraries: they read these once. Child processes inherit them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("HF_DATASETS_CACHE", tempfile.mkdtemp(prefix="shared-seed-tests-datasets-"))
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import pytest
import torch
from hypothesis import settings

if not torch.cuda.is_available():
    # Before any import of Triton, which reads it once: kernels run on the CPU.
    os.environ["TRITON_INTERPRET"] = "1"

# A key of the tests' own, the same every time, so that runs are reproducible.
KEY_FILE = Path(tempfile.mkdtemp(prefix="shared-seed-tests-key-")) / "key"
KEY_FILE.touch(mode=0o600)
KEY_FILE.write_text("5e" * 32 + "\n")
os.environ["SHARED_SEED_KEY"] = str(KEY_FILE)

settings.register_profile("shared-seed", deadline=None, derandomize=True, max_examples=30, print_blob=False)
settings.load_profile("shared-seed")


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of ``benchmarks/`` can be imported."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process; returns exit code, standard output and standard error."""
    from shared_seed import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def caller(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["shared-seed", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return caller


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    leaked, _ = not torch.is_grad_enabled(), torch.set_grad_enabled(True)
    assert not leaked, "the test left autograd switched off, for all tests behind it"
