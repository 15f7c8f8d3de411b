"""The projected gradient: two losses, no autograd, nothing left behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shared_seed import casts
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
        with self._evaluating(context) as again, self.perturbation.along(sample) as move:
            move(+1)
            with self.perturbation.checked():
                first = loss()
            if first is None:
                return Measurement(math.nan, math.nan, math.nan)
            sides = [self._kept(first)]
            again()
            move(-1)
            sides.append(loss())
            plus, minus = _numbers(sides)
        return Measurement(plus, minus, (plus - minus) / (2 * self.perturbation.epsilon))

    def measure_all(
        self,
        loss: Callable[[], Any],
        samples: Sequence[Sample],
        context: AbstractContextManager[Any] | None = None,
    ) -> list[Measurement]:
        """As :meth:`measure` for one direction, as :meth:`measure_along` for several."""
        if len(samples) == 1:
            return [self.measure(loss, samples[0], context)]
        return self.measure_along(loss, samples, context)

    def measure_along(
        self,
        loss: Callable[[], Any],
        samples: Sequence[Sample],
        context: AbstractContextManager[Any] | None = None,
    ) -> list[Measurement]:
        """Evaluate the loss at ``theta`` once, and at ``theta + eps z`` for each of several directions.

        Forward differences: one evaluation for each direction and one for all of them, instead of two for each
        (Chen et al. 1993 and Spall 1997 on one-sided SPSA). To the projected gradient they add
        ``eps / 2 * z H z``, which small epsilons keep small.

        Args:
            loss: as in :meth:`measure`; every evaluation sees the same dropout masks and buffers.
            samples: name the directions.
            context: entered around all evaluations.

        Returns:
            For each direction, the loss along it, the loss at ``theta``, and ``(plus - minus) / epsilon``.
        """
        with self._evaluating(context) as again:
            here = loss()
            if here is None:
                return [Measurement(math.nan, math.nan, math.nan)] * len(samples)
            values = [self._kept(here)]
            for sample in samples:
                again()
                with self.perturbation.along(sample) as move:
                    move(+1)
                    with self.perturbation.checked():
                        values.append(self._kept(loss()))
            minus, *others = _numbers(values)
        return [Measurement(plus, minus, (plus - minus) / self.perturbation.epsilon) for plus in others]

    @contextmanager
    def _evaluating(self, context: AbstractContextManager[Any] | None) -> Iterator[Callable[[], None]]:
        """Around all evaluations of a batch; yields what brings generators and buffers back before another one."""
        with self._undone_on_errors() as again, torch.no_grad(), context or nullcontext(), casts.kept(self.model):
            yield again

    @contextmanager
    def _undone_on_errors(self) -> Iterator[Callable[[], None]]:
        """Yields what brings generators and buffers back to where they are now, as errors do, with the weights."""
        generators, buffers, autograd = Generators(), _Buffers(self.model), torch.is_grad_enabled()

        def again() -> None:
            generators.restore()
            with torch.no_grad():
                buffers.restore()

        try:
            yield again
        except BaseException:
            # Ctrl-C may have struck while the weights were on their way back.
            self.perturbation.settle()
            again()
            # Inside torch's own no_grad it leaves autograd off.
            torch.set_grad_enabled(autograd)
            raise

    def _kept(self, value: Any) -> Any:
        """A copy of a loss, since a model may hand out the same tensor again; notes its precision."""
        if not isinstance(value, Tensor):
            return value
        self.coarse |= value.dtype in (torch.bfloat16, torch.float16)
        return value.detach().clone()


def _numbers(values: Sequence[Any]) -> list[float]:
    """Losses as numbers, read together: each read makes the host wait for an accelerator."""
    if all(isinstance(value, Tensor) for value in values) and len({value.device for value in values}) == 1:
        numbers: list[float] = torch.stack([value.detach().reshape(()) for value in values]).tolist()
        return numbers
    return [float(value) for value in values]
