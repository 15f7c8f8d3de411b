"""Measures memory and energy, as far as the machine tells."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from shared_seed.usage import Usage

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows the energy counters of processors (RAPL); kernels since 2020 let only root read them."""

NVML = "libnvidia-ml.so.1"
"""Nvidia's library that reads its GPUs' counters."""


class Meter:
    """Counts from its making on; :meth:`read` it at least every few minutes, since counters wrap around."""

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._zones = [zone for zone in map(_Zone.at, sorted(powercap.glob("*"))) if zone is not None]
        self._device = _device_counter()
        self._device_began = self._device() if self._device else None

    def read(self) -> Usage:
        """What was taken so far."""
        energies = [zone.read() for zone in self._zones]
        known = [energy for energy in energies if energy is not None]
        now = self._device() if self._device else None
        return Usage(
            memory=peak_memory(),
            device_memory=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
            processor_energy=sum(known) if known and len(known) == len(energies) else None,
            device_energy=None if now is None or self._device_began is None else now - self._device_began,
        )


def peak_memory() -> int | None:
    """Most bytes that this process has had in RAM; ``None`` where the system does not count them."""
    try:
        # Not getrusage, which on Linux counts what the parent had too.
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    try:
        import resource
    except ImportError:  # Windows has none.
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class _Zone:
    """One processor package's counter of microjoules."""

    def __init__(self, path: Path, limit: int, last: int) -> None:
        self._path = path
        self._limit = limit
        self._last = last
        self._total = 0

    @classmethod
    def at(cls, path: Path) -> _Zone | None:
        """The counter in a folder, where it is a package's and may be read.

        Packages contain cores and graphics, and the zone ``psys`` contains packages: only packages are summed.
        """
        try:
            if not (path / "name").read_text().startswith("package-"):
                return None
            limit = int((path / "max_energy_range_uj").read_text())
            return cls(path, limit, int((path / "energy_uj").read_text()))
        except (OSError, ValueError):
            return None

    def read(self) -> float | None:
        """Joules since the beginning; ``None`` if the counter can no longer be read."""
        try:
            now = int((self._path / "energy_uj").read_text())
        except (OSError, ValueError):
            return None
        self._total += (now - self._last) % (self._limit + 1)
        self._last = now
        return self._total / 1e6


def _device_counter() -> Callable[[], float | None] | None:
    """Reads the joules that torch's current GPU has taken since its driver was loaded, where NVML tells."""
    if not torch.cuda.is_available():
        return None
    try:
        library = ctypes.CDLL(NVML)
        handle = ctypes.c_void_p()
        uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}".encode()
        if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(handle)):
            return None
    except (OSError, AttributeError):
        return None
    millijoules = ctypes.c_ulonglong()

    def read() -> float | None:
        failed = library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))
        return None if failed else millijoules.value / 1000

    return read
