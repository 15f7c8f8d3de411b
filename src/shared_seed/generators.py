"""The generators that a forward pass or a data loader may draw from: torch's, Python's and numpy's."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


class Generators:
    """Every global generator as it stood when this was made, or as :meth:`unpack` was told."""

    def __init__(self) -> None:
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        self._python = random.getstate()
        self._numpy = np.random.get_state(legacy=True)

    def restore(self) -> None:
        """Set them back."""
        torch.set_rng_state(self._torch)
        for device, state in enumerate(self._cuda[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, device)
        random.setstate(self._python)
        np.random.set_state(self._numpy)

    def pack(self) -> dict[str, Tensor]:
        """The states as tensors, which any checkpoint can hold."""
        version, words, gauss = self._python
        _, keys, position, has_gauss, cached = self._numpy
        packed = {
            "torch": self._torch,
            "python": torch.tensor([version, *words]),
            "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
            "numpy": torch.from_numpy(np.asarray([*keys, position, has_gauss], np.int64)),
            "numpy_gauss": torch.tensor([cached], dtype=torch.float64),
        }
        return packed | {f"cuda{i}": state for i, state in enumerate(self._cuda)}

    @classmethod
    def unpack(cls, packed: Mapping[str, Tensor]) -> Generators:
        """What :meth:`pack` has packed."""
        states = cls()
        version, *words = packed["python"].tolist()
        gauss = packed["python_gauss"].tolist()
        *keys, position, has_gauss = packed["numpy"].tolist()
        states._torch = packed["torch"].cpu()
        states._python = (version, tuple(words), gauss[0] if gauss else None)
        cached = float(packed["numpy_gauss"])
        states._numpy = ("MT19937", np.asarray(keys, np.uint32), position, has_gauss, cached)
        states._cuda = [packed[name].cpu() for name in sorted(packed) if name.startswith("cuda")]
        return states
