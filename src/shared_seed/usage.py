"""What training takes besides time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """``None`` is what the machine did not tell.

    Args:
        memory: most bytes that the process has had in RAM, libraries and all.
        device_memory: most bytes that torch had allocated on a GPU.
        processor_energy: joules that the processors' packages took, whatever program they ran.
        device_energy: joules that the GPU took, whatever program it ran.
    """

    memory: int | None = None
    device_memory: int | None = None
    processor_energy: float | None = None
    device_energy: float | None = None

    @property
    def energies(self) -> dict[str, float]:
        """The joules that are known, by what took them."""
        both = {"processors": self.processor_energy, "GPU": self.device_energy}
        return {name: joules for name, joules in both.items() if joules is not None}
