"""Memory and energy: what is counted, and what is left out where a machine does not tell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from shared_seed.meter import Meter
from shared_seed.usage import Usage


def zone(root: Path, name: str, folder: str, joules: float, limit: float = 1000) -> Path:
    """What Linux shows of one counter."""
    path = root / folder
    path.mkdir()
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{int(limit * 1e6) - 1}\n")
    (path / "energy_uj").write_text(f"{int(joules * 1e6)}\n")
    return path / "energy_uj"


def test_packages_are_summed_through_wraps_and_nothing_is_counted_twice(tmp_path: Path) -> None:
    first = zone(tmp_path, "package-0", "intel-rapl:0", 990)
    second = zone(tmp_path, "package-1", "intel-rapl:1", 5)
    core = zone(tmp_path, "core", "intel-rapl:0:0", 3)
    platform = zone(tmp_path, "psys", "intel-rapl:2", 7)
    meter = Meter(tmp_path)
    assert meter.read().processor_energy == 0
    first.write_text(f"{int(15e6)}")
    second.write_text(f"{int(6e6)}")
    core.write_text(f"{int(500e6)}")
    platform.write_text(f"{int(500e6)}")
    assert meter.read().processor_energy == 25 + 1
    first.write_text(f"{int(14e6)}")
    assert meter.read().processor_energy == 25 + 999 + 1


def test_energy_is_not_stated_where_no_counter_can_be_read_or_one_vanishes(tmp_path: Path) -> None:
    assert Meter(tmp_path).read().processor_energy is None
    assert Meter(tmp_path / "nothing").read().processor_energy is None
    counter = zone(tmp_path, "package-0", "intel-rapl:0", 1)
    zone(tmp_path, "package-1", "intel-rapl:1", 1)
    meter = Meter(tmp_path)
    counter.write_text("no number")
    assert meter.read().processor_energy is None
    assert Meter(tmp_path).read().processor_energy == 0


def test_only_what_is_known_is_listed() -> None:
    assert Usage().energies == {}
    assert Usage(device_energy=2.5).energies == {"GPU": 2.5}


def test_the_peak_of_memory_grows_with_what_is_used_and_stays() -> None:
    code = (
        "import numpy as np; from shared_seed.meter import peak_memory\n"
        "before = peak_memory(); held = np.ones(25_000_000); peak = peak_memory(); del held\n"
        "print(before, peak, peak_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    before, peak, after = map(int, done.stdout.split())
    assert before > 10_000_000
    assert peak - before > 190_000_000
    # Linux counts pages in batches.
    assert abs(after - peak) < 5_000_000


def test_a_gpus_memory_is_stated_where_there_is_one() -> None:
    assert (Meter().read().device_memory is None) == (not torch.cuda.is_available())
