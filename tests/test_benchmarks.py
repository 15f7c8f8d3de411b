"""Every benchmark runs, tiny, so that none can rot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import tiny

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_every_benchmark_has_a_test_here() -> None:
    names = {path.stem for path in BENCHMARKS.glob("*.py")}
    assert names == {"probe_noise", "prompts"}
    assert all(f"test_{name}" in dir(sys.modules[__name__]) for name in names)


def test_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import prompts

    scores = prompts.measure(tiny.recipe(tmp_path), 20, (("{text} it was", "terrible", "great"),))
    assert [score.rows for score in scores] == [20]
    assert "'{text} it was' terrible/great" in capsys.readouterr().out


def test_probe_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import probe_noise

    errors = probe_noise.measure(tiny.recipe(tmp_path), 3, (-10, -6))
    assert errors["fp32", -10] == 0
    assert 0 < errors["fp32", -6] < 1
    assert errors["bf16", -10] > 0
    assert "rms projected gradient" in capsys.readouterr().out
