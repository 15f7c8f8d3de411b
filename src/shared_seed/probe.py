"""The projected gradient: two losses, no autograd, nothing left behind."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shared_seed.generators import Generators
from shared_seed.noise import Sample
from shared_seed.perturbation import Perturbation


@dataclass(frozen=True, slots=True)
class Measurement:
    """The two losses of a probe and ``gradient = (plus - minus) / (2 epsilon)`` (Spall 1992, eq. 2.1)."""

    plus: float
    minus: float
    gradient: float

    @property
    def loss(self) -> float:
        """The mean of the two: the loss at the weights themselves, to first order."""
        return (self.plus + self.minus) / 2


class _Buffers:
    """A model's buffers (BatchNorm's running statistics and the like), as they stand."""

    def __init__(self, model: nn.Module) -> None:
        self._saved = [
            (module._buffers, name, values, values.detach().clone())
            for module in model.modules()
            for name, values in module._buffers.items()
            if values is not None
        ]

    def restore(self) -> None:
        for owner, name, values, before in self._saved:
            values.copy_(before)
            owner[name] = values


class Probe:
    """Measures projected gradients of one model.

    ``coarse`` is set when a loss comes in half precision, where rounding is most of a probe's difference.
    """

    def __init__(self, model: nn.Module, perturbation: Perturbation) -> None:
        self.model = model
        self.perturbation = perturbation
        self.coarse = False

    def measure(
        self,
        loss: Callable[[], Any],
        sample: Sample,
        context: AbstractContextManager[Any] | None = None,
    ) -> Measurement:
        """Evaluate the loss at ``theta + eps z`` and ``theta - eps z``.

        Both evaluations start from the same generator states (the same dropout masks) and the same buffers,
        which advance once. After an exception, Ctrl-C too, weights, buffers and generators are as before.

        Args:
            loss: evaluates the model on one batch, twice the same; a tensor of one element, a number, or ``None``
                where the batch has no loss.
            sample: names the direction z.
            context: entered around the pair, such as an outer autocast that keeps its casts for both.

        Returns:
            The losses and the projected gradient; not finite where the losses are not, NaN where there is none.
        """
        generators, buffers = Generators(), _Buffers(self.model)
        try:
            with torch.no_grad(), context or nullcontext(), self.perturbation.along(sample) as move:
                move(+1)
                with self.perturbation.checked():
                    first = loss()
                if first is None:
                    return Measurement(math.nan, math.nan, math.nan)
                self.coarse |= isinstance(first, Tensor) and first.dtype in (torch.bfloat16, torch.float16)
                # A copy: a model may hand out the same tensor again.
                plus = first.detach().clone() if isinstance(first, Tensor) else first
                generators.restore()
                with torch.no_grad():
                    buffers.restore()
                move(-1)
                plus, minus = _numbers(plus, loss())
        except BaseException:
            # Ctrl-C may have struck while the weights were on their way back.
            self.perturbation.settle()
            generators.restore()
            with torch.no_grad():
                buffers.restore()
            raise
        return Measurement(plus, minus, (plus - minus) / (2 * self.perturbation.epsilon))


def _numbers(plus: Any, minus: Any) -> tuple[float, float]:
    """Two losses as numbers, read together: each read makes the host wait for an accelerator."""
    if isinstance(plus, Tensor) and isinstance(minus, Tensor) and plus.device == minus.device:
        first, second = torch.stack([plus.reshape(()), minus.detach().reshape(())]).tolist()
        return first, second
    return float(plus), float(minus)
