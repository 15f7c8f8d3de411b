"""Files inside installed packages are found by their ends, without importing anything."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from shared_seed import packages
from shared_seed.errors import DataError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution "tiny-data" whose code must not run."""
    root = tmp_path / "site"
    files = ["tiny_data/__init__.py", "tiny_data/rows.csv", "tiny_data/more/rows.csv", "tiny_data/model.gguf"]
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("raise RuntimeError" if name.endswith(".py") else name)
    info = root / "tiny_data-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in [*files, "tiny_data-1.0.dist-info/METADATA"]))
    monkeypatch.syspath_prepend(root)
    importlib.invalidate_caches()
    return root


@pytest.mark.parametrize(
    ("reference", "suffix", "found"),
    [
        ("package:tiny-data", ".gguf", "tiny_data/model.gguf"),
        ("package:tiny_data", ".gguf", "tiny_data/model.gguf"),
        ("package:tiny-data/model.gguf", "", "tiny_data/model.gguf"),
        ("package:tiny-data/more/rows.csv", "", "tiny_data/more/rows.csv"),
        ("package:tiny-data/tiny_data/rows.csv", ".ignored", "tiny_data/rows.csv"),
    ],
)
def test_a_file_is_found_by_the_end_of_its_path(package: Path, reference: str, suffix: str, found: str) -> None:
    path = packages.find(reference, suffix)
    assert path == package / found
    assert path.read_text() == found
    assert "tiny_data" not in sys.modules


@pytest.mark.parametrize(
    ("reference", "suffix", "said"),
    [
        ("package:not-installed-anywhere", ".gguf", "'not-installed-anywhere' is not installed; pip install"),
        ("package:tiny-data", ".parquet", "has 0 files ending in '.parquet'"),
        ("package:tiny-data/rows.csv", "", "has 2 files ending in 'rows.csv'.*more/rows.csv"),
        ("package:tiny-data/ows.csv", "", "has 0 files ending in 'ows.csv'"),
        ("package:tiny-data/../tiny_data/rows.csv", "", "has 0 files"),
        ("package:", ".gguf", "package"),
        ("package:/rows.csv", "", "package"),
    ],
)
def test_what_leads_to_no_one_file_is_refused(package: Path, reference: str, suffix: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        packages.find(reference, suffix)
